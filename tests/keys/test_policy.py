from __future__ import annotations

from typing import Any

import pytest

from routellm.errors import KeyNotAllowedError
from routellm.keys.policy import KeyPolicy, nanodollars
from routellm.types import Decision

POLICY = KeyPolicy(routers=("mf",), models=("openai/small",), threshold_min=0.2, threshold_max=0.8)


def routed(router: str = "mf", threshold: float = 0.5) -> Decision:
    return Decision("openai/big", "threshold", router, threshold, 0.7)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_what_is_allowed_passes(threshold: float) -> None:
    POLICY.check(routed(threshold=threshold))
    POLICY.check(Decision("openai/small", "pinned"))


@pytest.mark.parametrize(
    ("decision", "code", "text"),
    [
        (routed("random"), "router_not_allowed", "the router 'random'. Allowed: mf."),
        (routed(threshold=0.1999), "threshold_not_allowed", "the threshold '0.1999'. Allowed: from 0.2 to 0.8, as in"),
        (routed(threshold=0.81), "threshold_not_allowed", "router-mf-0.2"),
        (Decision("openai/big", "pinned"), "model_not_allowed", "the model 'openai/big'. Allowed: openai/small."),
        (Decision("openai/big", "no-text", "mf", 0.0), "threshold_not_allowed", "the threshold '0'"),
    ],
)
def test_what_is_not_is_refused_and_never_moved(decision: Decision, code: str, text: str) -> None:
    with pytest.raises(KeyNotAllowedError) as caught:
        POLICY.check(decision)
    assert (caught.value.status, caught.value.code) == (403, code)
    assert text in str(caught.value)


def test_an_empty_list_allows_none_and_none_allows_all() -> None:
    with pytest.raises(KeyNotAllowedError, match="Allowed: none"):
        KeyPolicy(models=()).check(Decision("openai/small", "pinned"))
    KeyPolicy().check(Decision("any", "pinned"))
    KeyPolicy().check(routed("any", 0.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold_min": 1.5}, "threshold_min is 1.5; it must be from 0 to 1"),
        ({"threshold_max": float("nan")}, "threshold_max is nan"),
        ({"threshold_min": 0.6, "threshold_max": 0.4}, "no threshold would be allowed"),
        ({"requests_per_minute": 0}, "requests_per_minute is 0; it must be from 1 to"),
        ({"dollars_per_day": -1.0}, "dollars_per_day is -1.0"),
    ],
)
def test_bounds_out_of_range_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeyPolicy(**given)


def test_dollars_are_taken_as_they_are_written() -> None:
    assert [nanodollars(value) for value in (0.1, 0.3, 19.99, 100_000_000.0)] == [
        100_000_000, 300_000_000, 19_990_000_000, 10**17,
    ]  # fmt: skip
