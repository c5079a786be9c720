import pytest

from routellm.evals.records import plain, shown
from routellm.metrics.bootstrap import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.524, ".524"), (-0.0551, "-.055"), (0.9999, "1.000"), (1.285, "1.285"), (10.05, "10.050"), (float("nan"), "nan")],
)
def test_numbers_lose_the_zero_before_the_point_and_nothing_else(value: float, text: str) -> None:
    assert plain(value) == text


def test_an_interval_is_shown_where_it_is_known() -> None:
    assert shown(Interval(0.5, 0.4, 0.6)) == ".500 [.400, .600]"
    assert shown(Interval(0.5, 0.4, 0.6), 1, 100) == "50.0 [40.0, 60.0]"
    assert shown(Interval(0.5, float("nan"), float("nan"))) == ".500"
