"""Folders that hold a trained router: `router.json` (what it is, how it was made) beside `model.safetensors` (its weights).

Weights are safetensors and nothing else: no file that is loaded here can run code. Whatever else a router needs (an ONNX
graph, a tokenizer) lies in the same folder and is listed in `router.json` under `files`, name -> sha256. A checkpoint of the
published kind has weights without `router.json`; the router itself then knows what to assume.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.downloads import sha256
from routellm.errors import CheckpointError
from routellm.hub import resolve_folder

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
META_FILE = "router.json"
QUANTILES_TENSOR = "score_quantiles"

_KEPT_TYPES = frozenset({"int8", "uint8", "int16", "int32", "float16"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder holds.

    Attributes:
        path: the folder.
        tensors: by name; int8, uint8, int16, int32 and float16 as they were saved, every other type as float32.
        meta: the content of `router.json`; None for published checkpoints.
    """

    path: Path
    tensors: dict[str, NDArray[Any]]
    meta: dict[str, Any] | None

    def field(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A field of `router.json`.

        Raises:
            CheckpointError: it is missing, or not of `kind`.
        """
        meta = self.meta or {}
        if name not in meta or not isinstance(meta[name], kind):
            raise CheckpointError(f"{self.path / META_FILE}: the field {name!r} is missing or of a wrong type.")
        return meta[name]

    def file(self, name: str) -> Path:
        """The path of one of the folder's further files, whose hash was checked when the checkpoint was loaded.

        Raises:
            CheckpointError: `router.json` lists no such file.
        """
        listed = (self.meta or {}).get("files", {})
        if name not in listed:
            raise CheckpointError(
                f"{self.path / META_FILE}: lists no file {name!r}. It lists: {', '.join(sorted(listed)) or 'none'}."
            )
        return self.path / name

    def quantiles(self) -> ScoreQuantiles | None:
        """The score quantiles that were saved with the router, if any."""
        saved = (self.meta or {}).get("quantiles")
        if saved is None:
            return None
        try:
            values = tuple(self.tensors[QUANTILES_TENSOR].astype(np.float64).tolist())
            return ScoreQuantiles(values, str(saved["source"]), int(saved["prompts"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path / META_FILE}: the field 'quantiles' can't be read: {error!r}.") from error


def load_checkpoint(where: str | Path, router: str) -> Checkpoint:
    """Read a folder, or a repository of the Hugging Face hub where no such folder exists.

    Raises:
        CheckpointError: nothing is there, a file is corrupt or truncated, its hash is not the recorded one, its format is
            newer than this release, or it belongs to another router than `router`.
        MissingExtraError: `where` names a hub repository and the extra `hub` is not installed.
    """
    folder = resolve_folder(where, [WEIGHTS_FILE, META_FILE])
    tensors = _load_tensors(folder / WEIGHTS_FILE)
    meta = _load_meta(folder / META_FILE)
    if meta is not None:
        if meta.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder}: the checkpoint's format version is {meta.get('format_version')!r}; this release reads version "
                f"{FORMAT_VERSION}. Upgrade routellm, or train the router again."
            )
        if meta.get("router") != router:
            raise CheckpointError(f"{folder}: holds a router of kind {meta.get('router')!r}, not {router!r}.")
        if meta.get("weights_sha256") != sha256(folder / WEIGHTS_FILE):
            raise CheckpointError(f"{folder / WEIGHTS_FILE}: its hash is not the one in {META_FILE}; copy the folder again.")
        if meta.get("files"):
            _check_files(where, folder, meta["files"])
    return Checkpoint(folder, tensors, meta)


def save_checkpoint(
    folder: str | Path,
    router: str,
    tensors: Mapping[str, NDArray[Any]],
    meta: Mapping[str, Any],
    quantiles: ScoreQuantiles | None = None,
    files: Mapping[str, Path] | None = None,
) -> Path:
    """Write a folder that `load_checkpoint` reads; `router.json` comes last, so that its presence means completeness.

    Args:
        router: the kind of router, by which `load_checkpoint` tells a folder of another kind.
        tensors: of any type that safetensors knows; see `Checkpoint.tensors` for what comes back.
        meta: further fields of `router.json`.
        files: name in the folder -> the file to copy there.

    Raises:
        CheckpointError: a name in `files` is no plain file name, or one that the folder itself uses.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / META_FILE).unlink(missing_ok=True)
    held = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    head: dict[str, Any] = {"format_version": FORMAT_VERSION, "router": router}
    if quantiles is not None:
        held[QUANTILES_TENSOR] = np.array(quantiles.values, dtype=np.float32)
        head["quantiles"] = {"source": quantiles.source, "prompts": quantiles.prompts}
    if files:
        head["files"] = {name: _copy(source, folder, name) for name, source in files.items()}
    (folder / WEIGHTS_FILE).write_bytes(save(held))
    head["weights_sha256"] = sha256(folder / WEIGHTS_FILE)
    (folder / META_FILE).write_text(json.dumps({**head, **meta}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def _check_files(where: str | Path, folder: Path, listed: object) -> None:
    if not isinstance(listed, dict) or not all(isinstance(name, str) and _is_plain(name) for name in listed):
        raise CheckpointError(f"{folder / META_FILE}: 'files' must map plain file names to their sha256.")
    fetched = resolve_folder(where, list(listed))  # of a repository on the hub, only what was asked for is here so far
    for name, wanted in listed.items():
        if not (fetched / name).is_file():
            raise CheckpointError(f"{folder}: has no {name}, which {META_FILE} lists; copy the whole folder again.")
        if sha256(fetched / name) != wanted:
            raise CheckpointError(f"{folder / name}: its hash is not the one in {META_FILE}; copy the folder again.")


def _copy(source: Path, folder: Path, name: str) -> str:
    """Copy a file into the folder under `name`; returns its hash."""
    if not _is_plain(name):
        raise CheckpointError(f"A checkpoint's file can't be named {name!r}: give a plain name that the folder does not use.")
    target = folder / name
    if not (target.exists() and target.samefile(source)):
        shutil.copyfile(source, target)
    return sha256(target)


def _is_plain(name: str) -> bool:
    return Path(name).name == name and "\\" not in name and name not in ("", "..", META_FILE, WEIGHTS_FILE)


def _load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        loaded = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: has no {WEIGHTS_FILE}.") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: corrupt or truncated: {error}") from error
    tensors = {
        name: tensor if tensor.dtype.name in _KEPT_TYPES else np.asarray(tensor, dtype=np.float32)
        for name, tensor in loaded.items()
    }
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: the tensor {name!r} holds values that are not finite.")
    return tensors


def _load_meta(path: Path) -> dict[str, Any] | None:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path}: must hold a JSON object.")
    return meta
