"""Fit the parts of an adapted router to few labels: what each learns, and how much each counts.

Every part is fitted by itself to the gap, the strong model's score less the weak one's, by least squares: APGR is linear in
the gap, so a ranking by its expectation is the best there is. Losses of the strong model alone count for less, since they are
few and mostly chance. Few labels can't choose settings either: those here were chosen on other data (docs/lab-log.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from routellm.routers.neighbours import Neighbours
from routellm.routers.parts import Parts, Trees
from routellm.routers.views import View
from routellm.training.adapt_neighbours import fit_neighbours
from routellm.training.boosting import TreeSettings, fit_trees
from routellm.training.scale import LEAST_SPREAD, Scale, length

Floats = NDArray[np.float64]

PARTS = ("linear", "words", "trees", "neighbours, wide", "neighbours, close")

FOLDS = 5
FORM_WEIGHT = 0.7
"""Length of a mean form vector beside that of a mean embedding in the linear part."""

PENALTY = 10.0
"""Of the ridge regressions, whose rows have a length of about 1: in units of labels."""

LOSS_WEIGHT = 0.5
"""What a loss of the strong model counts beside a win. It mostly loses by chance, where both models could have been right."""

PULL = 300.0
"""How many labels it takes to outweigh the guess that the labels and the prior routers are worth the same."""

_LEAST_SLOPE = 1e-3


@dataclass(frozen=True, slots=True)
class Learned:
    """Parts as fitted, each in the unit of the gap and without a constant.

    Attributes:
        embedding, form: float64 weights of the linear part.
        words: float64 weights of the words.
        trees: on features of form.
        neighbours: the labelled prompts.
    """

    embedding: Floats
    form: Floats
    words: Floats
    trees: Trees
    neighbours: Neighbours

    def scores(self, view: View) -> Floats:
        """What each of `PARTS` says: shape (n, len(PARTS))."""
        linear = view.embedding @ self.embedding + view.form @ self.form
        boosted = self.trees.predict_batch(view.form)
        return np.column_stack([linear, view.words @ self.words, boosted, self.neighbours.scores(view)])


def softened(gap: Floats) -> Floats:
    """What the parts are fitted to: the gap, shape (n,), with losses of the strong model weighed by `LOSS_WEIGHT`."""
    return np.where(gap < 0.0, LOSS_WEIGHT * gap, gap)


def fit_parts(view: View, target: Floats, trees: Trees) -> Learned:
    """Fit the linear parts and those of neighbours to `target`, shape (n,), and put them beside `trees`."""
    embedding_scale, form_scale = length(view.embedding), length(view.form) / FORM_WEIGHT
    linear = ridge(np.hstack([view.embedding / embedding_scale, view.form / form_scale]), target)
    width, words_scale = view.embedding.shape[1], length(view.words)
    words = ridge(view.words / words_scale, target) / words_scale
    neighbours = fit_neighbours(view, target)
    return Learned(linear[:width] / embedding_scale, linear[width:] / form_scale, words, trees, neighbours)


def ridge(rows: NDArray[np.floating], target: Floats) -> Floats:
    """Weights, shape (features,), of least squares penalised by `PENALTY`; rows and target are centred first."""
    rows, target = (rows - rows.mean(axis=0)).astype(np.float64), target - target.mean()
    n, features = rows.shape
    if n > features:
        weights = np.linalg.solve(rows.T @ rows + PENALTY * np.eye(features), rows.T @ target)
    else:  # the same with fewer unknowns
        weights = rows.T @ np.linalg.solve(rows @ rows.T + PENALTY * np.eye(n), target)
    return np.asarray(weights, dtype=np.float64)


def folds_of(n: int, seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """`FOLDS` times the rows to fit on and the rows to score, drawn anew for each seed."""
    order = np.random.default_rng([seed, 5]).permutation(n)
    for fold in range(FOLDS):
        held = np.sort(order[fold::FOLDS])
        yield np.setdiff1d(order, held), held


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Parts fitted on every fold but one, in turn.

    Attributes:
        scores: float64, shape (n, len(PARTS)): what the parts say of prompts that they were not fitted on.
        trees: of every fold.
    """

    scores: Floats
    trees: list[Trees]


def cross_fit(view: View, target: Floats, seed: int) -> CrossFit:
    """Fit on the folds; each prompt is scored by parts that never saw its label."""
    settings = TreeSettings()
    scores = np.empty((len(target), len(PARTS)))
    trees = []
    for number, (fitting, held) in enumerate(folds_of(len(target), seed)):
        seen = view.take(fitting)
        trees.append(fit_trees(seen.form, target[fitting], settings, seed * FOLDS + number))
        learned = fit_parts(seen, target[fitting], trees[-1])
        scores[held] = learned.scores(view.take(held)) - learned.scores(seen).mean(axis=0)
    return CrossFit(scores, trees)


@dataclass(frozen=True, slots=True)
class Mix:
    """How much counts: `parts`, shape (len(PARTS),), on the parts' scores; `prior`, shape (n_priors,), on log-odds."""

    parts: Floats
    prior: Floats

    def scores(self, parts: Floats, prior: NDArray[np.floating]) -> Floats:
        """The mixed score of n prompts; shapes (n, len(PARTS)) and (n, n_priors)."""
        return np.asarray(parts @ self.parts + prior @ self.prior, dtype=np.float64)


