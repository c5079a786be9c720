"""The vector that learned routers see: an embedding joined with surface features, computed in this one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.surface import SURFACE_DIM, SURFACE_VERSION, surface_features, surface_features_batch
from routellm.errors import CheckpointError


class PromptFeatures:
    """Turns prompts into `[embedding ; surface features]`.

    Args:
        embedder: gives the first `embedder.dim` columns.
        surface_version: the version of the surface features that follow; None leaves them out, as the published 1536-d
            checkpoints do.

    Raises:
        CheckpointError: `surface_version` is one that this release does not compute.
    """

    def __init__(self, embedder: Embedder, surface_version: int | None = SURFACE_VERSION) -> None:
        if surface_version not in (None, SURFACE_VERSION):
            raise CheckpointError(
                f"The checkpoint needs surface features of version {surface_version!r}; this release computes version "
                f"{SURFACE_VERSION}. Install the release that it was trained with, or train it again."
            )
        self.embedder = embedder
        self.surface_version = surface_version
        self.dim = embedder.dim + (0 if surface_version is None else SURFACE_DIM)

    def encode(self, prompt: str) -> Vector:
        """float32, shape (dim,)."""
        embedding = self.embedder.embed(prompt)
        if self.surface_version is None:
            return embedding
        return np.concatenate((embedding, surface_features(prompt)))

    def encode_batch(self, prompts: Sequence[str]) -> Vector:
        """float32, shape (len(prompts), dim); rows equal `encode` of each prompt."""
        embeddings = self.embedder.embed_batch(prompts)
        if self.surface_version is None:
            return embeddings
        return np.hstack((embeddings, surface_features_batch(prompts)))
