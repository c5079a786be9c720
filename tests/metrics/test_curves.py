import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import DataError
from routellm.metrics.curves import (
    Outcomes,
    apgr,
    auc,
    cpt,
    exact_curve,
    oracle_curve,
    pgr,
    published_curve,
)

# Six prompts. The gains of the strong model are 0, 1, 1, -1, 1, 0, so r(weak) = 2/6, r(strong) = 4/6, and the gap is 2/6.
TOY = Outcomes.of(strong=[1, 1, 1, 0, 1, 0], weak=[1, 0, 0, 1, 0, 0])
# From the highest score: gains 1, 1, -1, 1, 0, 0. Gained after 0, 1, ... 6 strong calls: 0, 1, 2, 1, 2, 2, 2 (of 2).
SCORES = [0.5, 0.9, 0.8, 0.7, 0.6, 0.4]


def test_toy_benchmark_worked_out_by_hand() -> None:
    curve = exact_curve(SCORES, TOY)
    assert curve.share == pytest.approx(np.arange(7) / 6)
    assert curve.quality * 6 == pytest.approx([2, 3, 4, 3, 4, 4, 4])
    # PGR: 0, 1/2, 1, 1/2, 1, 1, 1. Trapezoids of width 1/6: 1/4 + 3/4 + 3/4 + 3/4 + 1 + 1 = 9/2, over 6.
    assert apgr(curve) == pytest.approx(0.75)
    # The same trapezoids over quality: (2.5 + 3.5 + 3.5 + 3.5 + 4 + 4) / 6 / 6.
    assert auc(curve) == pytest.approx(21 / 36)
    # PGR first reaches .5 at one call of six; .8 lies 3/5 of the way from one to two; .2 is 2/5 of the way to one.
    assert cpt(curve, 0.5) == pytest.approx(1 / 6)
    assert cpt(curve, 0.8) == pytest.approx(1.6 / 6)
    assert cpt(curve, 0.2) == pytest.approx(0.4 / 6)


def test_toy_oracle_by_hand() -> None:
    # Gains in falling order: 1, 1, 1, 0, 0, -1; gained: 0, 1, 2, 3, 3, 3, 2 of 2; PGR 0, .5, 1, 1.5, 1.5, 1.5, 1.
    # Trapezoids: .25 + .75 + 1.25 + 1.5 + 1.5 + 1.25 = 6.5, over 6.
    assert apgr(oracle_curve(TOY)) == pytest.approx(6.5 / 6)


def test_published_protocol_has_the_edges_of_ten_bins() -> None:
    random = np.random.default_rng(0)
    outcomes = Outcomes.of(random.random(1000), random.random(1000) * 0.9)
    scores = random.permutation(1000) / 1000
    curve = published_curve(scores, outcomes)
    assert curve.share == pytest.approx(np.linspace(0, 1, 11), abs=0.0011)
    for share, quality in zip(curve.share, curve.quality, strict=True):
        strong = np.argsort(-scores)[: round(share * 1000)]
        picked = outcomes.weak.copy()
        picked[strong] = outcomes.strong[strong]
        assert quality == pytest.approx(picked.mean())


def test_tied_scores_go_together_and_crash_nothing() -> None:
    for curve in (exact_curve(np.full(6, 0.3), TOY), published_curve(np.full(6, 0.3), TOY)):
        assert curve.share.tolist() == [0, 1]
        assert apgr(curve) == pytest.approx(0.5)
        assert cpt(curve, 0.8) == pytest.approx(0.8)
    tied = exact_curve([0.9, 0.9, 0.9, 0.1, 0.1, 0.1], TOY)
    assert tied.share == pytest.approx([0, 0.5, 1])
    few = published_curve([0.9, 0.9, 0.9, 0.1, 0.1, 0.1], TOY)
    assert few.share == pytest.approx([0, 0.5, 1])


