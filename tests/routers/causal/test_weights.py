"""Reading safetensors without the library: numbers to the bit, and what damaged files say."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from routellm.errors import CheckpointError
from routellm.routers.causal import weights
from routellm.routers.causal.weights import Weights


def write(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_every_number_of_16_bits_is_read_as_it_is(tmp_path: Path) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    save_file({"a": halves.reshape(256, 256)}, tmp_path / "model.safetensors")
    held = Weights(tmp_path)
    assert "a" in held
    assert "b" not in held
    np.testing.assert_array_equal(held.read("a"), halves.astype(np.float32).reshape(256, 256))
    finite = halves[np.isfinite(halves)]  # the quick way, which infinities are not read by
    save_file({"a": finite}, tmp_path / "model.safetensors")
    read = Weights(tmp_path).read("a")
    np.testing.assert_array_equal(read, finite.astype(np.float32))
    assert np.signbit(read).tolist() == np.signbit(finite).tolist(), "zeros keep their sign"


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    entry = {"dtype": "BF16", "shape": [2, 2**15], "data_offsets": [0, 2**17]}
    write(tmp_path / "model.safetensors", {"__metadata__": {"format": "pt"}, "a": entry}, bits.tobytes())
    np.testing.assert_array_equal(Weights(tmp_path).read("a").reshape(-1).view(np.uint32), bits.astype(np.uint32) << 16)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_are_read_in_parts_and_into_a_given_place(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_AT_ONCE", 7)
    numbers = np.random.default_rng(0).standard_normal((5, 9)).astype(dtype)
    save_file({"a": numbers, "b": numbers[0]}, tmp_path / "model.safetensors")
    place = np.zeros((7, 9), dtype=np.float32)
    Weights(tmp_path).read("a", place[1:6])
    np.testing.assert_array_equal(place[1:6], numbers.astype(np.float32))
    assert not place[[0, 6]].any()


def test_missing_tensors_other_shapes_and_unknown_types_are_named(tmp_path: Path) -> None:
    entries = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F8_E4M3", "shape": [2, 4], "data_offsets": [8, 16]},
    }
    write(tmp_path / "model.safetensors", entries, bytes(16))
    held = Weights(tmp_path)
    held.check({"a": (2,)})
    with pytest.raises(CheckpointError, match=r"missing or of another shape: a, c\.$"):
        held.check({"a": (3,), "c": (1,)})
    with pytest.raises(CheckpointError, match="b is of the type F8_E4M3; read are BF16, F16, F32, F64"):
        held.check({"b": (2, 4)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"\xff\xff",
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: corrupt or truncated"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 7]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, -4]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F8_E4M3", "shape": [-1], "data_offsets": [0, 8]},
        "F32",
    ],
)
def test_a_tensor_that_does_not_lie_in_the_file_is_refused(tmp_path: Path, entry: Any) -> None:
    write(tmp_path / "model.safetensors", {"a": entry}, bytes(12))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: corrupt or truncated"):
        Weights(tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(100, dtype=np.float32)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for size in (len(whole) - 1, 100, 9):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: corrupt or truncated"):
            Weights(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "can't be read"),
        ('{"weight_map": ["a"]}', "can't be read"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "names of files in the folder"),
        ('{"weight_map": {"a": "gone.safetensors"}}', r"gone\.safetensors: corrupt or truncated: FileNotFoundError"),
        ('{"weight_map": {"a": 3}}', "can't be read"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        Weights(tmp_path)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no language model in safetensors: neither model\.safetensors nor"):
        Weights(tmp_path)
