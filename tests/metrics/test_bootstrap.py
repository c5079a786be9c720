import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.metrics.bootstrap import Interval, _Plan, draw_counts, resample
from routellm.metrics.curves import Outcomes, apgr, auc, cpt, exact_curve

TARGETS = (0.2, 0.5, 0.8)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Outcomes, np.ndarray]:
    """Scores (often tied), outcomes, and how often each prompt was drawn."""
    n = draw(st.integers(2, 25))
    numbers = st.lists(st.integers(0, 6), min_size=n, max_size=n)
    grade = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=n, max_size=n)
    counts = np.bincount(draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n)), minlength=n)
    return np.array(draw(numbers)) / 6, Outcomes.of(draw(grade), draw(grade)), counts


@given(cases())
def test_a_resamples_metrics_equal_those_of_the_drawn_prompts(case: tuple[np.ndarray, Outcomes, np.ndarray]) -> None:
    scores, outcomes, counts = case
    rows = np.repeat(np.arange(len(scores)), counts)
    found = _Plan.of(scores, outcomes).metrics(counts[None, :].astype(float), TARGETS)[:, 0]
    curve = exact_curve(scores[rows], outcomes.take(rows))
    if abs(curve.strong - curve.weak) < 1e-12:
        return
    expected = [apgr(curve), auc(curve), curve.strong - curve.weak, *(cpt(curve, target) for target in TARGETS)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_flat_curve_that_reaches_a_target_to_the_digit_is_there() -> None:
    """Gains 0.1, 0, ..., 0.1: half of the gap is reached at the first prompt, and rounding must not wait for the last."""
    scores = np.arange(10.0)[::-1]
    for gain in (0.1, 0.3, 0.7):
        outcomes = Outcomes.of([gain + 0.2, *[0.2] * 8, gain + 0.2], [0.2] * 10)
        found = _Plan.of(scores, outcomes).metrics(np.ones((1, 10)), (0.5,))[3, 0]
        assert found == pytest.approx(0.1)
        assert cpt(exact_curve(scores, outcomes), 0.5) == pytest.approx(0.1)


def test_every_resample_draws_n_prompts_and_the_seed_fixes_them() -> None:
    one = np.concatenate(list(draw_counts(30, 120, seed=3)))
    assert one.shape == (120, 30)
    assert (one.sum(axis=1) == 30).all()
    assert (one == np.concatenate(list(draw_counts(30, 120, seed=3)))).all()
    assert not (one == np.concatenate(list(draw_counts(30, 120, seed=4)))).all()


def planted(n: int, seed: int, skill: float) -> tuple[np.ndarray, Outcomes]:
    random = np.random.default_rng(seed)
    hard = random.random(n)
    weak = (random.random(n) > hard).astype(float)
    return skill * hard + random.random(n), Outcomes.of(np.ones(n), weak)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = apgr(exact_curve(*planted(200_000, 0, 0.5)))
    covered = 0
    for seed in range(1, 101):
        scores, outcomes = planted(200, seed, 0.5)
        interval = Interval.of(0.0, resample({"r": [scores]}, outcomes, (), 300, seed)["r"].apgr)
        covered += interval.low <= truth <= interval.high
    assert 87 <= covered <= 100  # 95 expected; a binomial of 100 lies below 87 once in a thousand


def test_pairs_share_their_draws_so_the_difference_is_surer_than_either() -> None:
    scores, outcomes = planted(500, 0, 1.0)
    near = scores + np.random.default_rng(1).normal(0, 0.05, 500)
    samples = resample({"a": [scores], "b": [near]}, outcomes, TARGETS, 300)
    assert (samples["a"].apgr - samples["b"].apgr).std() < 0.5 * samples["a"].apgr.std()


def test_several_runs_are_averaged() -> None:
    scores, outcomes = planted(100, 0, 1.0)
    one = resample({"x": [scores]}, outcomes, TARGETS, 50)["x"].apgr
    other = resample({"x": [-scores]}, outcomes, TARGETS, 50)["x"].apgr
    both = resample({"x": [scores, -scores]}, outcomes, TARGETS, 50)["x"].apgr
    assert both == pytest.approx((one + other) / 2)


def test_no_gap_gives_no_interval() -> None:
    samples = resample({"x": [np.arange(5) / 5]}, Outcomes.of(np.ones(5), np.ones(5)), TARGETS, 20)["x"]
    interval = Interval.of(float("nan"), samples.apgr)
    assert np.isnan([interval.low, interval.high]).all()
    assert np.isnan(samples.cpt[0.5]).all()
