"""What the file may say, what is refused, and what it makes of the models."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from routellm.dispatch.dispatcher import Dispatcher
from routellm.dispatch.models import open_models, specs_for
from routellm.dispatch.settings import DispatchSettings, spares_for
from routellm.errors import ConfigError
from routellm.types import ModelPair
from routellm.upstream.base import ModelSpec, Timeouts
from tests.dispatch.fakes import FakeUpstream, settings

PAIR = ModelPair("big", "small")
BASE = ModelSpec("big", "http://here:1/v1", "sk-own", timeouts=Timeouts(3.0, 30.0))


def deployments(*given: dict[str, Any], **more: Any) -> DispatchSettings:
    return settings(models={"big": {"deployments": list(given), **more}})


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"retries": {"count": -1}}, "it must lie from 0 to 10"),
        ({"retries": {"count": 11}}, "it must lie from 0 to 10"),
        ({"retries": {"budget_seconds": float("nan")}}, "budget_seconds is nan; it must be a finite number from 0"),
        ({"retries": {"first_backoff_seconds": -1.0}}, "first_backoff_seconds"),
        ({"breaker": {"failures": -1}}, "it must be 0 (never open) or more"),
        ({"breaker": {"open_seconds": 0}}, "open_seconds is 0.0; it must be a finite number over 0"),
        ({"breaker": {"open_seconds": 90}}, "must not lie below open_seconds"),
        ({"fallback": "always"}, "Invalid enum value 'always' - at `$.fallback`"),
        ({"fallback": True}, "fallback is true; it must be off, strong-to-weak, weak-to-strong, or both"),
        ({"spares": {"big": ["big"]}}, "as its own spare"),
        ({"models": {"big": {"timeouts": {"idle_seconds": 0}}}}, "idle_seconds is 0.0"),
        ({"models": {"big": {"formats": ["chats"]}}}, "Invalid enum value 'chats'"),
        ({"models": {"big": {"deployments": [{"weight": 0}]}}}, "weight is 0.0"),
        ({"models": {"big": {"deployments": [{"api_key": "k", "api_key_env": "K"}]}}}, "give one of them"),
        ({"models": {"big": {"deployments": [{"url": "k"}]}}}, "unknown field `url` - at `$.models[...].deployments[0]`"),
    ],
)
def test_what_is_refused_is_named_with_its_place(section: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        settings(**section)
    assert told in str(caught.value)


def test_a_key_is_in_no_repr() -> None:
    shown = repr(deployments({"api_key": "sk-planted", "base_url": "http://there/v1"}))
    assert "sk-planted" not in shown
    assert "http://there/v1" in shown


def test_without_settings_a_model_is_what_the_command_line_says() -> None:
    assert specs_for("big", BASE, DispatchSettings(), {}) == [BASE]


def test_a_deployment_inherits_the_models_own_endpoint_and_key() -> None:
    first, second = specs_for("big", BASE, deployments({}, {"api_key_env": "OTHER"}), {"OTHER": "sk-other"})
    assert (first.name, first.api_base, first.api_key) == ("big", "http://here:1/v1", "sk-own")
    assert (second.name, second.api_base, second.api_key) == ("big", "http://here:1/v1", "sk-other")


@pytest.mark.parametrize("elsewhere", [{"base_url": "http://there/v1"}, {"model": "groq/llama"}])
def test_the_models_own_key_and_endpoint_go_nowhere_else(elsewhere: dict[str, str]) -> None:
    [spec] = specs_for("big", BASE, deployments(elsewhere), {})
    assert spec.api_key is None
    assert spec.api_base == elsewhere.get("base_url")
    assert spec.name == elsewhere.get("model", "big")


def test_timeouts_and_formats_hold_for_each_deployment() -> None:
    given = deployments({}, {"base_url": "http://there/v1"}, timeouts={"first_byte_seconds": 5}, formats=["messages"])
    for spec in specs_for("big", BASE, given, {}):
        assert spec.timeouts == Timeouts(3.0, 30.0, first_byte=5.0)
        assert spec.formats == frozenset(("messages",))


def test_a_key_that_is_not_set_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"deployments\[1\]\.api_key_env names NOT_SET"):
        specs_for("big", BASE, deployments({}, {"api_key_env": "NOT_SET"}), {"NOT_SET": ""})


def test_models_are_opened_with_their_spares() -> None:
    given = settings(spares={"big": ["openai/spare", "small"]})
    opened = open_models({"big": BASE, "small": BASE}, given, {"OPENAI_API_KEY": "sk-env"})
    assert {name: [upstream.endpoint for upstream in upstreams] for name, upstreams in opened.items()} == {
        "big": ["http://here:1/v1"],
        "small": ["http://here:1/v1"],
        "openai/spare": ["https://api.openai.com/v1"],
    }


@pytest.mark.parametrize("section", [{"models": {"bug": {}}}, {"spares": {"bug": ["big"]}}])
def test_a_model_that_no_request_goes_to_is_a_mistake(section: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"names 'bug', which no request is sent to\. Requests are sent to: big"):
        open_models({"big": BASE}, settings(**section), {})


def test_upstreams_and_settings_must_agree() -> None:
    with pytest.raises(ConfigError, match="has 1 upstreams for 2 deployments"):
        Dispatcher({"big": [FakeUpstream()]}, deployments({}, {}))


@pytest.mark.parametrize(
    ("fallback", "model", "pinned", "spares"),
    [
        ("off", "big", False, ()),
        ("both", "big", False, ("small",)),
        ("both", "small", False, ("big",)),
        ("strong-to-weak", "big", False, ("small",)),
        ("strong-to-weak", "small", False, ()),
        ("weak-to-strong", "big", False, ()),
        ("weak-to-strong", "small", False, ("big",)),
        ("both", "big", True, ()),
        ("both", "other", False, ()),
    ],
)
def test_the_other_of_the_pair_is_a_spare_where_fallback_says_so(
    fallback: str, model: str, pinned: bool, spares: tuple[str, ...]
) -> None:
    assert spares_for(model, PAIR, settings(fallback=fallback), pinned) == spares


def test_listed_spares_come_first_and_serve_pinned_requests_too() -> None:
    given = settings(fallback="both", spares={"big": ["a", "b"], "small": ["big", "a"]})
    assert spares_for("big", PAIR, given, pinned=False) == ("a", "b", "small")
    assert spares_for("big", PAIR, given, pinned=True) == ("a", "b")
    assert spares_for("small", PAIR, given, pinned=False) == ("big", "a")


def test_a_pair_of_one_model_has_no_other() -> None:
    assert spares_for("big", ModelPair("big", "big"), settings(fallback="both"), pinned=False) == ()
