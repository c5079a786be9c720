"""Cosines of a prompt with many stored ones, in 8-bit integers.

A vector is stored as 8-bit integers in steps of its own, since a cosine does not know its length. Steps are so wide that no
sum of products passes 2^24: every partial sum is then an exact integer in float32, in whichever order a matrix product adds
it up, and a batch of prompts equals single ones to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from routellm.errors import EmbeddingError

Floats = NDArray[np.float64]
Bytes = NDArray[np.int8]

_CHUNK = 4096  # stored vectors turned to floats at a time: they stay in the processor's cache
_QUERIES = 64  # prompts compared at a time


def quantise(vectors: NDArray[np.floating]) -> Bytes:
    """8-bit integers, shape (n, width), along the directions of `vectors`, shape (n, width). A vector of zeros stays one.

    Raises:
        EmbeddingError: a value is not finite.
    """
    if not np.isfinite(vectors).all():
        raise EmbeddingError("An embedding holds values that are not finite numbers; check the embedder.")
    # No vector's length passes levels * sqrt(width) <= 2^12, so no product of two passes 2^24.
    levels = min(127, isqrt(2**24 // max(vectors.shape[1], 1)))
    peaks = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
    return np.rint(vectors / np.where(peaks > 0.0, peaks, 1.0) * levels).astype(np.int8)


@dataclass(frozen=True, slots=True)
class PromptVectors:
    """Stored prompts; never changed, so that threads may share it.

    Attributes:
        stored: int8, shape (prompts, width), as `quantise` made it; may be mapped from a file.
        added: the same, for prompts that came later.
        inverse: float64, shape (all prompts,): 1 / length, or 0 for a vector of zeros.
    """

    stored: Bytes
    added: Bytes
    inverse: Floats

    @classmethod
    def of(cls, stored: Bytes) -> PromptVectors:
        """Those of an array, which is not copied."""
        return cls(stored, np.empty((0, stored.shape[1]), dtype=np.int8), _inverse_lengths(stored))

    def __len__(self) -> int:
        return len(self.stored) + len(self.added)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.stored.shape[1])

    def extended(self, added: Bytes) -> PromptVectors:
        """These prompts and then those of `added`, int8, shape (n, width)."""
        inverse = np.concatenate((self.inverse, _inverse_lengths(added)))
        return PromptVectors(self.stored, np.concatenate((self.added, added)), inverse)

    def relative_cosines(self, queries: Bytes) -> Iterator[Floats]:
        """For each of `queries`, int8, shape (n, width): cos(q, q_j) / max_j cos(q, q_j), float64, shape (prompts,).

        A prompt that is similar to none (no cosine is over 0) has 1 everywhere.
        """
        for start in range(0, len(queries), _QUERIES):
            for products in self._products(queries[start : start + _QUERIES].astype(np.float32)):
                cosines = products * self.inverse  # but for the query's length, which the ratio does not know
                highest = cosines.max(initial=0.0)
                yield cosines / highest if highest > 0.0 else np.ones(len(cosines))

    def _products(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        products = np.empty((len(queries), len(self)), dtype=np.float32)
        column = 0
        for rows in (self.stored, self.added):
            for chunk in _chunks(rows):
                products[:, column : column + len(chunk)] = queries @ chunk.T
                column += len(chunk)
        return products


def _inverse_lengths(rows: Bytes) -> Floats:
    squares = [np.einsum("ij,ij->i", chunk, chunk).astype(np.float64) for chunk in _chunks(rows)]
    lengths = np.sqrt(np.concatenate(squares or [np.empty(0)]))
    return np.asarray(1.0 / np.where(lengths > 0.0, lengths, np.inf))


def _chunks(rows: Bytes) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK].astype(np.float32)
