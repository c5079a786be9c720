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
    if not 0.0 <= share <= 1.0:
        raise RequestError(f"The share of strong calls is {share!r}; it must lie from 0 to 1.", param="share")
    # Every score is a candidate; so is a threshold just above the highest, at which nothing goes to the strong model.
    step = 10.0**-decimals
    candidates = np.unique(np.round(np.append(values, min(values[-1] + step, 1.0)), decimals))
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

    def threshold_for_share(self, share: float) -> Calibrated:
        """As the function of the same name, to the resolution of the quantiles."""
        return threshold_for_share(self.values, share)


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"Calibration needs a list of at least one score; got an array of shape {values.shape}.")
    if not np.all((values >= 0.0) & (values <= 1.0)):  # also refuses NaN
        raise DataError("Calibration needs scores from 0 to 1; some are out of range or NaN.")
    return values
