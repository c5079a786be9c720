"""Folders of files that may lie on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from routellm.errors import CheckpointError, MissingExtraError


def resolve_folder(where: str | Path, files: Sequence[str], revision: str | None = None) -> Path:
    """`where` itself if it is a folder, else a local copy of those `files` of the hub repository `OWNER/NAME`.

    Args:
        where: a folder, or the name of a repository.
        files: the only files that are fetched from a repository; a pattern such as `*.json` may stand for several.
        revision: branch, tag or commit of the repository; None takes its main branch.

    Raises:
        CheckpointError: neither exists.
        MissingExtraError: a hub repository is named and huggingface-hub is not installed.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return path
    name = str(where)
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or path.exists():
        raise CheckpointError(f"No checkpoint at {name!r}: give a folder, or a hub repository as OWNER/NAME.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError(f"The hub checkpoint {name!r}", "hub") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the hub's client raises dozens of kinds; each means the same here
        raise CheckpointError(
            f"The checkpoint {name!r} is no folder here, and the hub did not give it: {error}. "
            f"Check the name and the network, or give the path of a folder."
        ) from error
