import numpy as np
import pytest

from routellm.metrics import curves
from routellm.metrics.curves import Outcomes, exact_curve
from routellm.routers.battles import Outcome
from routellm.training.preferences import Preference
from routellm.training.validation import Votes, apgr, auc, by_source

ZERO = np.zeros(4)


def test_auc_by_hand() -> None:
    # Scores of the won prompts .9 and .5, of the lost ones .5 and .1: of four pairs three are right and one ties.
    scores, won, lost = np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1, 0, 0]), np.array([0.0, 0, 1, 1])
    assert auc(scores, Votes(won, lost, ZERO)) == pytest.approx(3.5 / 4)
    assert auc(-scores, Votes(won, lost, ZERO)) == pytest.approx(0.5 / 4)
    assert auc(scores, Votes(won * 7, lost * 3, ZERO)) == pytest.approx(3.5 / 4)


def test_a_prompts_weight_counts_as_often_as_it_says() -> None:
    scores, votes = np.array([0.9, 0.5, 0.4]), Votes(np.array([1.0, 0, 2]), np.array([0.0, 1, 0]), ZERO[:3])
    repeated = np.array([0.9, 0.5, 0.4, 0.4])
    several = Votes(np.array([1.0, 0, 1, 1]), np.array([0.0, 1, 0, 0]), ZERO)
    assert auc(scores, votes) == pytest.approx(auc(repeated, several))
    assert apgr(scores, votes) == pytest.approx(apgr(repeated, several))


def test_apgr_is_that_of_the_evaluation() -> None:
    random = np.random.default_rng(0)
    scores = random.random(300).round(1)  # with many ties
    strong, weak = random.integers(0, 2, 300) * 1.0, random.integers(0, 3, 300) // 2 * 1.0
    votes = Votes((strong > weak) * 1.0, (strong < weak) * 1.0, (strong == weak) * 1.0)
    assert apgr(scores, votes) == pytest.approx(curves.apgr(exact_curve(scores, Outcomes.of(strong, weak))))


def test_there_is_no_apgr_where_the_strong_model_is_no_better_and_no_auc_without_both_kinds() -> None:
    scores, one = np.array([0.1, 0.2]), np.ones(2)
    assert np.isnan(auc(scores, Votes(one * 0, one, one * 0)))
    assert np.isnan(apgr(scores, Votes(one * 0, one, one * 0)))
    assert apgr(scores, Votes(one, one * 0, one * 0)) == pytest.approx(0.5)


def test_shares_that_cancel_out_but_for_rounding_give_no_apgr() -> None:
    won, lost = np.array([0.1, 0.2, 0.3, 0.0]), np.array([0.0, 0.0, 0.0, 0.6])
    assert won.sum() != lost.sum(), "the case is about what rounding leaves"
    rows = [Preference(f"p{n}", "strong", "weak", "first", "even", weight) for n, weight in enumerate(won[:3])]
    rows.append(Preference("p3", "strong", "weak", "second", "even", 0.6))
    found = by_source(rows, {row.prompt: n / 4 for n, row in enumerate(rows)}, seed=0)
    assert "auc" in found["even"]
    assert "apgr" not in found["even"]


def rows(source: str, outcomes: list[Outcome]) -> list[Preference]:
    return [Preference(f"{source} {number}", "strong", "weak", outcome, source) for number, outcome in enumerate(outcomes)]


def test_each_source_has_its_own_values_and_intervals() -> None:
    good = rows("good", ["first", "second"] * 50)
    chance = rows("chance", ["first", "first", "second"] * 40)
    ties = rows("ties", ["tie"] * 5)
    random = np.random.default_rng(1)
    scores = {row.prompt: float(random.random()) for row in [*chance, *ties]}
    scores |= {row.prompt: float(random.normal(2.0 if row.outcome == "first" else 0.0)) for row in good}
    found = by_source([*good, *chance, *ties], scores, seed=0)
    assert list(found) == ["chance", "good", "ties"]
    assert found["ties"] == {"prompts": 5}
    assert found["chance"]["prompts"] == 120
    value, low, high = found["chance"]["auc"]
    assert low < value < high
    assert 0.15 < high - low < 0.3  # four standard errors, sqrt((40 + 80) / (12 * 40 * 80)) = .056 each
    value, low, high = found["good"]["auc"]
    assert 0.8 < low < value < high < 1.0
    assert "apgr" not in found["good"]  # as many lost as won
    assert found == by_source([*good, *chance, *ties], scores, seed=0)
