"""Where a fit stands, in one file, so that a run that broke off can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from routellm.errors import CheckpointError


def save_state(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write arrays and what JSON can hold; the file is replaced as a whole, so that a crash leaves the one before."""
    from safetensors.numpy import save

    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(dict(arrays), {"about": json.dumps(about)}))
    partial.replace(path)


def load_state(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """What `save_state` wrote; None where there is no such file.

    Raises:
        CheckpointError: the file is corrupt.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return arrays, json.loads(file.metadata()["about"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: can't be gone on from: {error}. Train without --resume.") from error
