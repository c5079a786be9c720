"""How sure the metrics are: a bootstrap over prompts, paired between routers.

Every router of a benchmark is resampled with the same draws of prompts, so the difference of two routers has an interval of
its own, far narrower than what two separate intervals would suggest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routellm.metrics.curves import LEAST_GAP, ROUNDING, Array, Outcomes, ranked

_CHUNK = 50
"""Resamples computed at once: enough to vectorise, few enough to stay small in memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric's value on the prompts themselves, and the ends of its 95% percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: Array) -> Interval:
        """The interval of bootstrap samples; NaN ends where a tenth of the resamples or more gave no number."""
        known = samples[np.isfinite(samples)]
        if len(known) < 0.9 * len(samples) or len(known) == 0:
            return cls(value, float("nan"), float("nan"))
        low, high = np.quantile(known, (0.025, 0.975))
        return cls(value, float(low), float(high))

    def rounded(self) -> list[float | None]:
        """Value, low and high end to four digits, as JSON can hold them: None for what is no number."""
        return [round(each, 4) if math.isfinite(each) else None for each in (self.value, self.low, self.high)]


@dataclass(frozen=True, slots=True)
class Samples:
    """Metrics of one router on resampled prompts, each float64 of shape (repeats,).

    Attributes:
        gap: how much better the strong model is than the weak one.
    """

    apgr: Array
    auc: Array
    gap: Array
    cpt: dict[float, Array]

    @property
    def apgr_where_ahead(self) -> Array:
        """APGR, but NaN in the resamples in which the strong model is no better than the weak one."""
        return np.where(self.gap > LEAST_GAP, self.apgr, np.nan)


def draw_counts(n: int, repeats: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """How often each of n prompts stands in each resample: arrays of shape (at most 50, n), `repeats` rows in all."""
    generator = np.random.default_rng(seed)
    for start in range(0, repeats, _CHUNK):
        rows = [np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(min(_CHUNK, repeats - start))]
        yield np.array(rows, dtype=np.float64)


def resample(
    routers: Mapping[str, Sequence[Array]],
    outcomes: Outcomes,
    targets: Sequence[float],
    repeats: int = 1000,
    seed: int | Sequence[int] = 0,
    weights: Array | None = None,
) -> dict[str, Samples]:
    """Metrics of the exact curves on resampled prompts, the same resamples for every router.

    Args:
        routers: name -> one array of scores, shape (n,), for each run; a router's metrics are the mean over its runs.
        targets: the PGR levels for which CPT is wanted.
        weights: how many calls each prompt stands for, shape (n,), above 0; None for one each.
    """
    calls = np.ones(len(outcomes)) if weights is None else weights
    plans = {name: [_Plan.of(run, outcomes) for run in runs] for name, runs in routers.items()}
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in plans}
    for counts in draw_counts(len(outcomes), repeats, seed):
        for name, runs in plans.items():
            parts[name].append(np.mean([plan.metrics(counts * calls, targets) for plan in runs], axis=0))
    tables = {name: np.concatenate(columns, axis=1) for name, columns in parts.items()}
    return {
        name: Samples(apgr, auc, gap, dict(zip(targets, cpts, strict=True)))
        for name, (apgr, auc, gap, *cpts) in tables.items()
    }


@dataclass(frozen=True, slots=True)
class _Plan:
    """What does not change between resamples: the order of the prompts by score, and where each group of tied ones starts
    (None where no scores tie)."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64] | None
    gain: Array
    weak: Array

    @classmethod
    def of(cls, scores: Array, outcomes: Outcomes) -> _Plan:
        order, starts = ranked(scores)
        return cls(order, None if len(starts) == len(order) else starts, outcomes.gain[order], outcomes.weak[order])

    def metrics(self, calls: NDArray[np.float64], targets: Sequence[float]) -> NDArray[np.float64]:
        """Rows: APGR, AUC, the gap, then CPT at each target. Columns: resamples, the rows of `calls` (how many calls each
        prompt stands for)."""
        drawn = calls[:, self.order] / calls.sum(axis=1, keepdims=True)
        weak = drawn @ self.weak
        gains = drawn * self.gain
        if self.starts is not None:
            drawn, gains = (np.add.reduceat(values, self.starts, axis=1) for values in (drawn, gains))
        reached = np.cumsum(gains, axis=1)
        gap = reached[:, -1]
        area = np.einsum("ij,ij->i", drawn, reached - 0.5 * gains)  # the trapezoids under the gained quality
        with np.errstate(divide="ignore", invalid="ignore"):
            apgr = np.where(np.abs(gap) > LEAST_GAP, area / gap, np.nan)
        crossings = (_first_crossings(reached, gains, drawn, target) for target in targets)
        return np.stack([apgr, area + weak, gap, *crossings])


def _first_crossings(
    reached: NDArray[np.float64], gains: NDArray[np.float64], drawn: NDArray[np.float64], target: float
) -> Array:
    """`curves.cpt` for each row; NaN where the row has no gap to recover.

    Args:
        reached, gains: quality gained up to and with each group of prompts, and by it alone.
        drawn: each group's share of the calls.
    """
    gap = reached[:, -1:]
    wanted = target * gap
    almost = (target - ROUNDING) * gap
    passed = np.where(gap >= 0, reached >= almost, reached <= almost)
    index = np.argmax(passed, axis=1)
    crossed = np.empty(len(reached))
    for row, last in enumerate(index):
        step = gains[row, last]
        part = (wanted[row, 0] - (reached[row, last] - step)) / step if step != 0.0 else 0.0
        crossed[row] = drawn[row, :last].sum() + max(part, 0.0) * drawn[row, last]
    return np.where(np.abs(gap[:, 0]) > LEAST_GAP, crossed, np.nan)
