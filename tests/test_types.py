from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import ConfigError, RequestError
from routellm.types import Decision, ModelPair, check_threshold


@given(st.floats(0.0, 1.0))
def test_a_threshold_in_range_comes_back_as_it_is(value: float) -> None:
    assert check_threshold(value) == value


@pytest.mark.parametrize("value", [0, 1])
def test_whole_numbers_are_thresholds_too(value: int) -> None:
    assert check_threshold(value) == value
    assert isinstance(check_threshold(value), float)


@pytest.mark.parametrize("value", [-0.001, 1.001, 50, math.nan, math.inf, -math.inf, 10**400])
def test_a_number_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(RequestError, match=r"must lie from 0 \(always strong\) to 1") as caught:
        check_threshold(value, param="model")
    assert (caught.value.param, caught.value.code, caught.value.status) == ("model", "invalid_threshold", 400)


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], b"0"])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="must be a number from 0 to 1"):
        check_threshold(value)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
@pytest.mark.parametrize("role", ["strong", "weak"])
def test_a_pair_needs_two_names(role: str, name: object) -> None:
    names = {"strong": "a", "weak": "b", role: name}
    with pytest.raises(ConfigError, match=f"The {role} model's name is"):
        ModelPair(**names)  # type: ignore[arg-type]


def test_values_are_frozen_and_a_decision_is_json() -> None:
    decision = Decision("gpt-4o", "threshold", "mf", 0.5, 0.75, 12.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.model = "other"  # type: ignore[misc]
    assert json.loads(json.dumps(decision.as_dict())) == {
        "model": "gpt-4o",
        "reason": "threshold",
        "router": "mf",
        "threshold": 0.5,
        "win_rate": 0.75,
        "decision_us": 12.0,
    }
