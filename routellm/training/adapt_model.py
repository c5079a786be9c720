"""From labelled prompts to an adapted router, and an honest account of what it is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routellm.routers.adapted import AdaptedRouter
from routellm.routers.parts import Parts
from routellm.routers.views import Viewer
from routellm.training.adapt_compare import Verdict, apgr, compare
from routellm.training.adapt_fit import PARTS, Mix, calibrate, combine, cross_fit, fit_parts, honest_scores, mix, softened
from routellm.training.adapt_labels import Labels
from routellm.training.boosting import joined
from routellm.training.scale import Scale

Floats = NDArray[np.float64]

ROUNDS = 2
"""How often the prompts are cut into folds anew: a mean over several cuts depends less on how they fell."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapted router and what cross-validation says of it.

    Attributes:
        router: scores as the loaded checkpoint will.
        parts: what it has learned.
        win_rates: its scores of the labelled prompts, each by parts that never saw the prompt's label: float64, shape (n,).
        verdict: its APGR beside that of the first of the prior routers.
        apgr_alone: the APGR of each part and of each prior router by itself.
        influence: for the parts together and for each prior router, its share of what moves the score.
    """

    router: AdaptedRouter
    parts: Parts
    win_rates: Floats
    verdict: Verdict
    apgr_alone: dict[str, float]
    influence: dict[str, float]


def adapt(labels: Labels, viewer: Viewer, seed: int) -> Adapted:
    """Fit the parts, weigh them, turn their sum into a probability, and compare with the shipped router.

    Each label is used for all of it but the comparison, where a prompt is scored by parts and weights that other labels gave.
    """
    seen = viewer.see_batch(labels.prompts)
    scale = Scale.of(seen.form)
    view, gap, target = scale.standardised(seen), labels.gap, softened(labels.gap)
    rounds = [cross_fit(view, target, ROUNDS * seed + number) for number in range(ROUNDS)]
    parts = np.mean([each.scores for each in rounds], axis=0)
    weights = mix(parts, view.prior, target)
    scores = weights.scores(parts, view.prior)
    slope, bias = calibrate(scores, labels.won)
    learned = fit_parts(view, target, joined([trees for each in rounds for trees in each.trees]))
    centre = float(learned.scores(view).mean(axis=0) @ weights.parts)
    combined = combine(scale, learned, weights, slope, bias - slope * centre)
    shipped = view.prior[:, 0].astype(np.float64)
    return Adapted(
        router=AdaptedRouter.from_parts(combined, viewer),
        parts=combined,
        win_rates=0.5 * (1.0 + np.tanh(0.5 * (slope * scores + bias))),
        verdict=compare(shipped, honest_scores(parts, view.prior, target, seed), gap, seed),
        apgr_alone=_alone(parts, view.prior, list(viewer.priors), gap),
        influence=_influence(weights, parts, view.prior, list(viewer.priors)),
    )


def _alone(parts: Floats, prior: NDArray[np.floating], names: list[str], gap: Floats) -> dict[str, float]:
    columns = {**dict(zip(PARTS, parts.T, strict=True)), **dict(zip(names, prior.T, strict=True))}
    return {name: apgr(column, gap) for name, column in columns.items()}


def _influence(weights: Mix, parts: Floats, prior: NDArray[np.floating], names: list[str]) -> dict[str, float]:
    spreads = {"labels": float((parts @ weights.parts).std())}
    spreads |= {
        name: float((column * weight).std()) for name, column, weight in zip(names, prior.T, weights.prior, strict=True)
    }
    total = sum(spreads.values())
    return {name: spread / total if total > 0 else 0.0 for name, spread in spreads.items()}
