"""From a share of strong calls to a threshold: pure functions of score arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routellm.errors import DataError, RequestError


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold, and the share of calls that reach the strong model with it on the data that it was computed from.

    Where many prompts tie at one score, no threshold gives every share: `achieved` is then the nearest that can be had.
    """

    threshold: float
    achieved: float


def threshold_for_share(scores: ArrayLike, share: float, *, decimals: int = 5) -> Calibrated:
    """The threshold at which the share of `scores` that are at least the threshold is nearest to `share`.

    Args:
        scores: win rates in [0, 1], shape (n,), in any order.
        share: the wanted share of strong calls, in [0, 1].
        decimals: thresholds are rounded to so many places, since people copy them into model names; the achieved share is
            that of the rounded threshold.

    Raises:
        DataError: no scores, or one that is not a number in [0, 1].
        RequestError: `share` is out of range.
    """
    values = np.sort(_checked(scores))
    _check_share(share)
    # Scores themselves first, so that they win among equals; then what lies a step beside them, since rounding may have led
    # past a score that many prompts share, and since just above the highest score nothing goes to the strong model.
    step = 10.0**-decimals
    rounded = np.unique(np.round(values, decimals))
    candidates = _as_thresholds([rounded, rounded - step, rounded + step], decimals)
    achieved = 1.0 - np.searchsorted(values, candidates, side="left") / len(values)
    best = int(np.argmin(np.abs(achieved - share)))
    return Calibrated(float(candidates[best]), float(achieved[best]))


@dataclass(frozen=True, slots=True)
class ScoreQuantiles:
    """A router's scores at evenly spaced quantiles, shipped with its checkpoint in place of the prompts themselves.

    Attributes:
        values: win rates at quantiles 0, 1/(n-1), ..., 1; non-decreasing.
        source: what the prompts were, in words.
        prompts: how many prompts there were.
    """

    values: tuple[float, ...]
    source: str
    prompts: int

    @classmethod
    def of(cls, scores: ArrayLike, source: str, points: int = 1001) -> ScoreQuantiles:
        """Summarise `scores`, shape (n,), at `points` evenly spaced quantiles."""
        values = _checked(scores)
        cuts = np.quantile(values, np.linspace(0.0, 1.0, points))
        return cls(tuple(float(cut) for cut in cuts), source, len(values))

    def share_at(self, threshold: float) -> float:
        """The share of scores that are at least `threshold`, read off the line through the quantiles."""
        values, levels = np.asarray(self.values), np.linspace(0.0, 1.0, len(self.values))
        above = int(np.searchsorted(values, threshold, side="left"))  # the first quantile that reaches the strong model
        if above == 0:
            return 1.0
        if above == len(values):
            return 0.0
        low, high = values[above - 1], values[above]
        part = (threshold - low) / (high - low)
        return float(1.0 - (levels[above - 1] + part * (levels[above] - levels[above - 1])))

    def threshold_for_share(self, share: float, *, decimals: int = 5) -> Calibrated:
        """As the function of the same name, by the line through the quantiles.

        Raises:
            DataError: the quantiles are no list of numbers in [0, 1].
            RequestError: `share` is out of range.
        """
        values = _checked(self.values)
        _check_share(share)
        exact = np.interp(1.0 - share, np.linspace(0.0, 1.0, len(values)), values)
        step = 10.0**-decimals
        candidates = _as_thresholds([[exact], [exact - step], [exact + step]], decimals)
        achieved = np.array([self.share_at(float(threshold)) for threshold in candidates])
        best = int(np.argmin(np.abs(achieved - share)))
        return Calibrated(float(candidates[best]), float(achieved[best]))


def _as_thresholds(candidates: list[ArrayLike], decimals: int) -> NDArray[np.float64]:
    return np.clip(np.round(np.concatenate(candidates), decimals), 0.0, 1.0)


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise RequestError(f"The share of strong calls is {share!r}; it must lie from 0 to 1.", param="share")


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"Calibration needs a list of at least one score; got an array of shape {values.shape}.")
    if not np.all((values >= 0.0) & (values <= 1.0)):  # also refuses NaN
        raise DataError("Calibration needs scores from 0 to 1; some are out of range or NaN.")
    return values
