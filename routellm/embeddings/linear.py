"""A score that is linear in a prompt's vector, from text to number in one go.

A server's other work takes the processor's caches between any two prompts, so that each array that is made on the way, and
each function that is called, costs more than what it computes. The compiled kernel makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.normal import plain_text
from routellm.embeddings.static import MAX_CHARACTERS, StaticEmbedder
from routellm.embeddings.surface import MAX_CHARS, RULES, scale_of


class LinearScore:
    """``weights . features.encode(prompt)``, added up in float64, one dimension after another.

    Args:
        features: turn a prompt into its vector.
        weights: float32, shape (features.dim,).
        compiled: whether the compiled kernel does the work, where it can: for the bundled kind of embedder with surface
            features. The sum is the same to the bit.
    """

    def __init__(self, features: PromptFeatures, weights: Vector, *, compiled: bool = COMPILED) -> None:
        self._features = features
        self._weights = weights.astype(np.float64)
        quick = compiled_score(features, weights) if compiled else None
        self._quick = quick is not None
        self.of: Callable[[str], float] = quick or self._in_python
        """The sum for one prompt."""

    def of_batch(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The sums for n prompts, shape (n,), each as `of` gives it."""
        if self._quick:
            return np.array([self.of(prompt) for prompt in prompts], dtype=np.float64)
        # Row by row: a matrix product may round otherwise, and a batch must equal singles.
        rows = self._features.encode_batch(prompts)
        return np.array([self._add_up(row) for row in rows], dtype=np.float64)

    def _in_python(self, prompt: str) -> float:
        return self._add_up(self._features.encode(prompt))

    def _add_up(self, vector: Vector) -> float:
        # Products of float32 are exact in float64, and this adds them one after another, as the kernel does.
        return float(np.add.accumulate(self._weights * vector)[-1])


def compiled_score(features: PromptFeatures, weights: Vector) -> Callable[[str], float] | None:
    """What gives the sum for a prompt; None where the kernel is not there, or not made for these features."""
    embedder = features.embedder
    if not isinstance(embedder, StaticEmbedder) or features.surface_version is None:
        return None
    tokens, rows = embedder.tokenizer.kernel, embedder.rows
    if tokens is None or rows is None or RULES is None:
        return None
    dot = scan.Linear(tokens, rows, RULES, np.ascontiguousarray(weights)).dot

    def score(prompt: str) -> float:
        if prompt.isascii() and len(prompt) <= MAX_CHARACTERS:
            return dot(prompt, None, 1.0)
        plain = plain_text(prompt, MAX_CHARS).encode("utf-8", "replace")
        return dot(embedder.read(prompt), plain, scale_of(prompt))

    return score
