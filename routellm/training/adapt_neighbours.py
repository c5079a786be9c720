"""Fit what labelled prompts tell of prompts like them (`routellm.routers.neighbours`): kernel ridge regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from routellm.routers.neighbours import Neighbours, fading, places, squared_distances
from routellm.routers.views import View
from routellm.training.scale import LEAST_SPREAD, length

Floats = NDArray[np.float64]

MOST = 2_000
"""A prompt is compared with so many labelled ones; of more, evenly spaced ones are taken. 2,000 take .2 ms of a decision."""

FORM_WEIGHT = 0.4
"""Length of a mean form vector beside that of a mean embedding, in distances."""

PENALTY = 1.0
"""Of the regressions, in which a prompt is like itself by 1."""


def fit_neighbours(view: View, target: Floats) -> Neighbours:
    """Fit both ranges to `target`, shape (n,), less its mean, each by itself; features of form are standardised."""
    if len(view) > MOST:
        kept = np.linspace(0, len(view) - 1, MOST).astype(np.intp)
        view, target = view.take(kept), target[kept]
    scale = np.array([1.0 / length(view.embedding), FORM_WEIGHT / length(view.form)], dtype=np.float32)
    rows = places(view, scale)
    squared = squared_distances(rows, rows)
    np.fill_diagonal(squared, 0.0)  # but for rounding, which the root makes a hundred times larger
    unit = np.float32(max(float(np.median(squared)), LEAST_SPREAD))
    rows, squared = rows / np.sqrt(unit), squared / unit
    weights = [
        np.linalg.solve(near.astype(np.float64) + PENALTY * np.eye(len(view)), target - target.mean())
        for near in fading(squared)
    ]
    return Neighbours(rows, scale / np.sqrt(unit), np.array(weights, dtype=np.float32))
