"""The fit behind `gain_fast` and `gain_accurate`: what was won on each prompt, and the simple models that predict it.

Least squares on wins less losses, since APGR is linear in the gap: a ranking by its expectation is the best there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import DataError
from routellm.routers.parts import Parts, Trees
from routellm.routers.views import View
from routellm.training.adapt_fit import logistic_line
from routellm.training.boosting import TreeSettings, fit_trees
from routellm.training.dataset import weigh_outcomes
from routellm.training.gain_kinds import KindSettings, kind_of
from routellm.training.preferences import Preference
from routellm.training.scale import Scale

Floats = NDArray[np.float64]

TREES = TreeSettings(trees=200, depth=3, rate=0.06, penalty=60.0, rows=0.5, columns=0.3)
TREE_ROWS = 12_000
"""Trees are fitted to so many rows, drawn by weight."""

SMALL = 5_000
"""A kind with so few rows is penalised twice as much, and smaller ones more: their hundreds of weights are worth less."""

STUDENT_PENALTY = 0.1
"""Of a student's ridge regression: scores of another router are without chance, so they can be followed closely."""

_LEAST_SPREAD = 1e-9

Model = TypeVar("Model")
Among: TypeAlias = tuple[NDArray[np.int64], Floats]
"""Places of prompts, and the weight of each."""


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
    """A ridge regression: float64 weights of the embedding and of the standardised features of form."""

    embedding: Floats
    form: Floats

    def scores(self, view: View) -> Floats:
        """Shape (n,)."""
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
class Member(Generic[Model]):
    """A fitted model, and what its scores count for.

    Attributes:
        divisor: what they are divided by: their spread over the weight of the kind.
        mean: what is taken from them first.
        listing: whether they count for prompts that list options or for all others; None for all prompts.
    """

    model: Model
    divisor: float
    mean: float = 0.0
    listing: bool | None = None

    @classmethod
    def of(
        cls, model: Model, scores: Floats, weight: float, among: Among, meant: NDArray[np.bool_], listing: bool | None
    ) -> Member[Model]:
        """A model with such scores of all prompts, whose spread over `meant` shall be `weight`.

        Args:
            among: if it counts for some prompts only, then the mean over these is what is taken from its scores, so that
                being one of them by itself moves a prompt neither up nor down.
            meant: bool, shape (prompts,): which prompts its kind is for.
            listing: whether it counts for prompts that list options or for all others; None for all prompts.
        """
        divisor = spread_of(scores[meant]) / weight
        if listing is None:
            return cls(model, divisor)
        rows, weights = among
        return cls(model, divisor, float(np.average(scores[rows], weights=weights)), listing)

    def share(self, listing: bool) -> float:
        """What its scores are multiplied by for prompts that list options, or for others."""
        return 1.0 / self.divisor if self.listing in (None, listing) else 0.0

    def counted(self, scores: Floats, listing: NDArray[np.bool_]) -> Floats:
        """What of its scores is added up; `listing` says which of the n prompts list options."""
        return (scores - self.mean) * np.where(listing, self.share(True), self.share(False))


@dataclass(frozen=True, slots=True)
class Members:
    """The fitted models, whose scores are added up."""

    linear: list[Member[Linear]] = field(default_factory=list)
    boosted: list[Member[Trees]] = field(default_factory=list)

    def scores(self, view: View, listing: NDArray[np.bool_]) -> Floats:
        """The sum of all scores, shape (n,); `listing` says which of the n prompts list options."""
        total = np.zeros(len(view))
        for linear in self.linear:
            total += linear.counted(linear.model.scores(view), listing)
        for trees in self.boosted:
            total += trees.counted(trees.model.predict_batch(view.form), listing)
        return total

    def joined_by(self, student: tuple[Linear, Trees], weight: float, view: View, listing: NDArray[np.bool_]) -> Members:
        """The members and a student, whose scores of `view` get `weight` times the spread of the members' sum."""
        linear, trees = student
        own = spread_of(linear.scores(view) + trees.predict_batch(view.form))
        divisor = own / (weight * spread_of(self.scores(view, listing)))
        return Members([*self.linear, Member(linear, divisor)], [*self.boosted, Member(trees, divisor)])


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
        DataError: the rows of a kind end all alike, or it is for prompts with options, or for others, and has none.
    """
    members = Members()
    for number, (kind, of_kind) in enumerate(gains.kinds().items()):
        only = kinds.listing(kind)
        meant = np.ones_like(listing) if only is None else listing == only
        fitting = rows[meant[gains.prompt[rows]]]
        own = np.intersect1d(of_kind, fitting)
        if only is not None and len(own) == 0:
            flag, has = ("--options-only", "No training prompt") if only else ("--open-only", "Every training prompt")
            raise DataError(f"{has} of the kind {kind!r} lists options; leave it out of {flag}.")
        if len(own) == 0 or np.ptp(gains.gain[own]) < _LEAST_SPREAD:
            raise DataError(f"The training comparisons of the kind {kind!r} end all alike; give more data.")
        groups = np.zeros(len(own), dtype=np.int64) if kind in kinds.across else gains.source[own]
        weights, seen = balanced(gains.source[own]), view.take(gains.prompt[own])
        counts = kinds.weights.get(kind, 1.0)
        among = gains.prompt[fitting], balanced(gains.source[fitting])
        linear = fit_linear(seen, gains.gain[own], groups, weights, penalty)
        members.linear.append(Member.of(linear, linear.scores(view), counts, among, meant, only))
        if only is not True:
            trees = fit_boosted(seen.form, gains.gain[own], groups, weights, 10 * seed + number)
            scores = trees.predict_batch(view.form)
            members.boosted.append(Member.of(trees, scores, counts, among, meant, kinds.listing_of_trees(kind)))
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
    linear, boosted = members.linear, members.boosted
    listings = [each.listing for each in linear] + [each.listing for each in boosted]
    rows = (False,) if all(listing is None for listing in listings) else (False, True)
    feature = np.concatenate([each.model.feature for each in boosted], axis=1)
    threshold = np.concatenate([each.model.threshold for each in boosted], axis=1)

    def answers(row: bool) -> Vector:
        return np.concatenate([np.float32(slope * each.share(row)) * each.model.value for each in boosted])

    def constant(row: bool) -> float:
        means = sum(each.share(row) * each.mean for each in linear) + sum(each.share(row) * each.mean for each in boosted)
        return bias - slope * means

    def weights(name: str) -> Vector:
        sums = [np.sum([slope * each.share(row) * getattr(each.model, name) for each in linear], axis=0) for row in rows]
        return np.array(sums, dtype=np.float32)

    return Parts(
        form_mean=scale.mean,
        form_scale=scale.spread,
        embedding=weights("embedding"),
        form=weights("form"),
        words=np.empty(0, dtype=np.float32),
        prior=np.empty(0, dtype=np.float32),
        trees=tuple(Trees(feature, threshold, answers(row)) for row in rows),
        bias=np.array([constant(row) for row in rows], dtype=np.float32),
    )
