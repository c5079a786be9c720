"""What a `config.json` says of a Llama model, and whether it is of the kind that `llama` runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError

CONFIG_FILE = "config.json"

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BEFORE_ATTENTION, BEFORE_MLP = "input_layernorm", "post_attention_layernorm"
"""How transformers names the embeddings and the output layer, and a layer's two normalisations."""

_ROPE_TYPES = ("default", "linear", "llama3")


def read_settings(folder: Path, name: str = CONFIG_FILE) -> dict[str, Any]:
    """The content of a folder's `config.json`, or of a file like it.

    Raises:
        CheckpointError: it is missing, or no JSON object.
    """
    try:
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / name}: can't be read: {error}. It says what the model is.") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder / name}: must hold a JSON object.")
    return settings


def beyond_llama(settings: Mapping[str, Any]) -> str | None:
    """What `llama` doesn't run of a model with these settings, as it reads after "a model"; None where it runs it all."""
    kind = settings.get("model_type")
    if kind != "llama":
        return f"of the architecture {kind!r}"
    for name in ("attention_bias", "mlp_bias", "quantization_config"):
        if settings.get(name):
            return f"that has {name}"
    if settings.get("hidden_act", "silu") != "silu":
        return f"that has hidden_act {settings['hidden_act']!r}"
    rope = _rope(settings)
    if rope["rope_type"] not in _ROPE_TYPES:
        return f"that has rope_type {rope['rope_type']!r}"
    return "that has a partial_rotary_factor" if rope.get("partial_rotary_factor", 1.0) != 1.0 else None


@dataclass(frozen=True, slots=True, eq=False)
class LlamaConfig:
    """The sizes of a Llama model.

    Attributes:
        width: of the hidden state.
        inner: width within the MLP.
        layers: how many there are.
        heads: of attention; kv_heads: of its keys and values, each of which serves heads / kv_heads queries.
        head_width: of one head.
        vocabulary: rows of the embeddings.
        epsilon: of the normalisation.
        tied: the output layer is the embeddings.
        turns: how far each pair of a head's numbers turns from one position to the next, in radians, shape (head_width / 2,).
    """

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    epsilon: float
    tied: bool
    turns: NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path) -> LlamaConfig:
        """From a folder's `config.json`, as any release of transformers writes it.

        Raises:
            CheckpointError: it can't be read, or sizes are missing or don't fit each other.
        """
        settings, where = read_settings(folder), folder / CONFIG_FILE
        width, heads = _size(settings, "hidden_size", where), _size(settings, "num_attention_heads", where)
        kv_heads = _size(settings, "num_key_value_heads", where, heads)
        head_width = _size(settings, "head_dim", where, width // heads)
        if heads % kv_heads or head_width % 2:
            raise CheckpointError(
                f"{where}: {heads} heads of width {head_width} don't go with {kv_heads} heads of keys and values."
            )
        return cls(
            width=width,
            inner=_size(settings, "intermediate_size", where),
            layers=_size(settings, "num_hidden_layers", where),
            heads=heads,
            kv_heads=kv_heads,
            head_width=head_width,
            vocabulary=_size(settings, "vocab_size", where),
            epsilon=_number(settings, "rms_norm_eps", where, 1e-6),
            tied=bool(settings.get("tie_word_embeddings", False)),
            turns=_turns(_rope(settings), head_width, where),
        )

    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of attention and MLP: name -> shape (out, in)."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        shapes = {
            "self_attn.q_proj": (queries, self.width),
            "self_attn.k_proj": (keys, self.width),
            "self_attn.v_proj": (keys, self.width),
            "self_attn.o_proj": (self.width, queries),
            "mlp.gate_proj": (self.inner, self.width),
            "mlp.up_proj": (self.inner, self.width),
            "mlp.down_proj": (self.width, self.inner),
        }
        return {f"model.layers.{layer}.{name}": shape for layer in range(self.layers) for name, shape in shapes.items()}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """All tensors of the model: name -> shape."""
        norms = [f"model.layers.{layer}.{which}" for layer in range(self.layers) for which in (BEFORE_ATTENTION, BEFORE_MLP)]
        outer = [EMBEDDING] if self.tied else [EMBEDDING, HEAD]
        return {
            **{f"{name}.weight": shape for name, shape in self.linear().items()},
            **dict.fromkeys([f"{name}.weight" for name in [*norms, "model.norm"]], (self.width,)),
            **dict.fromkeys(outer, (self.vocabulary, self.width)),
        }


def _rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters`, or `rope_scaling` and `rope_theta` of releases before 5 of transformers."""
    given = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    held = dict(given) if isinstance(given, Mapping) else {"rope_type": repr(given)}
    return {
        **held,
        "rope_type": held.get("rope_type", held.get("type", "default")),
        "rope_theta": held.get("rope_theta", settings.get("rope_theta", 10_000.0)),
    }


def _turns(rope: Mapping[str, Any], head_width: int, where: Path) -> NDArray[np.float32]:
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    turns = np.float32(1.0) / np.float32(_number(rope, "rope_theta", where)) ** exponents
    if rope["rope_type"] == "default":
        return turns
    slow = turns / np.float32(_number(rope, "factor", where))
    if rope["rope_type"] == "linear":
        return slow
    # Llama 3: what turns often within the length that was first trained on stays as it is, what turns seldom is slowed down,
    # and there is a ramp in between.
    low, high = _number(rope, "low_freq_factor", where), _number(rope, "high_freq_factor", where)
    if low >= high:
        raise CheckpointError(f"{where}: low_freq_factor is {low}; it must be below high_freq_factor, {high}.")
    often = turns * np.float32(_number(rope, "original_max_position_embeddings", where) / (2 * math.pi))
    share = np.clip((often - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return np.asarray((1 - share) * slow + share * turns, dtype=np.float32)


def _size(settings: Mapping[str, Any], name: str, where: Path, default: int | None = None) -> int:
    value = settings.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{where}: {name} is {value!r}; it must be a whole number from 1.")
    return value


def _number(settings: Mapping[str, Any], name: str, where: Path, default: float | None = None) -> float:
    value = settings.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise CheckpointError(f"{where}: {name} is {value!r}; it must be a number above 0.")
    return float(value)
