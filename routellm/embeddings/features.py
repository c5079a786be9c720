"""The vector that learned routers see: an embedding joined with surface features, computed in this one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.courtesy import without_courtesy
from routellm.embeddings.kernel import scan
from routellm.embeddings.normal import plain_text
from routellm.embeddings.static import MAX_CHARACTERS, StaticEmbedder
from routellm.embeddings.surface import (
    MAX_CHARS,
    RULES,
    SURFACE_DIM,
    SURFACE_VERSION,
    scale_of,
    surface_features,
    surface_features_batch,
)
from routellm.errors import CheckpointError


class PromptFeatures:
    """Turns prompts into `[embedding ; surface features]`.

    Args:
        embedder: gives the first `embedder.dim` columns.
        surface_version: the version of the surface features that follow; None leaves them out, as the published 1536-d
            checkpoints do.
        courtesies: whether "please", "could you" and "thanks" are read too (`routellm.embeddings.courtesy`), as the published
            checkpoints do.

    Attributes:
        dim: the width of the vector.
        reader: what reads a prompt in one call; None where there is no compiled kernel, or it is not made for this embedder.

    Raises:
        CheckpointError: `surface_version` is one that this release does not compute.
    """

    def __init__(self, embedder: Embedder, surface_version: int | None = SURFACE_VERSION, *, courtesies: bool = True) -> None:
        if surface_version not in (None, SURFACE_VERSION):
            raise CheckpointError(
                f"The checkpoint needs surface features of version {surface_version!r}; this release computes version "
                f"{SURFACE_VERSION}. Install the release that it was trained with, or train it again."
            )
        self.embedder = embedder
        self.surface_version = surface_version
        self.courtesies = courtesies
        self.dim = embedder.dim + (0 if surface_version is None else SURFACE_DIM)
        self.reader = None if surface_version is None else _reader(embedder)

    @property
    def fingerprint(self) -> str:
        """Identifies what the vector of a prompt is."""
        return f"{self.embedder.fingerprint}:{self.surface_version}{'' if self.courtesies else ':no courtesies'}"

    def reading(self, prompt: str) -> tuple[str, bytes | None, float]:
        """What `reader`, and what is built on it, takes for a prompt: the text that is cut into tokens, the bytes that are
        counted (None for that very text in one spelling), and how many times longer the prompt is than these."""
        prompt = self._heard(prompt)
        if prompt.isascii() and len(prompt) <= MAX_CHARACTERS:
            return prompt, None, 1.0
        assert isinstance(self.embedder, StaticEmbedder)
        return self.embedder.read(prompt), plain_text(prompt, MAX_CHARS).encode("utf-8", "replace"), scale_of(prompt)

    def encode(self, prompt: str) -> Vector:
        """float32, shape (dim,)."""
        if self.reader is not None:
            return np.frombuffer(self.reader.vector(*self.reading(prompt)), dtype=np.float32)
        prompt = self._heard(prompt)
        embedding = self.embedder.embed(prompt)
        if self.surface_version is None:
            return embedding
        return np.concatenate((embedding, surface_features(prompt)))

    def encode_batch(self, prompts: Sequence[str]) -> Vector:
        """float32, shape (len(prompts), dim); rows equal `encode` of each prompt."""
        if self.reader is not None:
            return np.array([self.encode(prompt) for prompt in prompts], dtype=np.float32).reshape(len(prompts), self.dim)
        prompts = [self._heard(prompt) for prompt in prompts]
        embeddings = self.embedder.embed_batch(prompts)
        if self.surface_version is None:
            return embeddings
        return np.hstack((embeddings, surface_features_batch(prompts)))

    def _heard(self, prompt: str) -> str:
        return prompt if self.courtesies else without_courtesy(prompt)


def _reader(embedder: Embedder) -> scan.Reader | None:
    if not isinstance(embedder, StaticEmbedder) or embedder.rows is None or embedder.tokenizer.kernel is None or RULES is None:
        return None
    return scan.Reader(embedder.tokenizer.kernel, embedder.rows, RULES)
