"""Is one ranking of prompts better than another? APGR of both, and a paired bootstrap of the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routellm.metrics import curves
from routellm.metrics.bootstrap import Interval, resample
from routellm.metrics.curves import LEAST_GAP, Array, Outcomes

REPEATS = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Two routers on the same prompts.

    Attributes:
        shipped, adapted: their APGR; 0.5 is chance.
        difference: adapted less shipped, resampled together.
    """

    shipped: Interval
    adapted: Interval
    difference: Interval

    @property
    def better(self) -> bool:
        """Whether the whole interval of the difference lies above 0."""
        return self.difference.low > 0.0


def compare(shipped: Array, adapted: Array, gap: Array, seed: int, repeats: int = REPEATS) -> Verdict:
    """Compare two routers' scores, each of shape (n,), by the gap between the models, of the same shape and a mean above 0.

    Where the strong model has no lead in a tenth of the resamples or more, there are no intervals, and neither is better.
    """
    values = apgr(shipped, gap), apgr(adapted, gap)
    found = resample({"shipped": [shipped], "adapted": [adapted]}, _outcomes(gap), (), repeats, [seed, 3])
    samples = found["shipped"].apgr_where_ahead, found["adapted"].apgr_where_ahead
    return Verdict(
        Interval.of(values[0], samples[0]),
        Interval.of(values[1], samples[1]),
        Interval.of(values[1] - values[0], samples[1] - samples[0]),
    )


def apgr(scores: Array, gap: Array) -> float:
    """APGR of scores; NaN where the mean gap is not above 0."""
    return curves.apgr(curves.exact_curve(scores, _outcomes(gap))) if gap.mean() > LEAST_GAP else float("nan")


def _outcomes(gap: Array) -> Outcomes:
    return Outcomes.of(gap, np.zeros(len(gap)))
