"""The parts of a router that is a sum of simple models.

    log-odds of a strong win
        = bias + linear(embedding, form) + words(words) + trees(form) + neighbours(embedding, form) + weights . prior log-odds

Each part was fitted by itself to the same labels; what one of them takes for signal and is noise, the others don't share.
Prompts that list a few options can have a linear part, trees and a bias of their own: what is so of exam questions need not be
of others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.form import RULES as FORM_RULES
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.linear import dot_in_order
from routellm.embeddings.surface import SURFACE_NAMES
from routellm.routers.neighbours import Neighbours
from routellm.routers.routers import CONSTANT_PART
from routellm.routers.views import View

CLIP = 4.0
"""Standardised features of form are cut off there, so that one odd prompt is not ranked by a single number."""

OPTIONS = SURFACE_NAMES.index("options")
"""Which feature of form counts marks of options such as "A." and "(a)"."""

LISTED = (0.3, 0.62)
"""Between these, as it comes, a prompt lists options: two marks give .37 and five .60. One, .23, may be the end of "vitamin
C."; six and more, from .65 on, are rarely an exam's, and what is so of other prompts ranks questions with ten options better
than what is so of four (docs/lab-log.md)."""


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
    kernel: scan.Trees | None = field(init=False, repr=False, compare=False)
    """What adds up in the compiled kernel, where that is there."""
    _sum: Callable[[Vector], float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        arrays = (self.feature, self.threshold, self.value)
        kernel = scan.Trees(*map(np.ascontiguousarray, arrays)) if COMPILED else None
        object.__setattr__(self, "kernel", kernel)
        object.__setattr__(self, "_sum", sum_in_python(*arrays) if kernel is None else kernel.sum)

    def predict(self, form: Vector) -> float:
        """The sum over trees, one after another, for one row of features, float32 of shape (features,)."""
        return self._sum(form)

    def predict_batch(self, form: Vector) -> NDArray[np.float64]:
        """The sums of n rows, shape (n, features)."""
        return np.array([self.predict(row) for row in form], dtype=np.float64)


def trees_fit(feature: NDArray[Any], threshold: NDArray[Any], value: NDArray[Any], columns: int | None = None) -> bool:
    """Whether the arrays are those of trees, on so many columns if it is given."""
    if not (feature.dtype == np.int16 and threshold.dtype == value.dtype == np.float32 and feature.ndim == 2):
        return False
    if feature.shape != threshold.shape or value.shape != (feature.shape[1], 2 ** len(feature)):
        return False
    return columns is None or bool(feature.min(initial=0) >= 0 and feature.max(initial=0) < columns)


def sum_in_python(
    feature: NDArray[np.int16], threshold: NDArray[np.float32], value: NDArray[np.float32]
) -> Callable[[Vector], float]:
    """What the kernel's trees do for one row of features."""
    # numpy turns other indices into these at every call, which takes longer than all else.
    places = feature.astype(np.intp)
    first_leaves = np.arange(0, value.size, value.shape[1])
    worth = 2.0 ** np.arange(len(feature), dtype=np.float32)[::-1]

    def add_up(form: Vector) -> float:
        leaf = worth.dot(form.take(places) > threshold)  # whole numbers, exact in float32
        answers = value.take(first_leaves + leaf.astype(np.intp))
        return float(np.add.accumulate(answers, dtype=np.float64)[-1]) if len(answers) else 0.0

    return add_up


