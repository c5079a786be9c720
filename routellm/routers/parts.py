"""The parts of a router that is a sum of simple models.

    log-odds of a strong win = bias + linear(embedding, form) + words(words) + trees(form) + weights . prior log-odds

Each part was fitted by itself to the same labels; what one of them takes for signal and is noise, the others don't share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.form import RULES as FORM_RULES
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.linear import dot_in_order
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
    _answers: Callable[[Vector], Vector] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        answers = compiled_answers if COMPILED else answers_in_python
        object.__setattr__(self, "_answers", answers(self.feature, self.threshold, self.value))

    def predict(self, form: Vector) -> float:
        """The sum over trees, one after another, for one row of features, shape (features,)."""
        return float(np.add.accumulate(self._answers(form), dtype=np.float64)[-1]) if len(self.value) else 0.0

    def predict_batch(self, form: Vector) -> NDArray[np.float64]:
        """The sums of n rows, shape (n, features)."""
        return np.array([self.predict(row) for row in form], dtype=np.float64)


def compiled_trees(feature: NDArray[np.int16], threshold: NDArray[np.float32], value: NDArray[np.float32]) -> scan.Trees:
    """The trees, as the compiled kernel has them."""
    return scan.Trees(*map(np.ascontiguousarray, (feature, threshold, value)))


def compiled_answers(
    feature: NDArray[np.int16], threshold: NDArray[np.float32], value: NDArray[np.float32]
) -> Callable[[Vector], Vector]:
    """What gives each tree's answer to one row of features, shape (features,): float32, shape (trees,)."""
    answers = compiled_trees(feature, threshold, value).answers
    return lambda form: np.frombuffer(answers(np.ascontiguousarray(form, dtype=np.float32)), dtype=np.float32)


def answers_in_python(
    feature: NDArray[np.int16], threshold: NDArray[np.float32], value: NDArray[np.float32]
) -> Callable[[Vector], Vector]:
    """The same."""
    # numpy turns other indices into these at every call, which takes longer than all else.
    places = feature.astype(np.intp)
    first_leaves = np.arange(0, value.size, value.shape[1])
    worth = 2.0 ** np.arange(len(feature), dtype=np.float32)[::-1]

    def answers(form: Vector) -> Vector:
        leaf = worth.dot(form.take(places) > threshold)  # whole numbers, exact in float32
        answer: Vector = value.take(first_leaves + leaf.astype(np.intp))
        return answer

    return answers


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
        linear = dot_in_order(self.embedding, view.embedding) + dot_in_order(self.form, form)
        return self.with_rest(linear + self.trees.predict(form), view.words, view.prior)

    def with_rest(self, seen: float, words: Vector, prior: Vector) -> float:
        """The log-odds, where what the embedding and the form add is known."""
        for weights, values in ((self.words, words), (self.prior, prior)):
            if len(weights):
                seen += dot_in_order(weights, values)
        return self.bias + seen

    def compiled(self, features: PromptFeatures) -> Callable[[str], float] | None:
        """What gives `seen` for a prompt, read by these features; None where the kernel can't."""
        if features.reader is None or FORM_RULES is None:
            return None
        trees = compiled_trees(self.trees.feature, self.trees.threshold, self.trees.value)
        mean, scale, on_embedding, on_form = map(
            np.ascontiguousarray, (self.form_mean, self.form_scale, self.embedding, self.form)
        )
        kernel = scan.Parts(features.reader, FORM_RULES, trees, mean, scale, on_embedding, on_form, CLIP)
        return lambda prompt: kernel.sum(*features.reading(prompt))

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
