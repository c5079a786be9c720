"""A Llama model on a CPU, in numpy: what a rating takes, without a deep-learning framework.

    x = embedding of the tokens
    each layer:  x += attention(norm(x));  x += down(silu(gate(norm(x))) * up(norm(x)))
    logits = output(norm(x)), of the last token only

Attention is causal, with rotary positions, and several heads of queries share one of keys and values. Everything is float32.
A decision is as good as nothing but products of matrices, which numpy's BLAS does at the processor's pace.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError
from routellm.routers.causal.llama_config import BEFORE_ATTENTION, BEFORE_MLP, CONFIG_FILE, EMBEDDING, HEAD, LlamaConfig
from routellm.routers.causal.lora import Adapter
from routellm.routers.causal.weights import Array, Weights

_QUERIES_AT_ONCE = 256
"""So many tokens of a text attend together: their scores over all tokens before them are held in memory."""

_SMALL_PRODUCT = 2**18
"""Multiplications of an adapter's product at once: few enough that BLAS starts no threads beside those that load layers, and
that no new memory is asked for each time."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights; matrices as (out, in).

    Attributes:
        qkv: queries, keys and values, one below the other.
        gate_up: gate and up, likewise.
    """

    before_attention: Array
    qkv: Array
    output: Array
    before_mlp: Array
    gate_up: Array
    down: Array


_Past = tuple[Array, Array]
"""A layer's keys and values of the tokens so far, each of shape (kv_heads, tokens, head_width)."""


