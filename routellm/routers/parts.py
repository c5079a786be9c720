"""The parts of a router that is a sum of simple models.

    log-odds of a strong win = bias + linear(embedding, form) + words(words) + trees(form) + weights . prior log-odds

Each part was fitted by itself to the same labels; what one of them takes for signal and is noise, the others don't share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.routers.routers import CONSTANT_PART
from routellm.routers.views import View

CLIP = 4.0
"""Standardised features of form are cut off there, so that one odd prompt is not ranked by a single number."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Oblivious trees: each asks the same questions on every way down, and the answers are the bits of a leaf's number.

    Attributes:
        feature: int16, shape (depth, trees): which feature a question is about.
        threshold: float32, shape (depth, trees): is it greater? The first question gives the highest bit.
        value: float32, shape (trees, 2**depth).
    """

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    value: NDArray[np.float32]
    _places: NDArray[np.intp] = field(init=False, repr=False, compare=False)
    _first_leaves: NDArray[np.intp] = field(init=False, repr=False, compare=False)
    _worth: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # numpy turns other indices into these at every call, which takes longer than all else.
        object.__setattr__(self, "_places", self.feature.astype(np.intp))
        object.__setattr__(self, "_first_leaves", np.arange(0, self.value.size, self.value.shape[1]))
        object.__setattr__(self, "_worth", 2.0 ** np.arange(len(self.feature), dtype=np.float32)[::-1])

    def predict(self, form: Vector) -> float:
        """The sum over trees, for one row of features, shape (features,)."""
        leaf = self._worth.dot(form.take(self._places) > self.threshold)  # whole numbers, exact in float32
        return float(self.value.take(self._first_leaves + leaf.astype(np.intp)).sum(dtype=np.float64))

    def predict_batch(self, form: Vector) -> NDArray[np.float64]:
        """The sums of n rows, shape (n, features)."""
        return np.array([self.predict(row) for row in form], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Parts:
    """What such a router has learned, in units of log-odds.

    Attributes:
        form_mean, form_scale: float32, shape (n_form,): standardise features of form.
        embedding, form, words, prior: float32 weights of the embedding, of the standardised features of form, of words and of
            the prior routers' log-odds.
        trees: on the standardised features of form.
        bias: the constant part.
    """

    form_mean: Vector
    form_scale: Vector
    embedding: Vector
    form: Vector
    words: Vector
    prior: Vector
    trees: Trees
    bias: float

    def standardised(self, form: Vector) -> Vector:
        """Features of form with mean 0 and scale 1, cut off at `CLIP`; the last axis is that of the features."""
        return standardise(form, self.form_mean, self.form_scale)

    def log_odds(self, view: View) -> float:
        """The log-odds of one prompt."""
        form = self.standardised(view.form)
        linear = float(self.embedding.dot(view.embedding)) + float(self.form.dot(form)) + float(self.words.dot(view.words))
        return self.bias + linear + float(self.prior.dot(view.prior)) + self.trees.predict(form)

    def explain(self, view: View, form_names: tuple[str, ...], prior_names: tuple[str, ...]) -> dict[str, float]:
        """What adds up to the log-odds of one prompt, by name."""
        form = self.standardised(view.form)
        explained = {
            CONSTANT_PART: self.bias,
            "embedding": float(self.embedding.dot(view.embedding)),
            "words": float(self.words.dot(view.words)),
            "trees": self.trees.predict(form),
        }
        explained |= {f"form: {name}": float(part) for name, part in zip(form_names, self.form * form, strict=True)}
        return explained | {
            f"router: {name}": float(part) for name, part in zip(prior_names, self.prior * view.prior, strict=True)
        }


def standardise(form: Vector, mean: Vector, scale: Vector) -> Vector:
    """(form - mean) / scale, cut off at `CLIP`."""
    standard: Vector = np.clip((form - mean) / scale, -CLIP, CLIP)
    return standard
