"""The fit behind `gain_fast` and `gain_accurate`: what was won on each prompt, and the simple models that predict it.

Least squares on wins less losses, since APGR is linear in the gap: a ranking by its expectation is the best there is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.routers.parts import Parts, Trees
from routellm.routers.views import View
from routellm.training.adapt_fit import Scale, logistic_line
from routellm.training.boosting import TreeSettings, fit_trees, joined
from routellm.training.dataset import weigh_outcomes
from routellm.training.preferences import Preference

Floats = NDArray[np.float64]

TREES = TreeSettings(trees=200, depth=3, rate=0.06, penalty=60.0, rows=0.5, columns=0.3)
TREE_ROWS = 12_000
"""Trees are fitted to so many rows, drawn by weight."""

SMALL = 5_000
"""A kind with so few rows is penalised twice as much, and smaller ones more: their hundreds of weights are worth less."""

STUDENT_PENALTY = 0.1
"""Of a student's ridge regression: scores of another router are without chance, so they can be followed closely."""

_LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class Gains:
    """What was won on each prompt by each source's comparisons: n rows.

    Attributes:
        prompt: int64, shape (n,): the place of the row's prompt in `prompts`.
        gain: float64, shape (n,): the share of wins less that of losses, by weight.
        won: float64, shape (n,): the share of wins.
        source: int64, shape (n,): place in `sources`.
    """

    prompts: list[str]
    prompt: NDArray[np.int64]
    gain: Floats
    won: Floats
    source: NDArray[np.int64]
    sources: list[str]

    def kinds(self) -> dict[str, NDArray[np.intp]]:
        """The rows of each kind of source."""
        names = np.array([kind_of(source) for source in self.sources])[self.source]
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}


def kind_of(source: str) -> str:
    """The kind of a source's comparisons: what stands before the slash in its name."""
    return source.partition("/")[0] if "/" in source else ""


def check_across(across: Collection[str], sources: Collection[str]) -> None:
    """Check `--across` against the data's sources.

    Raises:
        ConfigError: it names a kind that none of them is of.
    """
    kinds = sorted(set(map(kind_of, sources)))
    for kind in across:
        if kind not in kinds:
            known = ", ".join(map(repr, kinds))
            raise ConfigError(f"--across names the kind {kind!r}{did_you_mean(kind, kinds)}; the data have: {known}.")


def gather(rows: Sequence[Preference], strong: str, weak: str) -> Gains:
    """Take the comparisons of the pair together, by prompt and source.

    Raises:
        DataError: no row compares the two, a weight is not a finite number above 0, or all rows end alike.
    """
    sums = weigh_outcomes(rows, strong, weak)
    shares = np.array(list(sums.values()))
    shares /= shares.sum(axis=1, keepdims=True)
    gain = shares[:, 0] - shares[:, 2]
    if np.ptp(gain) < _LEAST_SPREAD:
        raise DataError(f"All comparisons of {strong!r} and {weak!r} end alike: there is nothing to tell apart.")
    prompts = list(dict.fromkeys(prompt for prompt, _ in sums))
    sources = sorted({source for _, source in sums})
    at = {prompt: place for place, prompt in enumerate(prompts)}
    return Gains(
        prompts,
        np.array([at[prompt] for prompt, _ in sums]),
        gain,
        shares[:, 0],
        np.array([sources.index(source) for _, source in sums]),
        sources,
    )


@dataclass(frozen=True, slots=True)
class Linear:
    """A ridge regression: float64 weights of the embedding and of the standardised features of form."""

    embedding: Floats
    form: Floats

    def scores(self, view: View) -> Floats:
        """Shape (n,), without a constant."""
        return np.asarray(view.embedding @ self.embedding + view.form @ self.form, dtype=np.float64)


def balanced(source: NDArray[np.int64]) -> Floats:
    """Weights of rows, mean 1: a source's sum grows with the square root of its size."""
    weights = np.bincount(source)[source] ** -0.5
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def centred(values: Floats, groups: NDArray[np.int64], weights: Floats) -> Floats:
    """`values`, of shape (n,) or (n, columns), less their weighted mean in each row's group."""
    totals = np.bincount(groups, weights)
    totals[totals == 0] = 1.0
    sums = np.zeros((len(totals), *values.shape[1:]))
    np.add.at(sums, groups, (values.T * weights).T)
    return np.asarray(values - (sums.T / totals).T[groups], dtype=np.float64)


def fit_linear(view: View, target: Floats, groups: NDArray[np.int64], weights: Floats, penalty: float) -> Linear:
    """Least squares with rows and target centred within `groups`.

    Args:
        penalty: in units of the rows' weight; embedding columns are scaled alike to a mean variance of 1 for it, features of
            form come standardised.
    """
    scale = max(float(np.sqrt(view.embedding.var(axis=0).mean())), _LEAST_SPREAD)
    rows = np.hstack([view.embedding / scale, view.form]).astype(np.float64)
    rows, target = centred(rows, groups, weights), centred(target, groups, weights)
    products = (rows * weights[:, None]).T @ rows + penalty * (weights.sum() + SMALL) * np.eye(rows.shape[1])
    found = np.linalg.solve(products, rows.T @ (weights * target))
    width = view.embedding.shape[1]
    return Linear(found[:width] / scale, found[width:])


