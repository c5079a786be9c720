"""A score that is linear in a prompt's vector, from text to number in one go.

A server's other work takes the processor's caches between any two prompts, so that each array that is made on the way, and
each function that is called, costs more than what it computes. The compiled kernel makes none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.kernel import scan


def dot_in_order(weights: Vector, vector: Vector) -> float:
    """weights . vector of two of float32, shape (n,), n > 0: exact products, added up in float64, one after another.

    That is the kernel's way, and does not depend on a processor, or on which library multiplies.
    """
    return float(np.add.accumulate(np.multiply(weights, vector, dtype=np.float64))[-1])


class LinearScore:
    """``weights . features.encode(prompt)``, added up in float64, one dimension after another.

    Args:
        features: turn a prompt into its vector.
        weights: float32, shape (features.dim,).
    """

    def __init__(self, features: PromptFeatures, weights: Vector) -> None:
        self._features = features
        self._weights = weights
        reader = features.reader
        self._kernel = None if reader is None else scan.Linear(reader, np.ascontiguousarray(weights))

    def of(self, prompt: str) -> float:
        """The sum for one prompt."""
        if self._kernel is None:
            return dot_in_order(self._weights, self._features.encode(prompt))
        return self._kernel.dot(*self._features.reading(prompt))

    def of_batch(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The sums for n prompts, shape (n,), each as `of` gives it."""
        if self._kernel is None:
            # Row by row: a matrix product may round otherwise, and a batch must equal singles.
            sums = [dot_in_order(self._weights, row) for row in self._features.encode_batch(prompts)]
        else:
            sums = [self.of(prompt) for prompt in prompts]
        return np.array(sums, dtype=np.float64)
