"""The model that our bundled files are derived from, pinned by the hashes of its files."""

from __future__ import annotations

from pathlib import Path

from routellm.downloads import sha256
from routellm.errors import CheckpointError

MODEL, REVISION, LICENCE = "sentence-transformers/all-MiniLM-L6-v2", "1110a243", "Apache-2.0"
HASHES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""Name of a file -> its sha256."""

SOURCE = {"model": MODEL, "revision": REVISION, "licence": LICENCE, "sha256": HASHES}
"""What a file derived from the model says about where it came from."""


def check_pinned(folder: Path) -> None:
    """Check that a folder holds the pinned weights and tokenizer.

    Raises:
        CheckpointError: a file is missing or differs; both hashes are named.
    """
    for name, wanted in HASHES.items():
        path = folder / name
        try:
            found = sha256(path)
        except OSError as error:
            raise CheckpointError(
                f"{str(path)!r} can't be read: {error.strerror}. --model must be a folder with {' and '.join(HASHES)} "
                f"of {MODEL}, revision {REVISION}."
            ) from error
        if found != wanted:
            raise CheckpointError(
                f"{str(path)!r} is not the pinned file of {MODEL}, revision {REVISION}: its sha256 is {found}, not {wanted}."
            )
