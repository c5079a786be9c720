"""Counts of words and of pairs of neighbouring words, hashed into a fixed number of buckets.

An embedding blurs which words a prompt has; a few hundred labels can weigh words directly. Hashing needs no vocabulary, so
nothing has to be fitted or stored but the weights, and words that no label had fall in with others that are as good as any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from routellm.embeddings.base import Vector
from routellm.embeddings.normal import plain_text

WORDS_VERSION = 1

BUCKETS = 1024
MAX_WORDS = 512
"""Of a longer prompt only so many words are counted, which bounds the time."""

_MAX_CHARS = 8 * MAX_WORDS
_WORD = re.compile(rb"[a-z0-9\x80-\xff]+|[^\sa-z0-9\x80-\xff]")


def word_counts(prompt: str) -> Vector:
    """log(1 + count) of each bucket, scaled to length 1 (all zeros without words): float32, shape (BUCKETS,)."""
    words = _WORD.findall(plain_text(prompt, _MAX_CHARS).lower().encode("utf-8", "replace"))[:MAX_WORDS]
    single = list(map(crc32, words))
    pairs = map(crc32, words[1:], single)  # a checksum that goes on from the word before
    buckets = np.array([*single, *pairs], dtype=np.int64) % BUCKETS
    counts: Vector = np.log1p(np.bincount(buckets, minlength=BUCKETS)).astype(np.float32)
    norm = np.sqrt(counts.dot(counts))
    return counts / norm if norm > 0.0 else counts


def word_counts_batch(prompts: Sequence[str]) -> Vector:
    """The counts of many prompts: float32, shape (len(prompts), BUCKETS); rows equal `word_counts` of each prompt."""
    counts = np.empty((len(prompts), BUCKETS), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        counts[row] = word_counts(prompt)
    return counts
