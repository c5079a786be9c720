"""Counts of words and of pairs of neighbouring words, hashed into a fixed number of buckets.

An embedding blurs which words a prompt has; a few hundred labels can weigh words directly. Hashing needs no vocabulary, so
nothing has to be fitted or stored but the weights, and words that no label had fall in with others that are as good as any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import log1p, sqrt
from zlib import crc32

import numpy as np

from routellm.embeddings.base import Vector
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.normal import plain_text

WORDS_VERSION = 1

BUCKETS = 1024
MAX_WORDS = 512
"""Of a longer prompt only so many words are counted, which bounds the time."""

_MAX_CHARS = 8 * MAX_WORDS
_LOGS = np.array([log1p(count) for count in range(2 * MAX_WORDS)], dtype=np.float32)
_WORD = re.compile(rb"[a-z0-9\x80-\xff]+|[^\sa-z0-9\x80-\xff]")


def word_counts(prompt: str) -> Vector:
    """log(1 + count) of each bucket, scaled to length 1 (all zeros without words): float32, shape (BUCKETS,)."""
    return _counts(plain_text(prompt, _MAX_CHARS).lower().encode("utf-8", "replace"))


def counts_in_python(text: bytes) -> Vector:
    """The counts of a text in one spelling and small letters."""
    words = _WORD.findall(text)[:MAX_WORDS]
    single = list(map(crc32, words))
    pairs = map(crc32, words[1:], single)  # a checksum that goes on from the word before
    buckets = np.array([*single, *pairs], dtype=np.int64) % BUCKETS
    counts: Vector = _LOGS.take(np.bincount(buckets, minlength=BUCKETS))
    # Squares of float32 are exact in float64, and this adds them one after another, as the kernel does.
    norm = sqrt(np.add.accumulate(np.square(counts, dtype=np.float64))[-1])
    return counts / np.float32(norm) if norm > 0.0 else counts


def compiled_counts(text: bytes) -> Vector:
    """The same."""
    return np.frombuffer(scan.word_counts(text, MAX_WORDS, BUCKETS), dtype=np.float32)


_counts = compiled_counts if COMPILED else counts_in_python


def word_counts_batch(prompts: Sequence[str]) -> Vector:
    """The counts of many prompts: float32, shape (len(prompts), BUCKETS); rows equal `word_counts` of each prompt."""
    counts = np.empty((len(prompts), BUCKETS), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        counts[row] = word_counts(prompt)
    return counts
