from collections import Counter

from routellm.training.preferences import Preference, describe_dropped


def test_turned_is_the_same_comparison_from_the_other_side() -> None:
    row = Preference("p", "a", "b", "first", "s", 0.25)
    assert row.turned() == Preference("p", "b", "a", "second", "s", 0.25)
    assert row.turned().turned() == row
    assert Preference("p", "a", "b", "tie", "s").turned().outcome == "tie"


def test_what_was_left_out_is_told_with_the_most_frequent_reason_first() -> None:
    lines = list(describe_dropped(Counter({"no prompt": 2, "no label": 1500})))
    assert lines == ["left out 1,500 rows: no label", "left out 2 rows: no prompt"]