def fit_boosted(form: Vector, target: Floats, groups: NDArray[np.int64], weights: Floats, seed: int) -> Trees:
    """Trees on rows drawn by their weight, with the target centred within `groups`."""
    rest = centred(target, groups, weights)
    drawn = np.random.default_rng([seed, 7]).choice(len(rest), min(TREE_ROWS, len(rest)), p=weights / weights.sum())
    return fit_trees(form[drawn], rest[drawn], TREES, seed)


@dataclass(frozen=True, slots=True)
class Members:
    """The fitted models, each with the spread that its scores are divided by."""

    linear: list[tuple[Linear, float]]
    boosted: list[tuple[Trees, float]]

    def scores(self, view: View) -> Floats:
        """The sum of all scores, shape (n,)."""
        total = np.zeros(len(view))
        for linear, spread in self.linear:
            total += linear.scores(view) / spread
        for trees, spread in self.boosted:
            total += trees.predict_batch(view.form) / spread
        return total

    def joined_by(self, student: tuple[Linear, Trees], weight: float, view: View) -> Members:
        """The members and a student, whose scores of `view` get `weight` times the spread of the members' sum."""
        linear, trees = student
        own = float((linear.scores(view) + trees.predict_batch(view.form)).std())
        spread = max(own, _LEAST_SPREAD) / (weight * max(float(self.scores(view).std()), _LEAST_SPREAD))
        return Members([*self.linear, (linear, spread)], [*self.boosted, (trees, spread)])


def fit_members(gains: Gains, view: View, rows: NDArray[np.intp], across: Sequence[str], penalty: float, seed: int) -> Members:
    """A ridge regression and trees for each kind of comparison.

    Args:
        view: of `gains.prompts`, with standardised features of form.
        rows: which rows of `gains` to fit on.
        across: kinds whose sources are compared as they are.

    Raises:
        DataError: the rows of a kind end all alike.
    """
    members = Members([], [])
    for number, (kind, of_kind) in enumerate(gains.kinds().items()):
        own = np.intersect1d(of_kind, rows)
        if len(own) == 0 or np.ptp(gains.gain[own]) < _LEAST_SPREAD:
            raise DataError(f"The training comparisons of the kind {kind!r} end all alike; give more data.")
        groups = np.zeros(len(own), dtype=np.int64) if kind in across else gains.source[own]
        weights, seen = balanced(gains.source[own]), view.take(gains.prompt[own])
        linear = fit_linear(seen, gains.gain[own], groups, weights, penalty)
        trees = fit_boosted(seen.form, gains.gain[own], groups, weights, 10 * seed + number)
        members.linear.append((linear, max(float(linear.scores(view).std()), _LEAST_SPREAD)))
        members.boosted.append((trees, max(float(trees.predict_batch(view.form).std()), _LEAST_SPREAD)))
    return members


def fit_student(view: View, target: Floats, seed: int) -> tuple[Linear, Trees]:
    """A ridge regression of `target`, another router's log-odds of the prompts, and trees of what it leaves."""
    one_group, weights = np.zeros(len(target), dtype=np.int64), np.ones(len(target))
    linear = fit_linear(view, target, one_group, weights, STUDENT_PENALTY)
    return linear, fit_boosted(view.form, target - linear.scores(view), one_group, weights, seed)


def platt(scores: Floats, won: Floats, weights: Floats) -> tuple[float, float]:
    """Slope and constant of log-odds that make scores probabilities: weighted logistic regression on shares of wins."""
    spread = max(float(scores.std()), _LEAST_SPREAD)
    mean = float(np.clip(np.average(won, weights=weights), 1e-3, 1 - 1e-3))
    start = float(np.log(mean / (1 - mean)))
    line = logistic_line((scores - scores.mean()) / spread, won, weights, start, 1e-6 * float(weights.sum()))
    slope = max(float(line[0]), 1e-3) / spread
    return slope, float(line[1] - slope * scores.mean())


def fold(members: Members, share: float, prior: Floats, scale: Scale, slope: float, bias: float) -> Parts:
    """Everything in units of log-odds: the linear models become one, and so do the trees.

    Args:
        share: what the members' sum is multiplied by, beside `prior`, the weights of the prior routers' log-odds.
    """
    factor = slope * share
    trees = [Trees(each.feature, each.threshold, np.float32(factor / spread) * each.value) for each, spread in members.boosted]
    together = joined(trees)
    zero = np.zeros(len(scale.mean))
    return Parts(
        form_mean=scale.mean,
        form_scale=scale.spread,
        embedding=np.asarray(sum(factor / spread * each.embedding for each, spread in members.linear), dtype=np.float32),
        form=np.asarray(sum((factor / spread * each.form for each, spread in members.linear), zero), dtype=np.float32),
        words=np.empty(0, dtype=np.float32),
        prior=(slope * prior).astype(np.float32),
        trees=Trees(together.feature, together.threshold, together.value * np.float32(len(trees))),
        bias=float(np.float32(bias)),
    )
