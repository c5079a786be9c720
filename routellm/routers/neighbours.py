"""What the labelled prompts that a prompt is like tell of it: kernel regressions, one that looks far and one that looks close.

    sum_i wide_i exp(-d_i) + close_i exp(-4 d_i)

d_i is the distance of the prompt to the i-th labelled one, in embedding and form, the typical distance of two of them as unit.
A linear model sees one direction in which prompts become harder; these see that it is another one among sums than among laws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import Checkpoint
from routellm.routers.views import View

_TENSORS = ("rows", "scale", "weights")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Labelled prompts, and what each of them adds.

    Attributes:
        rows: their embeddings, then their standardised features of form, scaled: float32, shape (n, dim + n_form).
        scale: by what an embedding, and features of form, are multiplied for that: float32, shape (2,).
        weights: of the one that looks far, then of the one that looks close: float32, shape (2, n).
    """

    rows: Vector
    scale: Vector
    weights: Vector
    _squares: Vector = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_squares", np.einsum("ij,ij->i", self.rows, self.rows))

    def score(self, embedding: Vector, form: Vector) -> float:
        """The sum for one prompt, of which `embedding` and standardised `form` are given."""
        place = np.concatenate((self.scale[0] * embedding, self.scale[1] * form))
        wide, close = fading(self._squares + place.dot(place) - 2.0 * self.rows.dot(place))
        return float(self.weights[0].dot(wide)) + float(self.weights[1].dot(close))

    def scores(self, view: View) -> NDArray[np.float64]:
        """The summands of n prompts, whose features of form are standardised: shape (n, 2)."""
        near = fading(squared_distances(places(view, self.scale), self.rows))
        return np.stack([each @ weights for each, weights in zip(near, self.weights, strict=True)], axis=1).astype(np.float64)


def neighbours_tensors(neighbours: Neighbours) -> dict[str, NDArray[Any]]:
    """What a checkpoint holds of them."""
    return {f"neighbours.{name}": getattr(neighbours, name) for name in _TENSORS}


def read_neighbours(checkpoint: Checkpoint, width: int, remedy: str) -> Neighbours | None:
    """What a checkpoint holds of them; None where it holds none.

    Args:
        width: of a prompt's embedding and features of form together.
        remedy: what to do about a checkpoint that can't be used.

    Raises:
        CheckpointError: one of the tensors is missing, or they don't fit together.
    """
    names = [f"neighbours.{name}" for name in _TENSORS]
    found = [checkpoint.tensors[name] for name in names if name in checkpoint.tensors]
    if not found:
        return None
    if len(found) < len(names):
        missing = ", ".join(name for name in names if name not in checkpoint.tensors)
        raise CheckpointError(f"{checkpoint.path}: of {', '.join(names)} it lacks {missing}. {remedy}")
    rows, scale, weights = found
    shapes = ((len(rows), width), (2,), (2, len(rows)))
    if any(each.shape != shape or each.dtype != np.float32 for each, shape in zip(found, shapes, strict=True)):
        told = ", ".join(f"{name} {each.dtype}{list(each.shape)}" for name, each in zip(names, found, strict=True))
        raise CheckpointError(f"{checkpoint.path}: its neighbours don't fit together: {told}. {remedy}")
    return Neighbours(rows, scale, weights)


def places(view: View, scale: Vector) -> Vector:
    """Where prompts lie: float32, shape (n, dim + n_form)."""
    return np.hstack([scale[0] * view.embedding, scale[1] * view.form]).astype(np.float32)


def squared_distances(some: Vector, others: Vector) -> Vector:
    """Of each of n rows to each of m: shape (n, m). Rounding may take the least of them below 0."""
    distances: Vector = np.einsum("ij,ij->i", some, some)[:, None] + np.einsum("ij,ij->i", others, others)
    distances -= 2.0 * (some @ others.T)
    return distances


def fading(squared: Vector) -> tuple[Vector, Vector]:
    """What of a neighbour is left at a squared distance: exp(-d), and exp(-4 d)."""
    wide: Vector = np.exp(-np.sqrt(np.maximum(squared, 0.0)))
    close: Vector = np.square(np.square(wide))
    return wide, close
