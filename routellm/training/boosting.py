"""Gradient-boosted oblivious trees for squared loss, on few rows and few features, in numpy.

An oblivious tree asks the same question at every node of a level, so that a tree of depth d is d questions and a table of 2**d
values. It overfits less than a free tree, and serving all trees at once is one gather, one comparison and one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.routers.parts import Trees

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """Settings of the boosting.

    Attributes:
        trees, depth, rate: how many trees, how many questions each, and how much of a tree's fit is taken.
        penalty: added to the rows of a leaf, so that small leaves say little.
        rows, columns: the share of rows and of features that each tree sees.
        bins: thresholds of a feature are edges between so many quantile bins.
    """

    trees: int = 120
    depth: int = 3
    rate: float = 0.05
    penalty: float = 15.0
    rows: float = 0.55
    columns: float = 0.3
    bins: int = 24


def joined(several: Sequence[Trees]) -> Trees:
    """Trees whose sum is the mean of the given ones' sums."""
    return Trees(
        np.concatenate([trees.feature for trees in several], axis=1),
        np.concatenate([trees.threshold for trees in several], axis=1),
        (np.concatenate([trees.value for trees in several]) / len(several)).astype(np.float32),
    )


def fit_trees(rows: Vector, target: Floats, settings: TreeSettings, seed: int) -> Trees:
    """Fit to `target`, shape (n,), less its mean; `rows` is float32, shape (n, features)."""
    draw = np.random.default_rng(seed)
    edges = [np.unique(np.quantile(column, np.linspace(0, 1, settings.bins + 1)[1:-1], method="lower")) for column in rows.T]
    codes = np.stack([np.searchsorted(edge, column) for edge, column in zip(edges, rows.T, strict=True)], axis=1)
    varied = np.flatnonzero(codes.max(axis=0) > codes.min(axis=0))
    n_columns = max(1, round(settings.columns * len(varied)))
    powers = 2 ** np.arange(settings.depth)[::-1]
    features = np.zeros((settings.depth, settings.trees), dtype=np.int16)
    thresholds = np.zeros((settings.depth, settings.trees), dtype=np.float32)
    values = np.zeros((settings.trees, 2**settings.depth), dtype=np.float32)
    rest = target - target.mean()
    for tree in range(settings.trees if len(varied) else 0):
        seen = np.flatnonzero(draw.random(len(rows)) < settings.rows)
        columns = draw.choice(varied, n_columns, replace=False)
        questions, value = _grow(codes[np.ix_(seen, columns)], rest[seen], settings)
        for level, (column, cut) in enumerate(questions):
            features[level, tree] = columns[column]
            thresholds[level, tree] = edges[columns[column]][cut]
        values[tree] = settings.rate * value
        rest -= values[tree][(rows[:, features[:, tree]] > thresholds[:, tree]) @ powers]
    return Trees(features, thresholds, values)


def _grow(codes: NDArray[np.intp], rest: Floats, settings: TreeSettings) -> tuple[list[tuple[int, int]], Floats]:
    """One tree on binned columns: its questions as (column, last bin that answers no), and the values of its leaves."""
    n_columns, bins = codes.shape[1], settings.bins
    leaf = np.zeros(len(codes), dtype=np.intp)
    repeated = np.repeat(rest, n_columns)
    questions = []
    for level in range(settings.depth):
        shape = (2**level, n_columns, bins)
        cell = ((leaf[:, None] * n_columns + np.arange(n_columns)) * bins + codes).ravel()
        count = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
        total = np.bincount(cell, repeated, minlength=int(np.prod(shape))).reshape(shape)
        below, under = count.cumsum(axis=2)[:, :, :-1], total.cumsum(axis=2)[:, :, :-1]
        above, over = count.sum(axis=2, keepdims=True) - below, total.sum(axis=2, keepdims=True) - under
        gain = (under**2 / (below + settings.penalty) + over**2 / (above + settings.penalty)).sum(axis=0)
        # Where a column has fewer bins, its last cuts part nothing.
        gain[below.sum(axis=0) == len(codes)] = -np.inf
        column, cut = np.unravel_index(int(np.argmax(gain)), gain.shape)
        questions.append((int(column), int(cut)))
        leaf = 2 * leaf + (codes[:, column] > cut)
    leaves = 2**settings.depth
    value = np.bincount(leaf, rest, leaves) / (np.bincount(leaf, minlength=leaves) + settings.penalty)
    return questions, value
