"""What a router is worth, as pure functions of three arrays: its scores, and each model's quality on each prompt.

Notation (paper, section 3): r(weak) and r(strong) are the models' mean qualities, r(R) that of the answers that a router
picks.

    PGR = (r(R) - r(weak)) / (r(strong) - r(weak))      performance gap recovered, eq. 5
    APGR = area under PGR over the share of calls that go to the strong model, eq. 6
    CPT(x) = the smallest share of strong calls at which PGR reaches x

Two curves of quality over strong share are computed. The *published* one has thresholds at the edges of ten quantile bins of
the scores, as the paper's tables do. The *exact* one makes every distinct score a threshold; prompts that tie go to the strong
model together. Both hold the end points: no strong calls, and only strong calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routellm.errors import DataError

Array = NDArray[np.float64]

ROUNDING = 1e-9
"""PGR that is so near a target counts as there: a flat curve may reach it to the digit, where rounding must not decide."""

LEAST_GAP = 1e-6
"""Two models whose mean qualities differ by no more are equally good: sums of shares rarely cancel out to the digit."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Each model's quality on the same n prompts, such as 0 or 1 for correctness, or a judge's grade.

    Attributes:
        strong, weak: float64, shape (n,).
    """

    strong: Array
    weak: Array

    @classmethod
    def of(cls, strong: ArrayLike, weak: ArrayLike) -> Outcomes:
        """Check and convert.

        Raises:
            DataError: the arrays are empty, of different lengths, or hold NaN or infinity.
        """
        first, second = np.asarray(strong, dtype=np.float64), np.asarray(weak, dtype=np.float64)
        if first.ndim != 1 or first.shape != second.shape or first.size == 0:
            raise DataError(
                f"Qualities must be two lists of one length, at least 1; got shapes {first.shape}, {second.shape}."
            )
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            raise DataError("Qualities must be finite numbers; some are NaN or infinite.")
        return cls(first, second)

    def __len__(self) -> int:
        return len(self.strong)

    @property
    def gain(self) -> Array:
        """What the strong model adds on each prompt."""
        return self.strong - self.weak

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Outcomes:
        """The outcomes of some prompts."""
        return Outcomes(self.strong[rows], self.weak[rows])


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean quality over the share of strong calls, both float64 of shape (k,), shares from 0 to 1 in rising order."""

    share: Array
    quality: Array

    @property
    def weak(self) -> float:
        """r(weak): the quality without strong calls."""
        return float(self.quality[0])

    @property
    def strong(self) -> float:
        """r(strong): the quality with nothing else."""
        return float(self.quality[-1])

    def at(self, share: ArrayLike) -> Array:
        """Quality at given shares, by linear interpolation: what a random mix of the two neighbouring thresholds gives."""
        return np.interp(np.asarray(share, dtype=np.float64), self.share, self.quality)


def ranked(scores: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The prompts in falling order of score, shape (n,), and where in that order each group of tied ones starts."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(scores[order]) != 0.0))


def exact_curve(scores: ArrayLike, outcomes: Outcomes, weights: Array | None = None) -> Curve:
    """Every distinct score a threshold.

    Args:
        scores: win rates, shape (n,).
        weights: how many calls each prompt stands for, shape (n,), above 0; None for one each.

    Raises:
        DataError: `scores` is not one finite number for each prompt.
    """
    values = _checked(scores, outcomes)
    order, starts = ranked(values)
    ends = np.append(starts[1:], len(values))
    calls = np.ones(len(values)) if weights is None else weights
    reached, gained = (np.append(0.0, np.cumsum(each[order])[ends - 1]) for each in (calls, calls * outcomes.gain))
    return Curve(reached / reached[-1], ((calls * outcomes.weak).sum() + gained) / reached[-1])


def published_curve(scores: ArrayLike, outcomes: Outcomes, bins: int = 10) -> Curve:
    """Thresholds at the edges of quantile bins of the scores: at least the edge, and more than the last one.

    Where scores tie, edges coincide; equal ones count once, and no point is lost.
    """
    values = _checked(scores, outcomes)
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, bins + 1)))
    picked = [values >= edge for edge in edges] + [np.zeros(len(values), dtype=bool)]
    if len(edges) == bins + 1:
        picked[-2:] = [values > edges[-1]]  # the last edge is strict, so that one point has no strong calls
    points = {float(mask.mean()): float(np.where(mask, outcomes.strong, outcomes.weak).mean()) for mask in picked}
    share = np.array(sorted(points))
    return Curve(share, np.array([points[value] for value in share]))


def oracle_curve(outcomes: Outcomes) -> Curve:
    """The best that any router can do: at each share, the calls with the largest gain go to the strong model."""
    gained = np.concatenate(([0.0], np.cumsum(np.sort(outcomes.gain)[::-1])))
    return Curve(np.linspace(0.0, 1.0, len(outcomes) + 1), outcomes.weak.mean() + gained / len(outcomes))


def pgr(quality: ArrayLike, curve: Curve) -> Array:
    """Performance gap recovered (eq. 5) of given qualities; NaN everywhere where both models are equally good."""
    gap = curve.strong - curve.weak
    values = np.asarray(quality, dtype=np.float64)
    return (values - curve.weak) / gap if abs(gap) > LEAST_GAP else np.full_like(values, np.nan)


def apgr(curve: Curve) -> float:
    """Average PGR (eq. 6): the trapezoid area under PGR over the share. 0.5 is chance; NaN where both models are equal."""
    return float(np.trapezoid(pgr(curve.quality, curve), curve.share))


def auc(curve: Curve) -> float:
    """The trapezoid area under quality itself, in the unit of quality."""
    return float(np.trapezoid(curve.quality, curve.share))


def cpt(curve: Curve, target: float) -> float:
    """CPT(target): the smallest share of strong calls at which PGR reaches `target`, between points by linear interpolation.

    Quality need not rise with the share, so it is the first crossing that counts. NaN where both models are equally good.

    Args:
        target: a PGR, such as 0.5 for CPT(50%).
    """
    recovered = pgr(curve.quality, curve)
    if np.isnan(recovered).any():
        return float("nan")
    reached = np.flatnonzero(recovered >= target - ROUNDING)
    if len(reached) == 0:
        return float("nan")
    first = int(reached[0])
    if first == 0:
        return 0.0
    low, high = recovered[first - 1], recovered[first]
    return float(curve.share[first - 1] + (target - low) / (high - low) * (curve.share[first] - curve.share[first - 1]))


def _checked(scores: ArrayLike, outcomes: Outcomes) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != outcomes.strong.shape:
        raise DataError(f"There must be one score for each of {len(outcomes)} prompts; got an array of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise DataError("Scores must be finite numbers; some are NaN or infinite.")
    return values