def test_equal_models_have_no_gap_to_recover() -> None:
    curve = exact_curve([0.1, 0.2], Outcomes.of([1, 0], [0, 1]))
    assert np.isnan(apgr(curve))
    assert np.isnan(cpt(curve, 0.5))
    assert np.isnan(pgr(curve.quality, curve)).all()
    assert np.isfinite(auc(curve))


def test_quality_that_falls_on_the_way_takes_the_first_crossing() -> None:
    # Gains 2, -2, 1: PGR 0, 2, 0, 1. Half is reached on the way to the first call, and again later.
    curve = exact_curve([0.9, 0.5, 0.1], Outcomes.of([2, 0, 1], [0, 2, 0]))
    assert cpt(curve, 0.5) == pytest.approx(0.25 / 3)


def test_one_prompt() -> None:
    curve = exact_curve([0.5], Outcomes.of([1], [0]))
    assert apgr(curve) == pytest.approx(0.5)
    assert published_curve([0.5], Outcomes.of([1], [0])).share.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("strong", "weak"), [([], []), ([1], [1, 0]), ([[1]], [[0]]), ([float("nan")], [0]), ([1], [float("inf")])]
)
def test_bad_qualities(strong: list[float], weak: list[float]) -> None:
    with pytest.raises(DataError):
        Outcomes.of(strong, weak)


@pytest.mark.parametrize("scores", [[0.1], [0.1, float("nan")], [[0.1, 0.2]]])
def test_bad_scores(scores: list[float]) -> None:
    with pytest.raises(DataError):
        exact_curve(scores, Outcomes.of([1, 0], [0, 0]))


qualities = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Outcomes]:
    pairs = draw(qualities)
    scores = draw(st.lists(st.integers(0, 20), min_size=len(pairs), max_size=len(pairs)))
    strong, weak = zip(*pairs, strict=True)
    return np.array(scores) / 20, Outcomes.of(strong, weak)


@given(cases())
def test_only_the_ranking_counts(case: tuple[np.ndarray, Outcomes]) -> None:
    scores, outcomes = case
    for make in (exact_curve, published_curve):
        one, other = make(scores, outcomes), make(np.exp(3 * scores) - 7, outcomes)
        if make is exact_curve:  # quantiles interpolate, so the ten-bin protocol keeps this only up to its edges
            assert one.share == pytest.approx(other.share)
            assert one.quality == pytest.approx(other.quality)
        assert one.weak == pytest.approx(outcomes.weak.mean())
        assert one.strong == pytest.approx(outcomes.strong.mean())


@given(cases())
def test_reversed_scores_mirror_the_curve(case: tuple[np.ndarray, Outcomes]) -> None:
    """What one router leaves to the weak model the other sends to the strong one, so both areas sum to that of the gap."""
    scores, outcomes = case
    one, other = exact_curve(scores, outcomes), exact_curve(-scores, outcomes)
    assert one.share == pytest.approx(1 - other.share[::-1])
    if one.strong != one.weak:
        assert apgr(one) + apgr(other) == pytest.approx(1.0)


@given(cases())
def test_no_router_beats_the_oracle(case: tuple[np.ndarray, Outcomes]) -> None:
    scores, outcomes = case
    curve, oracle = exact_curve(scores, outcomes), oracle_curve(outcomes)
    assert (curve.quality <= oracle.at(curve.share) + 1e-9).all()


@given(cases(), st.floats(0.05, 1.0))
def test_cpt_is_where_pgr_is_reached_and_not_before(case: tuple[np.ndarray, Outcomes], target: float) -> None:
    scores, outcomes = case
    curve = exact_curve(scores, outcomes)
    if curve.strong == curve.weak:
        return
    share = cpt(curve, target)
    assert pgr(curve.at(share), curve) == pytest.approx(target, abs=1e-6)
    before = curve.share < share - 1e-9
    assert (pgr(curve.quality[before], curve) < target).all()
