"""The files of a static token table: what they hold, how they are checked, how they are written.

A folder holds `table.safetensors`, `tokenizer.json` and `table.json`. The last names the format and the sha256 of the other
two, and is written last, so that a half-written folder is never taken for a whole one.

The vector of token `t` is ``rows[t] * 2**shifts[t] * scales``: 8 bits a value, a power of two for each token and a factor for
each dimension. Powers of two keep the sum of tokens an exact integer in float32, so that it is the same in whichever order
and grouping it is added up; against one free factor for each token that costs a cosine of 0.00001.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import sha256
from routellm.errors import CheckpointError

FORMAT = "routellm-static-table"
FORMAT_VERSION = 1
TABLE, TOKENIZER, MANIFEST = "table.safetensors", "tokenizer.json", "table.json"
MAX_SHIFT = 4


@dataclass(frozen=True, slots=True)
class StaticTable:
    """A table in memory.

    Attributes:
        rows: int8, shape (tokens, dim).
        shifts: uint8, shape (tokens,), from 0 to `MAX_SHIFT`.
        scales: float32, shape (dim,).
        tokenizer: the text of `tokenizer.json`.
        fingerprint: "static:" and the start of a hash over both files and the format's version.
    """

    rows: NDArray[np.int8]
    shifts: NDArray[np.uint8]
    scales: NDArray[np.float32]
    tokenizer: str
    fingerprint: str


def quantise(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.uint8], NDArray[np.float32]]:
    """Split float vectors, shape (tokens, dim), into `rows`, `shifts` and `scales`."""
    # The square root of a column's spread lies between equal steps for all columns and equal resolution for each: of the
    # three it keeps the cosine to the float table best.
    spread = np.sqrt(np.maximum(vectors.std(axis=0), 1e-12))
    relative = np.abs(vectors / spread).max(axis=1)
    step = relative.max() / 127 / 2**MAX_SHIFT
    shifts = np.clip(np.ceil(np.log2(np.maximum(relative / (127 * step), 1.0))), 0, MAX_SHIFT).astype(np.uint8)
    rows = np.rint(vectors / (spread * step * np.exp2(shifts)[:, None]))
    return np.clip(rows, -127, 127).astype(np.int8), shifts, (spread * step).astype(np.float32)


def write_table(folder: Path, vectors: NDArray[np.float32], tokenizer: str, about: dict[str, Any]) -> None:
    """Write the three files; `about` (source, licence, ...) becomes part of `table.json`."""
    from safetensors.numpy import save

    rows, shifts, scales = quantise(vectors)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / TABLE).write_bytes(save({"rows": rows, "shifts": shifts, "scales": scales}))
    (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dim": int(rows.shape[1]),
        "tokens": int(rows.shape[0]),
        **about,
        "sha256": {name: sha256(folder / name) for name in (TABLE, TOKENIZER)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_table(folder: Path) -> StaticTable:
    """Read and check the three files.

    Raises:
        CheckpointError: one is missing, unreadable, altered, or of a newer format.
    """
    manifest = _read_manifest(folder)
    content: dict[str, bytes] = {}
    for name in (TABLE, TOKENIZER):
        try:
            content[name] = (folder / name).read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"The static table's file {str(folder / name)!r} can't be read: {error.strerror}."
            ) from error
        if hashlib.sha256(content[name]).hexdigest() != manifest["sha256"].get(name):
            raise CheckpointError(
                f"The static table's file {str(folder / name)!r} is not the one that {MANIFEST} names: it is cut short or "
                f"altered. Install routellm again, or make the folder again with `python -m routellm.training.distill`."
            )
    rows, shifts, scales = _read_arrays(content[TABLE], folder, (manifest.get("tokens"), manifest.get("dim")))
    digest = hashlib.sha256(f"{FORMAT_VERSION} {sorted(manifest['sha256'].items())}".encode()).hexdigest()
    return StaticTable(rows, shifts, scales, content[TOKENIZER].decode("utf-8"), f"static:{digest[:16]}")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"No static table in {str(folder)!r}: {MANIFEST} can't be read ({error.strerror}). Give the folder that "
            f"`python -m routellm.training.distill --out FOLDER` wrote, or none for the bundled table."
        ) from error
    except ValueError as error:  # broken JSON, or bytes that are not UTF-8
        raise CheckpointError(f"{str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{str(path)!r} does not describe a static table: its `format` must be {FORMAT!r}.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"The static table in {str(folder)!r} has format version {version!r}; this routellm reads version "
            f"{FORMAT_VERSION}. Upgrade routellm, or make the table again with `python -m routellm.training.distill`."
        )
    if not isinstance(manifest.get("sha256"), dict):
        raise CheckpointError(f"{str(path)!r} lacks `sha256`, the hashes of {TABLE} and {TOKENIZER}.")
    return manifest


def _read_arrays(
    content: bytes, folder: Path, shape: tuple[Any, Any]
) -> tuple[NDArray[np.int8], NDArray[np.uint8], NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{str(folder / TABLE)!r} is not a valid safetensors file: {error}") from error
    found = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    wanted = {
        "rows": (np.dtype(np.int8), shape),
        "shifts": (np.dtype(np.uint8), shape[:1]),
        "scales": (np.dtype(np.float32), shape[1:]),
    }
    if found != wanted:
        raise CheckpointError(f"{str(folder / TABLE)!r} holds {found}; {MANIFEST} promises {wanted}.")
    if arrays["shifts"].max(initial=0) > MAX_SHIFT or not np.isfinite(arrays["scales"]).all():
        raise CheckpointError(f"{str(folder / TABLE)!r} holds shifts over {MAX_SHIFT}, or scales that are not finite.")
    return arrays["rows"], arrays["shifts"], arrays["scales"]
