"""How well a router ranks the validation prompts of each source, with intervals.

Two measures, on comparisons of the strong and the weak model. Chance is 0.5 for both.

* AUC: how often a prompt that the strong model won scores above one that the weak model won.
* APGR (paper, eq. 6, every distinct score a threshold): with a win worth 1 and a tie 0.5 for each, the area under the share of
  the strong model's advantage that is recovered, over the share of calls that go to it.

Intervals are 95% percentiles over resampled prompts. AUC is NaN where a source has no decided comparison of either side, APGR
where the strong model is no better than the weak one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from routellm.metrics import curves
from routellm.metrics.bootstrap import Interval, draw_counts, resample
from routellm.metrics.curves import LEAST_GAP, Array, Outcomes, ranked
from routellm.training.preferences import Preference

REPEATS = 1000


@dataclass(frozen=True, slots=True)
class Votes:
    """How much of each prompt's weight the strong model won, lost and tied: float64, shape (n,)."""

    won: Array
    lost: Array
    tied: Array

    @property
    def weight(self) -> Array:
        """Each prompt's weight in all."""
        return self.won + self.lost + self.tied

    def outcomes(self) -> Outcomes:
        """What each model was worth on each prompt, from 0 to 1."""
        return Outcomes.of((self.won + 0.5 * self.tied) / self.weight, (self.lost + 0.5 * self.tied) / self.weight)


def by_source(rows: Sequence[Preference], scores: Mapping[str, float], seed: int) -> dict[str, dict[str, Any]]:
    """For each source: `prompts`, and `auc` and `apgr` as lists of value, low and high end; left out where there is no value.

    Args:
        rows: comparisons with the strong model first.
        scores: prompt -> score.
        seed: of the resampling.
    """
    found = {}
    for source in sorted({row.source for row in rows}):
        prompts, votes = _count([row for row in rows if row.source == source])
        intervals = _intervals(np.array([scores[prompt] for prompt in prompts]), votes, seed)
        measured: dict[str, Any] = {"prompts": len(prompts)}
        for name, each in intervals.items():
            if np.isfinite(each.value):
                measured[name] = each.rounded()
        found[source] = measured
    return found


def auc(scores: Array, votes: Votes) -> float:
    """How often a won prompt scores above a lost one, ties counting half; NaN without either kind. `scores` is (n,)."""
    return float(_aucs(scores, votes, np.ones((1, len(scores))))[0])


def apgr(scores: Array, votes: Votes) -> float:
    """APGR of `scores`, (n,); NaN where the strong model is no better."""
    curve = curves.exact_curve(scores, votes.outcomes(), votes.weight)
    return curves.apgr(curve) if curve.strong - curve.weak > LEAST_GAP else float("nan")


def _intervals(scores: Array, votes: Votes, seed: int) -> dict[str, Interval]:
    aucs = [_aucs(scores, votes, counts) for counts in draw_counts(len(scores), REPEATS, seed)]
    samples = resample({"": [scores]}, votes.outcomes(), (), REPEATS, seed, votes.weight)[""]
    return {
        "auc": Interval.of(auc(scores, votes), np.concatenate(aucs)),
        "apgr": Interval.of(apgr(scores, votes), samples.apgr_where_ahead),
    }


def _aucs(scores: Array, votes: Votes, counts: Array) -> Array:
    """AUC with each prompt counted as often as a row of `counts`, (repeats, n), says: shape (repeats,)."""
    order, starts = ranked(scores)
    wins, losses = (np.add.reduceat((counts * mass)[:, order], starts, axis=1) for mass in (votes.won, votes.lost))
    below = np.cumsum(losses[:, ::-1], axis=1)[:, ::-1]  # with the group's own, of which half counts
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = (wins * (below - 0.5 * losses)).sum(axis=1) / (wins.sum(axis=1) * losses.sum(axis=1))
    return found


def _count(rows: Sequence[Preference]) -> tuple[list[str], Votes]:
    """The distinct prompts, and their votes."""
    place = {prompt: index for index, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    masses = {outcome: np.zeros(len(place)) for outcome in ("first", "second", "tie")}
    for row in rows:
        masses[row.outcome][place[row.prompt]] += row.weight
    return list(place), Votes(masses["first"], masses["second"], masses["tie"])