class Llama:
    """A model in memory. Scoring changes nothing in it, so that threads may share it.

    Args:
        folder: `config.json` and safetensors, as transformers saves them.
        adapter: what is added to the weights, and the output rows of tokens from `first_token` on. None for a whole model.
        first_token: id of the first rating token.

    Raises:
        CheckpointError: the folder holds no such model, or the adapter doesn't fit it.
    """

    def __init__(self, folder: Path, adapter: Adapter | None = None, first_token: int = 0) -> None:
        self._config = config = LlamaConfig.read(folder)
        weights = Weights(folder)
        weights.check(config.tensors())
        if adapter is not None:
            adapter.check(config.linear(), (config.vocabulary, config.width), first_token)
        # In one piece, which the system hands out in large pages: filling small ones would take longer than converting.
        space = np.empty((config.layers, sum(map(math.prod, config.linear().values())) // config.layers), dtype=np.float32)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # numpy lets others run while it converts
            layers = pool.map(
                lambda number: _read_layer(weights, config, number, adapter, space[number]), range(config.layers)
            )
            self._embedding = weights.read(EMBEDDING)
            self._layers = list(layers)
        self._norm = weights.read("model.norm.weight")
        head = self._embedding if config.tied else weights.read(HEAD)
        # Releases of transformers differ in which of the two they take.
        if config.tied and HEAD in weights and not np.array_equal(head, weights.read(HEAD)):
            raise CheckpointError(
                f"{folder}: {HEAD} is not the embeddings, though {CONFIG_FILE} says so: tie_word_embeddings."
            )
        self._heads = [head] if adapter is None else [head[:first_token], adapter.rows]
        self._known: list[int] = []
        self._past = [(self._nothing(), self._nothing()) for _ in self._layers]

    @property
    def vocabulary(self) -> int:
        """How many tokens it has logits for."""
        return sum(map(len, self._heads))

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return self._config.layers

    def remember(self, ids: Sequence[int]) -> None:
        """Keep the keys and values of a text that others begin with: they then cost what comes after it alone.

        Not while other threads score.
        """
        if ids:
            past: list[_Past] = []
            self._run(ids, past)
            self._known, self._past = list(ids), past

    def last_logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Logits of the token after each text, shape (len(texts), vocabulary). Each text goes through alone."""
        logits = np.empty((len(texts), self.vocabulary))
        for row, ids in zip(logits, texts, strict=True):
            state = self._run(ids)
            np.concatenate([head @ state for head in self._heads], out=row)
        return logits

    def states(self, ids: Sequence[int], layers: int) -> Array:
        """Every token's state after the first `layers` layers, float32 of shape (len(ids), width)."""
        x, cos, sin = self._start(ids, 0)
        nothing = (self._nothing(), self._nothing())
        with np.errstate(all="ignore"):  # as `_run` does, and who asks looks whether it is finite
            for layer in self._layers[:layers]:
                x, _ = self._step(layer, x, cos, sin, nothing, 0)
        return x

    def _run(self, ids: Sequence[int], past: list[_Past] | None = None) -> Array:
        """The last token's final state, shape (width,). Each layer's keys and values are appended to `past`, if given."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._known, ids, strict=False)))
        known = min(same, len(ids) - 1)
        x, cos, sin = self._start(ids, known)
        with np.errstate(all="ignore"):  # what isn't finite in the end is refused there
            for layer, old in zip(self._layers, self._past, strict=True):
                # Nobody looks at the other tokens of the last layer any more.
                x, seen = self._step(layer, x, cos, sin, old, known, only_last=layer is self._layers[-1])
                if past is not None:
                    past.append(seen)
            return self._normal(x[-1], self._norm)

    def _start(self, ids: Sequence[int], known: int) -> tuple[Array, Array, Array]:
        """Embeddings of the tokens from `known` on, (tokens, width); cosines and sines of how far each is turned."""
        angles = np.arange(known, len(ids), dtype=np.float32)[:, None] * self._config.turns
        return self._embedding[list(ids[known:])], np.cos(angles)[:, None], np.sin(angles)[:, None]

    def _step(
        self, layer: _Layer, x: Array, cos: Array, sin: Array, past: _Past, known: int, *, only_last: bool = False
    ) -> tuple[Array, _Past]:
        """States after a layer, and its keys and values of all tokens, of which `past` holds the first `known`."""
        queries, new_keys, new_values = self._project(layer, x, cos, sin)
        keys = np.concatenate([past[0][:, :known], new_keys], axis=1)
        values = np.concatenate([past[1][:, :known], new_values], axis=1)
        if only_last:
            x, queries = x[-1:], queries[-1:]
        x = x + _attention(queries, keys, values) @ layer.output.T
        gate, up = np.split(self._normal(x, layer.before_mlp) @ layer.gate_up.T, 2, axis=1)
        return x + (gate / (1 + np.exp(-gate)) * up) @ layer.down.T, (keys, values)

    def _project(self, layer: _Layer, x: Array, cos: Array, sin: Array) -> tuple[Array, Array, Array]:
        """Queries of the tokens in x, (tokens, heads, head_width); their keys and values, (kv_heads, tokens, head_width)."""
        heads, half = self._config.heads, self._config.head_width // 2
        projected = (self._normal(x, layer.before_attention) @ layer.qkv.T).reshape(len(x), -1, 2 * half)
        turning = projected[:, : heads + self._config.kv_heads]
        first, second = turning[:, :, :half], turning[:, :, half:]
        turned = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=2)
        values = projected[:, heads + self._config.kv_heads :]
        return turned[:, :heads], turned[:, heads:].transpose(1, 0, 2), values.transpose(1, 0, 2)

    def _normal(self, x: Array, weight: Array) -> Array:
        """x over its root mean square, times a weight: shapes (..., width) and (width,)."""
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self._config.epsilon))
        return np.asarray(x / scale * weight, dtype=np.float32)

    def _nothing(self) -> Array:
        return np.empty((self._config.kv_heads, 0, self._config.head_width), dtype=np.float32)


def _attention(queries: Array, keys: Array, values: Array) -> Array:
    """What the last tokens of a text take from all up to themselves.

    Args:
        queries: shape (tokens, heads, head_width).
        keys, values: shape (kv_heads, all tokens, head_width).

    Returns:
        shape (tokens, heads * head_width).
    """
    tokens, heads, width = queries.shape
    kv_heads, everything, _ = keys.shape
    grouped = (queries * np.float32(width**-0.5)).reshape(tokens, kv_heads, -1, width).transpose(1, 2, 0, 3)
    taken = np.empty((tokens, heads, width), dtype=np.float32)
    for start in range(0, tokens, _QUERIES_AT_ONCE):
        some = grouped[:, :, start : start + _QUERIES_AT_ONCE]  # (kv_heads, heads of one, some tokens, head_width)
        count = some.shape[2]
        seen = everything - tokens + start + count
        scores = some.reshape(kv_heads, -1, width) @ keys[:, :seen].transpose(0, 2, 1)
        later = np.triu(np.full((count, seen), -np.inf, dtype=np.float32), seen - count + 1)
        scores = scores.reshape(kv_heads, -1, count, seen) + later
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = scores.reshape(kv_heads, -1, seen) @ values[:, :seen]
        taken[start : start + count] = mixed.reshape(heads, count, width).transpose(1, 0, 2)
    return taken.reshape(tokens, heads * width)


def _read_layer(weights: Weights, config: LlamaConfig, number: int, adapter: Adapter | None, space: Array) -> _Layer:
    """A layer whose matrices fill `space`."""
    prefix = f"model.layers.{number}."
    shapes = {name: shape for name, shape in config.linear().items() if name.startswith(prefix)}
    taken = 0

    def joined(*names: str) -> Array:
        """Matrices one below the other, each with its adapter added."""
        nonlocal taken
        start = taken
        for name in (prefix + each for each in names):
            out, inside = shapes[name]
            part = space[taken : taken + out * inside].reshape(out, inside)
            weights.read(f"{name}.weight", part)
            if adapter is not None and name in adapter.pairs:
                step = max(1, _SMALL_PRODUCT // adapter.pairs[name][0].size)
                for rows in (slice(row, row + step) for row in range(0, out, step)):
                    part[rows] += adapter.update(name, rows)
            taken += part.size
        return space[start:taken].reshape(-1, inside)

    return _Layer(
        weights.read(f"{prefix}{BEFORE_ATTENTION}.weight"),
        joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        joined("self_attn.o_proj"),
        weights.read(f"{prefix}{BEFORE_MLP}.weight"),
        joined("mlp.gate_proj", "mlp.up_proj"),
        joined("mlp.down_proj"),
    )
