"""The fit on collapsed battles against logistic regression over the battles themselves, and tiers against brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from routellm.routers.bradley_terry import RIDGE, count_wins, fit_ratings, group_into_tiers

Floats = NDArray[np.float64]


def random_battles(seed: int, battles: int, models: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """Who met whom, half points (0, 0.5, 1) of the first, and weights from 1 to 100."""
    random = np.random.default_rng(seed)
    first = random.integers(0, models, battles)
    second = (first + random.integers(1, models, battles)) % models
    strength = np.linspace(-1.0, 1.0, models)
    won = (random.random(battles) < 1 / (1 + np.exp(strength[second] - strength[first]))).astype(np.float64)
    won[random.random(battles) < 0.2] = 0.5
    return first, second, won, 10 ** random.uniform(0.0, 2.0, battles)


def logistic_regression(
    first: NDArray[np.intp], second: NDArray[np.intp], score: Floats, weight: Floats, models: int, ridge: float
) -> Floats:
    """The plain way: one row a battle, +1 for the one model and -1 for the other, Newton on the penalised loss of all rows."""
    design = np.zeros((len(first), models))
    design[np.arange(len(first)), first] = 1.0
    design[np.arange(len(first)), second] = -1.0
    coefficients = np.zeros(models)
    for _ in range(60):
        expected = 1.0 / (1.0 + np.exp(-design @ coefficients))
        gradient = design.T @ (weight * (score - expected)) - ridge * coefficients
        hessian = (design * (weight * expected * (1.0 - expected))[:, None]).T @ design + ridge * np.eye(models)
        coefficients += 0.5 * np.linalg.solve(hessian, gradient)
    assert np.abs(gradient).max() < 1e-7
    return coefficients


@pytest.mark.parametrize("ridge", [RIDGE, 1e-3])
def test_equals_logistic_regression_over_all_battles(ridge: float) -> None:
    for seed in range(5):
        first, second, score, weight = random_battles(seed, 3000, 8)
        wins = count_wins(first, second, weight * score, weight * (1.0 - score), 8)
        plain = logistic_regression(first, second, score, weight, 8, ridge)
        assert np.abs(fit_ratings(wins[None], ridge)[0] - plain).max() < 1e-6


def test_equals_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    first, second, score, weight = random_battles(9, 2000, 6)
    rows = np.zeros((2000, 6))
    rows[np.arange(2000), first], rows[np.arange(2000), second] = 1.0, -1.0
    # A tie is half a win for each side: one row each.
    design, label = np.vstack((rows, rows)), np.repeat([1, 0], 2000)
    parts = np.concatenate((weight * score, weight * (1.0 - score)))
    model = linear_model.LogisticRegression(fit_intercept=False, C=1.0, solver="newton-cholesky", tol=1e-12)
    model.fit(design[parts > 0], label[parts > 0], sample_weight=parts[parts > 0])
    wins = count_wins(first, second, weight * score, weight * (1.0 - score), 6)
    assert np.abs(fit_ratings(wins[None])[0] - model.coef_[0]).max() < 1e-6


def test_two_sides_without_a_penalty_to_speak_of_have_the_odds_of_their_wins() -> None:
    ratings = fit_ratings(np.array([[[0.0, 30.0], [10.0, 0.0]]]), ridge=1e-9)[0]
    assert ratings[0] - ratings[1] == pytest.approx(np.log(3.0), abs=1e-9)
    assert ratings.sum() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("weight", [1e-300, 1.0, 1e6, 1e12])
def test_a_side_that_only_won_gets_a_finite_rating_at_the_optimum(weight: float) -> None:
    high, low = fit_ratings(np.array([[[0.0, weight], [0.0, 0.0]]]))[0]
    assert high == pytest.approx(-low)
    # The gradient is 0: what the wins pull is what the penalty holds.
    assert weight / (1.0 + np.exp(high - low)) == pytest.approx(RIDGE * high, rel=1e-6)


def test_sides_that_never_met_and_no_battles_at_all() -> None:
    apart = np.zeros((1, 4, 4))
    apart[0, 0, 1], apart[0, 1, 0], apart[0, 2, 3], apart[0, 3, 2] = 3e5, 1e5, 1e5, 2e5
    ratings = fit_ratings(apart)[0]
    assert ratings[0] - ratings[1] == pytest.approx(np.log(3.0), abs=1e-4)
    assert ratings[3] - ratings[2] == pytest.approx(np.log(2.0), abs=1e-4)
    assert ratings[0] + ratings[1] == pytest.approx(0.0, abs=1e-6)
    assert fit_ratings(np.zeros((2, 3, 3))).tolist() == [[0.0] * 3] * 2
    assert fit_ratings(np.zeros((0, 3, 3))).shape == (0, 3)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 12), many=st.integers(1, 12))
def test_many_at_once_equal_each_alone_to_the_bit(seed: int, size: int, many: int) -> None:
    random = np.random.default_rng(seed)
    wins = random.exponential(1.0, (many, size, size)) * 10 ** random.uniform(-3, 6, (many, 1, 1))
    wins[random.random(wins.shape) < 0.5] = 0.0
    together = fit_ratings(wins)
    assert np.isfinite(together).all()
    assert all((together[row] == fit_ratings(wins[row : row + 1])[0]).all() for row in range(many))


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 10))
def test_the_gradient_is_zero_wherever_the_data_lie(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    wins = random.exponential(1.0, (size, size)) * 10 ** random.uniform(-3, 6)
    wins[random.random(wins.shape) < 0.7] = 0.0
    ratings = fit_ratings(wins[None])[0]
    expected = 1.0 / (1.0 + np.exp(ratings[None, :] - ratings[:, None]))
    gradient = (wins - (wins + wins.T) * expected).sum(axis=1) - RIDGE * ratings
    assert np.abs(gradient).max() < 1e-6 * max(1.0, wins.max())


def test_ties_count_half_for_each() -> None:
    wins = count_wins(np.array([0, 1]), np.array([1, 2]), np.array([0.5, 2.0]), np.array([0.5, 0.0]), 3)
    assert wins.tolist() == [[0.0, 0.5, 0.0], [0.5, 0.0, 2.0], [0.0, 0.0, 0.0]]


def least_cost(ratings: Floats, count: int) -> float:
    """The least sum of squares of all ways to cut the sorted ratings."""
    values = np.sort(ratings)
    cuts = combinations(range(1, len(values)), count - 1)
    return min(sum(((g - g.mean()) ** 2).sum() for g in np.split(values, list(cut))) for cut in cuts)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_tiers_have_the_least_variance_of_all_cuts(count: int) -> None:
    for seed in range(20):
        ratings = np.random.default_rng(seed).normal(0.0, 2.0, 9)
        tiers = group_into_tiers(ratings, count)
        assert sorted(set(tiers.tolist())) == list(range(count))
        cost = sum(((ratings[tiers == tier] - ratings[tiers == tier].mean()) ** 2).sum() for tier in range(count))
        assert cost == pytest.approx(least_cost(ratings, count))
        assert (np.diff(tiers[np.argsort(ratings)]) >= 0).all()


def test_tiers_of_clear_groups_and_of_fewer_models_than_tiers() -> None:
    assert group_into_tiers(np.array([5.0, 0.1, 0.0, 5.2, -9.0]), 3).tolist() == [2, 1, 1, 2, 0]
    assert group_into_tiers(np.array([2.0, 1.0, 3.0]), 10).tolist() == [1, 0, 2]
    assert group_into_tiers(np.array([1.0, 1.0, 1.0]), 2).max() == 1