@dataclass(frozen=True, slots=True)
class Parts:
    """What such a router has learned, in units of log-odds.

    Attributes:
        form_mean, form_scale: float32, shape (n_form,): standardise features of form.
        embedding, form: float32 weights of the embedding, shape (r, dim), and of the standardised features of form, shape
            (r, n_form). With r = 1 the one row is for all prompts. With r = 2 the second is for prompts that list options, as
            `lists_options` has it, and the first for all others; each is the whole sum, not what it adds to the other.
        words, prior: float32 weights of words and of the prior routers' log-odds.
        trees: r times the same questions, on the standardised features of form, with each row's own answers.
        bias: the constant part: float32, shape (r,).
        neighbours: labelled prompts, in units of the embedding and of the standardised features of form; None looks at none.
    """

    form_mean: Vector
    form_scale: Vector
    embedding: Vector
    form: Vector
    words: Vector
    prior: Vector
    trees: tuple[Trees, ...]
    bias: Vector
    neighbours: Neighbours | None = None

    def row_of(self, form: Vector) -> int:
        """Which row of `embedding`, `form`, `trees` and `bias` is for a prompt with these features of form, as they come."""
        return int(len(self.bias) > 1 and lists_options(form))

    def standardised(self, form: Vector) -> Vector:
        """Features of form with mean 0 and scale 1, cut off at `CLIP`; the last axis is that of the features."""
        return standardise(form, self.form_mean, self.form_scale)

    def log_odds(self, view: View) -> float:
        """The log-odds of one prompt."""
        row, form = self.row_of(view.form), self.standardised(view.form)
        linear = dot_in_order(self.embedding[row], view.embedding) + dot_in_order(self.form[row], form)
        seen = float(self.bias[row]) + (linear + self.trees[row].predict(form))
        if self.neighbours is not None:
            seen += self.neighbours.score(view.embedding, form)
        return self.with_rest(seen, view.words, view.prior)

    def with_rest(self, seen: float, words: Vector, prior: Vector) -> float:
        """The log-odds, where what the bias, the embedding and the form come to is known."""
        for weights, values in ((self.words, words), (self.prior, prior)):
            if len(weights):
                seen += dot_in_order(weights, values)
        return seen

    def compiled(self, features: PromptFeatures) -> Callable[[str], float] | None:
        """What gives `seen` for a prompt, read by these features; None where the kernel can't."""
        trees = tuple(each.kernel for each in self.trees if each.kernel is not None)
        if features.reader is None or FORM_RULES is None or not trees or self.neighbours is not None:
            return None
        mean, scale, on_embedding, on_form, bias = map(
            np.ascontiguousarray, (self.form_mean, self.form_scale, self.embedding, self.form, self.bias)
        )
        kernel = scan.Parts(
            features.reader, FORM_RULES, trees, mean, scale, on_embedding, on_form, bias, OPTIONS, *LISTED, CLIP
        )
        return lambda prompt: kernel.sum(*features.reading(prompt))

    def explain(self, view: View, form_names: tuple[str, ...], prior_names: tuple[str, ...]) -> dict[str, float]:
        """What adds up to the log-odds of one prompt, by name."""
        row, form = self.row_of(view.form), self.standardised(view.form)
        explained = {
            CONSTANT_PART: float(self.bias[row]),
            "embedding": float(self.embedding[row].dot(view.embedding)),
            "words": float(self.words.dot(view.words)),
            "trees": self.trees[row].predict(form),
        }
        if self.neighbours is not None:
            explained["neighbours"] = self.neighbours.score(view.embedding, form)
        explained |= {f"form: {name}": float(part) for name, part in zip(form_names, self.form[row] * form, strict=True)}
        return explained | {
            f"router: {name}": float(part) for name, part in zip(prior_names, self.prior * view.prior, strict=True)
        }


def lists_options(form: Vector) -> NDArray[np.bool_]:
    """Whether prompts with these features of form, as they come, list two to five options; the last axis is that of the
    features."""
    few, many = map(np.float32, LISTED)
    marks = form[..., OPTIONS]
    listing: NDArray[np.bool_] = (marks > few) & (marks < many)
    return listing


def standardise(form: Vector, mean: Vector, scale: Vector) -> Vector:
    """(form - mean) / scale, cut off at `CLIP`."""
    standard: Vector = np.clip((form - mean) / scale, -CLIP, CLIP)
    return standard
