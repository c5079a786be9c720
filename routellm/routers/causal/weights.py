"""The weights of a language model in safetensors: mapped, and made float32 one tensor at a time.

The library `safetensors` hands out numpy arrays of bfloat16 in some releases only, and copies what it hands out. The format is
little: the length of a header, the header in JSON (name -> type, shape, place), and the numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError

Array = NDArray[np.float32]

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_BFLOAT16, _FLOAT16 = "BF16", "F16"
_TYPES: dict[str, np.dtype[Any]] = {
    _BFLOAT16: np.dtype("<u2"),
    _FLOAT16: np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
"""How numbers lie in a file; of a bfloat16 the bits, which are the upper half of a float32's."""

_AT_ONCE = 2**17
"""So many numbers are converted at once, and stay in the processor's cache between steps."""

_SIGN_EXPONENT_FRACTION = np.array(0x8FFFE000, dtype=np.uint32).view(np.int32)
"""Where a float16's bits stand in a float32 after they were shifted."""


class Weights:
    """The tensors of a folder: of its `model.safetensors`, or of the files that `model.safetensors.index.json` lists.

    Raises:
        CheckpointError: there is neither, or a file is corrupt or truncated.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, tuple[str, NDArray[Any]]] = {}
        for path in _files(folder):
            try:
                self._tensors |= dict(_mapped(path))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{path}: corrupt or truncated: {error!r}.") from error

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """That these tensors are there, and can be read.

        Raises:
            CheckpointError: some are missing, or of another shape or type.
        """
        wrong = [name for name, shape in shapes.items() if name not in self or self._tensors[name][1].shape != shape]
        if wrong:
            raise CheckpointError(f"{self._folder}: these weights are missing or of another shape: {', '.join(wrong[:5])}.")
        for name in shapes:
            kind = self._tensors[name][0]
            if kind not in _TYPES:
                raise CheckpointError(f"{self._folder}: {name} is of the type {kind}; read are {', '.join(_TYPES)}.")

    def read(self, name: str, into: Array | None = None) -> Array:
        """A tensor in float32.

        Args:
            name: one that was checked.
            into: a contiguous array of its shape, which is filled and returned.
        """
        kind, held = self._tensors[name]
        out = np.empty(held.shape, dtype=np.float32) if into is None else into
        widen = _WIDEN.get(kind)
        if widen is None:
            out[...] = held
            return out
        numbers, target = held.reshape(-1), out.reshape(-1)
        for start in range(0, numbers.size, _AT_ONCE):
            widen(target[start : start + _AT_ONCE], numbers[start : start + _AT_ONCE])
        return out


def _files(folder: Path) -> list[Path]:
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if not (folder / _INDEX).is_file():
        raise CheckpointError(f"{folder}: holds no language model in safetensors: neither {_SINGLE} nor {_INDEX}.")
    try:
        names = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError(f"it lists {names}, where names of files in the folder are needed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / _INDEX}: can't be read: {error!r}.") from error
    return [folder / name for name in names]


def _mapped(path: Path) -> Iterator[tuple[str, tuple[str, NDArray[Any]]]]:
    """Name -> type and numbers, in the file itself. Of an unknown type there are bytes only."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if start > len(data):
        raise ValueError("its header is longer than the file")
    for name, entry in json.loads(data[8:start].tobytes()).items():
        if name == "__metadata__":
            continue
        kind, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        if kind in _TYPES:
            expected = math.prod(shape) * _TYPES[kind].itemsize
            if not 0 <= begin <= end <= len(data) - start or end - begin != expected:
                raise ValueError(f"{name} of shape {shape} lies at bytes {begin} to {end}")
            yield name, (kind, data[start + begin : start + end].view(_TYPES[kind]).reshape(shape))
        else:
            yield name, (kind, np.broadcast_to(np.uint8(0), shape))


def _widen_bfloat16(out: Array, held: NDArray[np.uint16]) -> None:
    bits = out.view(np.uint32)
    bits[...] = held
    np.left_shift(bits, 16, out=bits)


def _widen_float16(out: Array, held: NDArray[np.float16]) -> None:
    """What `out[...] = held` does, in a third of its time: the bits put in their places, and the exponent's offset mended."""
    bits = out.view(np.int32)
    bits[...] = held.view("<i2")
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_EXPONENT_FRACTION, out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)
    if max(out.max(), -out.min()) >= 2.0**16:  # infinities, and what is no number
        out[...] = held


_WIDEN: dict[str, Callable[[Array, NDArray[Any]], None]] = {_BFLOAT16: _widen_bfloat16, _FLOAT16: _widen_float16}