def mix(parts: Floats, prior: NDArray[np.floating], target: Floats) -> Mix:
    """The parts alike, each divided by its spread; their sum and the prior scores as least squares weighs them, none below 0.

    Few labels can't weigh, so the weights are drawn towards equal ones: half to the sum, half to the priors.

    Args:
        parts: scores of prompts that the parts were not fitted on.
    """
    spread = np.where(parts.std(axis=0) < LEAST_SPREAD, np.inf, parts.std(axis=0))
    together = (parts / spread).sum(axis=1)
    together_spread = max(float(together.std()), LEAST_SPREAD)
    prior_spread = np.where(prior.std(axis=0) < LEAST_SPREAD, np.inf, prior.std(axis=0))
    columns = np.column_stack([together / together_spread, prior / prior_spread])
    equal = np.array([1.0, *np.full(prior.shape[1], 1.0 / prior.shape[1])])
    weights = non_negative_least_squares(columns - columns.mean(axis=0), target - target.mean(), equal, PULL)
    return Mix(weights[0] / together_spread / spread, weights[1:] / prior_spread)


def non_negative_least_squares(rows: Floats, target: Floats, towards: Floats, pull: float, sweeps: int = 200) -> Floats:
    """Weights of at least 0, shape (columns,), by coordinate descent; for a handful of columns.

    Args:
        towards: shape (columns,); the multiple of it that fits best is what the weights are drawn to.
        pull: how strongly, in rows.
    """
    fitted = rows @ towards
    multiple = max(float(fitted @ target) / max(float(fitted @ fitted), LEAST_SPREAD), LEAST_SPREAD)
    products = rows.T @ rows + max(pull, LEAST_SPREAD) * np.eye(rows.shape[1])
    along = rows.T @ target + pull * multiple * towards
    weights = np.zeros(rows.shape[1])
    for _ in range(sweeps):
        for column in range(len(weights)):
            rest = along[column] - products[column] @ weights + products[column, column] * weights[column]
            weights[column] = max(rest / products[column, column], 0.0)
    return weights


def honest_scores(parts: Floats, prior: NDArray[np.floating], target: Floats, seed: int) -> Floats:
    """Mixed scores, shape (n,), with each prompt's weights drawn from the other folds' labels."""
    scores = np.empty(len(target))
    for fitting, held in folds_of(len(target), seed):
        weights = mix(parts[fitting], prior[fitting], target[fitting])
        scores[held] = weights.scores(parts[held], prior[held] - prior[fitting].mean(axis=0))
    return scores


def calibrate(scores: Floats, won: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and constant of log-odds by Platt's method: a logistic regression whose targets are drawn a little towards each
    other. Scores that rank the wins backwards get a slope of almost 0, and so one and the same probability."""
    wins = int(won.sum())
    target = np.where(won, (wins + 1.0) / (wins + 2.0), 1.0 / (len(won) - wins + 2.0))
    spread = max(float(scores.std()), LEAST_SPREAD)
    start = float(np.log(wins / (len(won) - wins)))
    line = logistic_line((scores - scores.mean()) / spread, target, np.ones(len(scores)), start, 1e-9)
    if line[0] < _LEAST_SLOPE:
        line = np.array([_LEAST_SLOPE, start])
    slope = float(line[0]) / spread
    return slope, float(line[1] - slope * scores.mean())


def logistic_line(standard: Floats, target: Floats, weights: Floats, start: float, ridge: float) -> Floats:
    """Slope and constant, shape (2,), of the weighted logistic regression of `target` on one column.

    Args:
        standard: the column, with mean 0 and spread 1, shape (n,).
        target: probabilities, shape (n,); shares of wins will do.
        start: the constant to start from.
        ridge: added to the diagonal of the curvature, which scores that part the targets would make singular.
    """
    columns = np.column_stack([standard, np.ones(len(standard))])
    line = np.array([0.0, start])
    for _ in range(50):  # Newton's method on a convex loss of two unknowns
        chance = 0.5 * (1.0 + np.tanh(0.5 * (columns @ line)))
        hessian = (columns * (weights * chance * (1.0 - chance))[:, None]).T @ columns + ridge * np.eye(2)
        line = line + np.clip(np.linalg.solve(hessian, columns.T @ (weights * (target - chance))), -2.0, 2.0)
    return line


def combine(scale: Scale, learned: Learned, weights: Mix, slope: float, bias: float) -> Parts:
    """Everything folded into log-odds: slope * mixed score + bias."""
    linear, words, boosted, *near = slope * weights.parts
    trees, neighbours = learned.trees, learned.neighbours
    counted = neighbours.weights * np.array(near, dtype=np.float32)[:, None]
    return Parts(
        form_mean=scale.mean,
        form_scale=scale.spread,
        embedding=(linear * learned.embedding).astype(np.float32)[None],  # one row, for all prompts
        form=(linear * learned.form).astype(np.float32)[None],
        words=(words * learned.words).astype(np.float32),
        prior=(slope * weights.prior).astype(np.float32),
        trees=(Trees(trees.feature, trees.threshold, (np.float32(boosted) * trees.value).astype(np.float32)),),
        bias=np.array([bias], dtype=np.float32),
        neighbours=replace(neighbours, weights=counted),
    )
