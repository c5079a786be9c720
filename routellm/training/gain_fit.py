"""The fit behind `gain_fast` and `gain_accurate`: what was won on each prompt, and the simple models that predict it.

Least squares on wins less losses, since APGR is linear in the gap: a ranking by its expectation is the best there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import DataError
from routellm.routers.parts import Parts, Trees
from routellm.routers.views import View
from routellm.training.adapt_fit import Scale, logistic_line
from routellm.training.boosting import TreeSettings, fit_trees, joined
from routellm.training.dataset import weigh_outcomes
from routellm.training.gain_kinds import KindSettings, kind_of
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
    """A ridge regression: float64 weights of the embedding and of the standardised features of form, and a constant."""

    embedding: Floats
    form: Floats
    constant: float = 0.0

    def scores(self, view: View) -> Floats:
        """Shape (n,)."""
        return np.asarray(view.embedding @ self.embedding + view.form @ self.form + self.constant, dtype=np.float64)


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
    """The fitted models, each with what its scores are divided by: their spread over the weight of its kind.

    Attributes:
        linear, boosted: count for all prompts.
        options_only: count for prompts that list options.
    """

    linear: list[tuple[Linear, float]] = field(default_factory=list)
    boosted: list[tuple[Trees, float]] = field(default_factory=list)
    options_only: list[tuple[Linear, float]] = field(default_factory=list)

    def scores(self, view: View, listing: NDArray[np.bool_]) -> Floats:
        """The sum of all scores, shape (n,); `listing` says which of the n prompts list options."""
        total = np.zeros(len(view))
        for linear, divisor in self.linear:
            total += linear.scores(view) / divisor
        for trees, divisor in self.boosted:
            total += trees.predict_batch(view.form) / divisor
        for linear, divisor in self.options_only:
            total[listing] += linear.scores(view)[listing] / divisor
        return total

    def joined_by(self, student: tuple[Linear, Trees], weight: float, view: View, listing: NDArray[np.bool_]) -> Members:
        """The members and a student, whose scores of `view` get `weight` times the spread of the members' sum."""
        linear, trees = student
        own = spread_of(linear.scores(view) + trees.predict_batch(view.form))
        divisor = own / (weight * spread_of(self.scores(view, listing)))
        return Members([*self.linear, (linear, divisor)], [*self.boosted, (trees, divisor)], self.options_only)


def fit_members(
    gains: Gains,
    view: View,
    listing: NDArray[np.bool_],
    rows: NDArray[np.intp],
    kinds: KindSettings,
    penalty: float,
    seed: int,
) -> Members:
    """A ridge regression and trees for each kind of comparison; only the former for one that is for prompts with options.

    Args:
        view: of `gains.prompts`, with standardised features of form.
        listing: which of `gains.prompts` list options: bool, shape (len(gains.prompts),).
        rows: which rows of `gains` to fit on.

    Raises:
        DataError: the rows of a kind end all alike, or no prompt of one that is for prompts with options lists any.
    """
    members = Members()
    with_options = rows[listing[gains.prompt[rows]]]
    for number, (kind, of_kind) in enumerate(gains.kinds().items()):
        only = kind in kinds.options_only
        own = np.intersect1d(of_kind, with_options if only else rows)
        if only and len(own) == 0:
            raise DataError(f"No training prompt of the kind {kind!r} lists options; leave it out of --options-only.")
        if len(own) == 0 or np.ptp(gains.gain[own]) < _LEAST_SPREAD:
            raise DataError(f"The training comparisons of the kind {kind!r} end all alike; give more data.")
        groups = np.zeros(len(own), dtype=np.int64) if kind in kinds.across else gains.source[own]
        weights, seen = balanced(gains.source[own]), view.take(gains.prompt[own])
        linear = fit_linear(seen, gains.gain[own], groups, weights, penalty)
        counts = kinds.weights.get(kind, 1.0)
        if only:
            scores, around = linear.scores(view), gains.prompt[with_options]
            mean = float(np.average(scores[around], weights=balanced(gains.source[with_options])))
            members.options_only.append((replace(linear, constant=-mean), spread_of(scores[listing]) / counts))
            continue
        trees = fit_boosted(seen.form, gains.gain[own], groups, weights, 10 * seed + number)
        members.linear.append((linear, spread_of(linear.scores(view)) / counts))
        members.boosted.append((trees, spread_of(trees.predict_batch(view.form)) / counts))
    return members


def spread_of(scores: Floats) -> float:
    """Their standard deviation, as something that can be divided by."""
    return max(float(scores.std()), _LEAST_SPREAD)


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


def fold(members: Members, scale: Scale, slope: float, bias: float) -> Parts:
    """Everything in units of log-odds, `slope` times the members' sum: the linear models become one, and so do the trees."""
    trees = [
        Trees(each.feature, each.threshold, np.float32(slope / divisor) * each.value) for each, divisor in members.boosted
    ]
    together = joined(trees)
    rows = [_sum(members.linear, slope)]
    if members.options_only:
        rows.append(_sum([*members.linear, *members.options_only], slope))
    return Parts(
        form_mean=scale.mean,
        form_scale=scale.spread,
        embedding=np.array([row.embedding for row in rows], dtype=np.float32),
        form=np.array([row.form for row in rows], dtype=np.float32),
        words=np.empty(0, dtype=np.float32),
        prior=np.empty(0, dtype=np.float32),
        trees=Trees(together.feature, together.threshold, together.value * np.float32(len(trees))),
        bias=np.array([bias + row.constant for row in rows], dtype=np.float32),
    )


def _sum(linear: list[tuple[Linear, float]], factor: float) -> Linear:
    """`factor` times the sum of all, each divided by its number."""
    shares = [(factor / divisor, each) for each, divisor in linear]
    return Linear(
        np.sum([share * each.embedding for share, each in shares], axis=0),
        np.sum([share * each.form for share, each in shares], axis=0),
        sum(share * each.constant for share, each in shares),
    )
