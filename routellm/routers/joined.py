"""What `sw_ranking` compares prompts by: an embedding alone, as the paper does, or joined with surface features.

An embedding knows what a prompt is about, hardly how long it is or how many numbers it holds. For surface features to count
in a cosine they are standardised and given a length beside that of the embedding, which is made 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.surface import SURFACE_DIM
from routellm.errors import DataError
from routellm.routers.parts import CLIP

_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class SurfaceScale:
    """How surface features join an embedding.

    Attributes:
        mean, factor: float32, shape (SURFACE_DIM,): they standardise the features, which are then cut off at `CLIP`.
        weight: what standardised features are multiplied by.
    """

    mean: Vector
    factor: Vector
    weight: float

    @classmethod
    def of(cls, vectors: Vector, length: float) -> SurfaceScale:
        """The scale by which the surface features of `vectors`, in their last columns, have a root mean square of `length`."""
        surface = vectors[:, -SURFACE_DIM:]
        spread = surface.std(axis=0)
        # A feature that never varies says nothing, so it must not speak up on the first prompt where it does.
        factor = np.where(spread < _LEAST_SPREAD, 0.0, 1.0 / np.maximum(spread, _LEAST_SPREAD)).astype(np.float32)
        scale = cls(surface.mean(axis=0), factor, 1.0)
        squares = float(np.square(scale._standardised(surface)).sum(axis=1).mean())
        return replace(scale, weight=length / max(squares, _LEAST_SPREAD) ** 0.5)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> SurfaceScale:
        """The scale that `tensors` gave.

        Raises:
            DataError: a tensor is missing, or of another type or shape.
        """
        wanted = {"surface.mean": SURFACE_DIM, "surface.factor": SURFACE_DIM, "surface.weight": 1}
        found = {name: tensors[name] for name in wanted if name in tensors}
        if {name: (each.dtype, each.shape) for name, each in found.items()} != {
            name: (np.dtype(np.float32), (width,)) for name, width in wanted.items()
        }:
            raise DataError(
                f"surface features need the tensors {', '.join(wanted)}, float32 of lengths {list(wanted.values())}."
            )
        return cls(found["surface.mean"], found["surface.factor"], float(found["surface.weight"][0]))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint holds of it."""
        weight = np.array([self.weight], dtype=np.float32)
        return {"surface.mean": self.mean, "surface.factor": self.factor, "surface.weight": weight}

    def joined(self, vectors: Vector) -> Vector:
        """`[embedding ; surface features]` on this scale, float32, shape (n, width), as `PromptFeatures` makes them."""
        embedding, surface = vectors[:, :-SURFACE_DIM], vectors[:, -SURFACE_DIM:]
        lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
        unit = embedding / np.where(lengths > 0.0, lengths, 1.0)
        return np.hstack([unit, np.float32(self.weight) * self._standardised(surface)])

    def _standardised(self, surface: Vector) -> Vector:
        standard: Vector = np.clip((surface - self.mean) * self.factor, -CLIP, CLIP)
        return standard
