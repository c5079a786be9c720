"""Preferences as arrays: what every trainer of a router on prompt vectors starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.errors import DataError
from routellm.training.factorization import Battles
from routellm.training.preferences import Preference

CLASSES = {"first": 0, "tie": 1, "second": 2}
"""Outcome of a comparison whose first model is the strong one -> class: strong wins, tie, weak wins."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Comparisons as arrays: distinct prompts, their vectors (float32, (n_prompts, D)), and battles that point at them."""

    prompts: list[str]
    features: Vector
    battles: Battles
    won: NDArray[np.bool_]
    """For every row, ties among them, whether the first model won outright."""
    models: list[str]
    sources: list[str]
    drawn: NDArray[np.bool_]
    weights: NDArray[np.float64]
    """Each row's own weight, as it was read; that of `battles` also makes up for the sizes of the sources."""


def prepare(rows: Sequence[Preference], features: PromptFeatures) -> Prepared:
    """Turn comparisons into arrays. A source's weight in the loss grows with the square root of its size (the sum of its
    rows' weights), so that the largest source does not drown the others."""
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    position = _positions(prompts)
    models = sorted({row.first for row in rows} | {row.second for row in rows})
    sources = sorted({row.source for row in rows})
    size = dict.fromkeys(sources, 0.0)
    for row in rows:
        size[row.source] += row.weight
    weights = np.array([row.weight * size[row.source] ** -0.5 for row in rows], dtype=np.float32)
    won = np.array([row.outcome == "first" for row in rows])
    model_at, source_at = _positions(models), _positions(sources)
    battles = Battles(
        np.array([position[row.prompt] for row in rows]),
        np.array([model_at[row.first] for row in rows]),
        np.array([model_at[row.second] for row in rows]),
        won.astype(np.float32),
        weights / weights.mean(),
        np.array([source_at[row.source] for row in rows]),
    )
    drawn = np.array([row.outcome == "tie" for row in rows])
    own = np.array([row.weight for row in rows], dtype=np.float64)
    return Prepared(prompts, features.encode_batch(prompts), battles, won, models, sources, drawn, own)


def _positions(names: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def split_by_prompt(n_prompts: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Which prompts are for validation: bool, shape (n_prompts,). All rows of a prompt fall on one side."""
    chosen = np.zeros(n_prompts, dtype=bool)
    picked = np.random.default_rng([seed, 2]).permutation(n_prompts)[: max(1, round(n_prompts * share))]
    chosen[picked] = True
    return chosen


def weigh_outcomes(rows: Sequence[Preference], strong: str, weak: str) -> dict[tuple[str, str], NDArray[np.float64]]:
    """What the comparisons of `strong` and `weak`, either way round, weigh for each class of `CLASSES`, by prompt and source.

    Raises:
        DataError: no row compares the two, or a weight is not a finite number above 0.
    """
    found: dict[tuple[str, str], NDArray[np.float64]] = {}
    for row in rows:
        if {row.first, row.second} != {strong, weak}:
            continue
        if not (isfinite(row.weight) and row.weight > 0):
            raise DataError(f"A comparison of the source {row.source!r} weighs {row.weight!r}; give a finite number above 0.")
        outcome = row.outcome if row.first == strong else row.turned().outcome
        found.setdefault((row.prompt, row.source), np.zeros(len(CLASSES)))[CLASSES[outcome]] += row.weight
    if not found:
        raise DataError(
            f"None of the {len(rows):,} comparisons is of {strong!r} and {weak!r}. Name two models that the data compare, or "
            f"read the data by role."
        )
    return found


def held_prompts(rows: Sequence[Preference], held: NDArray[np.bool_]) -> set[str]:
    """The prompts that are for validation; all rows of a prompt are on one side."""
    return {row.prompt for row, is_held in zip(rows, held, strict=True) if is_held}
