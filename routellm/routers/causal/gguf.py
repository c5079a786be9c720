"""From a GGUF file of a Llama model to a folder that transformers loads: config, weights and tokenizer.

transformers reads GGUF itself, but builds the tokenizer and the dequantised weights in ways that differ between its releases;
a fine-tuned model needs the very bytes it was trained on. So the little that is needed is read here: the four kinds of tensors
below, and byte-level BPE. The folder depends on the file alone, and so its hashes can be pinned.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NORMAL = 1
"""The type of a token that text may hold; the others are special."""

_BLOCK = 32
_KINDS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    3: np.dtype([("scale", "<f2"), ("least", "<f2"), ("values", "u1", _BLOCK // 2)]),
    8: np.dtype([("scale", "<f2"), ("values", "i1", _BLOCK)]),
}
"""Type number -> how it lies in the file: F32, F16, Q4_1 and Q8_0; the last two in blocks of 32 numbers."""

_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


@dataclass(frozen=True, slots=True)
class Gguf:
    """What a file holds: its fields, and its tensors as (name, shape with rows first, values)."""

    fields: dict[str, Any]
    tensors: list[tuple[str, NDArray[np.float32]]]


def convert(path: Path, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` (matrices in float16), `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        CheckpointError: the file is damaged, no Llama model, or of a kind that isn't read here.
    """
    from safetensors.numpy import save

    try:
        held = read_gguf(path)
        tied = all(name != "output.weight" for name, _ in held.tensors)
        config, tokenizer, settings = _config(held.fields, tied), _tokenizer(held.fields), _tokenizer_settings(held.fields)
        heads = config["num_attention_heads"], config["num_key_value_heads"]
        weights = dict(_renamed(held, heads))
    except (KeyError, ValueError, TypeError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is no GGUF file of a Llama model that can be read here: {error!r}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config": config, "tokenizer": tokenizer, "tokenizer_config": settings}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))


def read_gguf(path: Path) -> Gguf:
    """Fields and dequantised tensors of a GGUF file, version 2 or 3, little-endian.

    Raises:
        ValueError, KeyError, struct.error, UnicodeDecodeError: the file is damaged or of another kind.
    """
    data = memoryview(path.read_bytes())
    reader = _Reader(data)
    magic, version, n_tensors, n_fields = reader.unpack("4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r}, version {version}")
    fields = {reader.string(): reader.value(reader.unpack("I")[0]) for _ in range(n_fields)}
    entries = []
    for _ in range(n_tensors):
        name, rank = reader.string(), reader.unpack("I")[0]
        shape = reader.unpack(f"{rank}Q")[::-1]
        entries.append((name, shape, *reader.unpack("IQ")))
    alignment = int(fields.get("general.alignment", 32))
    start = -(-reader.position // alignment) * alignment
    return Gguf(fields, [(name, _dequantised(data, start + at, kind, shape)) for name, shape, kind, at in entries])


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self.position)
        self.position += struct.calcsize("<" + layout)
        return values

    def string(self) -> str:
        length = self.unpack("Q")[0]
        text = bytes(self._data[self.position : self.position + length])
        if len(text) != length:
            raise ValueError("it ends too early")
        self.position += length
        return text.decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            of, length = self.unpack("IQ")
            return [self.value(of) for _ in range(length)]
        return self.unpack(_SCALARS[kind])[0]


def _dequantised(data: memoryview, start: int, kind: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Every number as float32: exact, since it is a product of a float16 and a small integer, plus a float16."""
    if kind not in _KINDS:
        raise ValueError(f"a tensor is of type {kind}; read are F32 (0), F16 (1), Q4_1 (3) and Q8_0 (8)")
    size = int(np.prod(shape))
    in_blocks = _KINDS[kind].names is not None
    raw = np.frombuffer(data, _KINDS[kind], size // _BLOCK if in_blocks else size, start)
    if not in_blocks:
        return raw.astype(np.float32).reshape(shape)
    numbers = raw["values"]
    if kind == 3:  # the low halves of the bytes are the first 16 numbers of a block, the high halves the others
        numbers = np.concatenate([numbers & 15, numbers >> 4], axis=1)
    values = numbers.astype(np.float32) * raw["scale"].astype(np.float32)[:, None]
    if kind == 3:
        values += raw["least"].astype(np.float32)[:, None]
    return values.reshape(shape)


def _renamed(held: Gguf, heads: tuple[int, int]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Tensors by the names, and in the order of rows, that transformers uses."""
    for name, values in held.tensors:
        tensor = values if values.ndim == 1 else values.astype(np.float16)
        parts = name.split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):  # GGUF interleaves the two halves that rotary positions pair up
                n_heads = heads[parts[2] == "attn_k"]
                pairs = tensor.reshape(n_heads, tensor.shape[0] // n_heads // 2, 2, tensor.shape[1])
                tensor = pairs.swapaxes(1, 2).reshape(tensor.shape)
            yield f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.weight", np.ascontiguousarray(tensor)
        else:
            outer = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
            yield f"{outer[parts[0]]}.weight", tensor


def _config(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    if fields.get("general.architecture") != "llama":
        raise ValueError(f"its architecture is {fields.get('general.architecture')!r}")
    tokens, heads = fields["tokenizer.ggml.tokens"], fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.7g}"),
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }


def _tokenizer(fields: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a byte-level BPE tokenizer that adds nothing to a text."""
    if fields["tokenizer.ggml.model"] != "gpt2" or fields["tokenizer.ggml.pre"] != "smollm":
        raise ValueError("its tokenizer is not that of SmolLM")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, **plain}
            for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind != _NORMAL
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": fields["tokenizer.ggml.merges"],
        },
    }


def _tokenizer_settings(fields: dict[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": fields["tokenizer.chat_template"],
    }
