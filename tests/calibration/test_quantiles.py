from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.calibration.quantiles import ScoreQuantiles, threshold_for_share
from routellm.errors import DataError, RequestError

scores = st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.5, 1 / 3, 2 / 3, 1.0]), min_size=1, max_size=60)
shares = st.floats(0.0, 1.0)


def share_reached(values: list[float], threshold: float) -> float:
    return sum(value >= threshold for value in values) / len(values)


@given(scores, shares)
def test_the_achieved_share_is_what_the_threshold_really_gives(values: list[float], share: float) -> None:
    found = threshold_for_share(values, share)
    assert found.achieved == pytest.approx(share_reached(values, found.threshold))
    assert found.threshold == round(found.threshold, 5)
    assert 0.0 <= found.threshold <= 1.0


@given(scores, shares)
def test_no_threshold_of_so_many_places_comes_nearer(values: list[float], share: float) -> None:
    found = threshold_for_share(values, share, decimals=2)
    best = min(abs(share_reached(values, step / 100) - share) for step in range(101))
    assert abs(found.achieved - share) == pytest.approx(best)


@given(scores, shares)
def test_the_order_of_the_scores_does_not_matter(values: list[float], share: float) -> None:
    assert threshold_for_share(values, share) == threshold_for_share(values[::-1], share)


def test_distinct_scores_give_the_wanted_share_at_a_score_itself() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert [threshold_for_share(values, share).threshold for share in (1.0, 0.5, 0.3, 0.1)] == [0.1, 0.6, 0.8, 1.0]


def test_where_scores_tie_the_nearest_share_is_taken_and_told() -> None:
    found = threshold_for_share([0.2, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9], 0.7)
    assert found.achieved in (0.5, 0.9)
    found = threshold_for_share([0.4] * 10, 0.3)
    assert (found.achieved, found.threshold > 0.4) == (0.0, True)
    found = threshold_for_share([0.4] * 10, 0.8)
    assert (found.achieved, found.threshold <= 0.4) == (1.0, True)


def test_rounding_does_not_lose_scores_that_tie_between_two_thresholds() -> None:
    values = [2 / 3] * 3 + [0.9] * 7  # 0.66667 lies above two thirds
    assert threshold_for_share(values, 1.0).achieved == 1.0


def test_nothing_reaches_the_strong_model_just_above_the_highest_score() -> None:
    found = threshold_for_share([0.1, 0.4], 0.0)
    assert (found.threshold, found.achieved) == (0.40001, 0.0)


@pytest.mark.parametrize("values", [[], [[0.1, 0.2]], [0.5, math.nan], [0.5, 1.1], [-0.1], [math.inf]])
def test_what_are_no_scores_is_refused(values: list[float]) -> None:
    with pytest.raises(DataError):
        threshold_for_share(values, 0.5)
    with pytest.raises(DataError):
        ScoreQuantiles.of(values, "x")


@pytest.mark.parametrize("share", [-0.1, 1.1, 50.0, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(RequestError, match="must lie from 0 to 1"):
        threshold_for_share([0.5], share)
    with pytest.raises(RequestError, match="must lie from 0 to 1"):
        ScoreQuantiles.of([0.1, 0.5], "x").threshold_for_share(share)


# Quantiles in place of the scores


def test_quantiles_keep_their_source_and_count() -> None:
    quantiles = ScoreQuantiles.of(np.linspace(0.0, 1.0, 500), "made-up scores", points=11)
    assert (quantiles.source, quantiles.prompts, len(quantiles.values)) == ("made-up scores", 500, 11)
    assert quantiles.values == pytest.approx([i / 10 for i in range(11)])


def test_quantiles_give_nearly_the_thresholds_of_the_scores_themselves() -> None:
    values = np.random.default_rng(0).beta(2.0, 5.0, 20_000)
    quantiles = ScoreQuantiles.of(values, "beta")
    for share in (0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0):
        by_quantiles, by_scores = quantiles.threshold_for_share(share), threshold_for_share(values, share)
        assert share_reached(values.tolist(), by_quantiles.threshold) == pytest.approx(share, abs=0.001)
        if 0.01 <= share <= 0.99:
            assert by_quantiles.threshold == pytest.approx(by_scores.threshold, abs=0.003)
        assert by_quantiles.achieved == pytest.approx(share, abs=0.001)


def test_uniform_quantiles_give_one_minus_the_share() -> None:
    uniform = ScoreQuantiles(tuple(i / 1000 for i in range(1001)), "uniform", 0)
    for share in (0.0, 0.2, 0.5, 0.12345, 1.0):
        found = uniform.threshold_for_share(share)
        assert found.threshold == pytest.approx(1.0 - share, abs=1e-5)
        assert found.achieved == pytest.approx(share, abs=1e-5)


@given(scores, shares)
def test_tied_quantiles_tell_the_share_that_is_really_reached(values: list[float], share: float) -> None:
    quantiles = ScoreQuantiles.of(values, "x", points=101)
    found = quantiles.threshold_for_share(share)
    assert found.achieved == pytest.approx(quantiles.share_at(found.threshold))
    assert 0.0 <= found.achieved <= 1.0


def test_a_plateau_of_quantiles_is_taken_whole_or_not_at_all() -> None:
    quantiles = ScoreQuantiles.of([0.2] * 40 + [0.6] * 60, "two scores")
    assert quantiles.threshold_for_share(0.5).achieved == pytest.approx(0.6, abs=0.01)
    assert quantiles.threshold_for_share(0.5).threshold == 0.6
    assert quantiles.threshold_for_share(0.1).achieved == pytest.approx(0.0, abs=0.01)
    assert quantiles.threshold_for_share(0.9).achieved == pytest.approx(1.0)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=30))
def test_the_share_falls_as_the_threshold_rises(values: list[float]) -> None:
    quantiles = ScoreQuantiles.of(values, "x", points=21)
    reached = [quantiles.share_at(step / 50) for step in range(51)]
    assert reached == sorted(reached, reverse=True)
    assert quantiles.share_at(0.0) == 1.0
