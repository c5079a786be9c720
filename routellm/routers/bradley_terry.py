"""Weighted Bradley-Terry models on collapsed battles: the mathematics of `sw_ranking` (paper, section 4.2).

    P(i beats j) = sigmoid(r_i - r_j) = 1 / (1 + 10^((R_j - R_i) / 400)),    R = 400 / ln 10 * r on the Elo scale

The likelihood depends on battles only through the total weight with which i beat j, so any number of them collapses into an
n x n matrix of wins, a tie being half a win for each side. The optimum is that of a logistic regression without intercept over
all battles, with n unknowns in place of a pass over the data. Many such matrices, one for each prompt, are fitted at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE = 1.0
"""The penalty RIDGE / 2 * |r|^2, as scikit-learn's `LogisticRegression` has it with C = 1. Without one, a side that only ever
won or only ever lost has no finite rating, and sides that never met can't be compared. Against the weight of 10 to 100 that a
single battle has in `sw_ranking` it is next to nothing."""

_TOLERANCE = 1e-8  # of the last Newton step; steps shrink quadratically, so that the error left is far below it
_MOST_STEPS = 100


def fit_ratings(wins: Floats, ridge: float = RIDGE) -> Floats:
    """Ratings of highest penalised likelihood.

    Args:
        wins: float64, shape (queries, n, n): in each matrix, the weight with which row i beat column j, not negative.
        ridge: of the penalty, over 0.

    Returns:
        float64, shape (queries, n), in natural units; each row sums to 0. A row depends on its own matrix alone, to the bit.
    """
    ratings = np.zeros(wins.shape[:2])
    active = np.arange(len(wins))
    for _ in range(_MOST_STEPS):
        step = _newton_step(wins[active], ratings[active], ridge)
        spread = step.max(axis=1) - step.min(axis=1)
        # Along a step by which no difference of ratings moves faster than D = `spread`, the curvature grows at most by
        # exp(D t), so the penalised likelihood rises all the way to t = ln(1 + D) / D. Near the optimum that is a full step.
        ratings[active] += step * (np.log1p(spread) / np.maximum(spread, 1e-300))[:, None]
        active = active[spread > _TOLERANCE]
        if len(active) == 0:
            break
    return ratings


def _newton_step(wins: Floats, ratings: Floats, ridge: float) -> Floats:
    lost = np.ascontiguousarray(wins.transpose(0, 2, 1))  # one layout, so that sums of one and of many round alike
    with np.errstate(over="ignore"):  # a probability of 0
        expected = 1.0 / (1.0 + np.exp(ratings[:, None, :] - ratings[:, :, None]))
    unexpected = np.ascontiguousarray(expected.transpose(0, 2, 1))  # not 1 - expected, which would round to 0
    gradient = (wins * unexpected - lost * expected).sum(axis=2) - ridge * ratings
    information = (wins + lost) * expected * unexpected
    diagonal = information.sum(axis=2) + ridge
    size = wins.shape[1]
    # Ratings sum to 0, so a constant added to every entry changes nothing but rounding, where weights are far over the ridge.
    hessian = (diagonal.max(axis=1) / size)[:, None, None] - information
    hessian[:, np.arange(size), np.arange(size)] += diagonal
    step: Floats = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    step -= step.mean(axis=1, keepdims=True)
    return step


def count_wins(first: NDArray[np.intp], second: NDArray[np.intp], won: Floats, lost: Floats, size: int) -> Floats:
    """Collapse battles into wins, float64, shape (size, size).

    Args:
        first, second: shape (battles,): who met whom.
        won, lost: float64, shape (battles,): the weight with which the first, and with which the second, won.
    """
    wins = np.bincount(first * size + second, won, size * size) + np.bincount(second * size + first, lost, size * size)
    return np.asarray(wins).reshape(size, size)


def group_into_tiers(ratings: Floats, count: int) -> NDArray[np.intp]:
    """Tiers of least variance within: those consecutive groups of the sorted ratings whose squared distances to their group's
    mean have the least sum, by dynamic programming.

    Args:
        ratings: shape (n,), in any order.
        count: the number of tiers; where there are fewer models, each is a tier of its own.

    Returns:
        The tier of each model, shape (n,), from 0, the lowest.
    """
    order = np.argsort(ratings, kind="stable")
    size, count = len(ratings), min(count, len(ratings))
    values = ratings[order] - ratings.mean()
    sums, squares = (np.concatenate(([0.0], np.cumsum(values**power))) for power in (1, 2))
    # least[m]: the cost of the best split of the first m ratings; one tier more each round.
    least = np.concatenate(([0.0], np.full(size, np.inf)))
    starts = np.zeros((count, size + 1), dtype=np.intp)
    for tier in range(count):
        best = np.full(size + 1, np.inf)
        for end in range(tier + 1, size + 1):
            begin = np.arange(tier, end)
            cost = squares[end] - squares[begin] - (sums[end] - sums[begin]) ** 2 / (end - begin)
            total = least[begin] + np.maximum(cost, 0.0)
            chosen = int(np.argmin(total))
            best[end], starts[tier, end] = total[chosen], begin[chosen]
        least = best
    tiers = np.empty(size, dtype=np.intp)
    stop = size
    for tier in reversed(range(count)):
        start = int(starts[tier, stop])
        tiers[order[start:stop]] = tier
        stop = start
    return tiers
