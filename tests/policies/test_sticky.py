from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.policies.sticky import Sticky, StickySettings
from routellm.policies.table import ConversationTable
from routellm.types import Decision, ModelPair

PAIR = ModelPair("big", "small")
HEADERS = [(b"x-routellm-conversation", b"c-1")]
KEY = b"a conversation"


def sticky(**settings: Any) -> Sticky:
    given = {"by": "header", "margin": 0.1, **settings}
    return Sticky(StickySettings(**given), ConversationTable.open(64, shared=False))


def decided(win_rate: float, threshold: float = 0.5) -> Decision:
    return Decision("big" if win_rate >= threshold else "small", "threshold", "mf", threshold, win_rate, 12.0)


def models(of: Sticky, *win_rates: float, threshold: float = 0.5) -> list[str]:
    return [of.settle(KEY, decided(rate, threshold), PAIR).model for rate in win_rates]


def test_the_first_request_is_decided_by_the_threshold() -> None:
    first = decided(0.5)
    assert sticky().settle(KEY, first, PAIR) is first


def test_within_the_margin_the_model_stays_and_the_reason_says_so() -> None:
    of = sticky()
    of.settle(KEY, decided(0.7), PAIR)
    assert of.settle(KEY, decided(0.45), PAIR) == Decision("big", "sticky", "mf", 0.5, 0.45, 12.0)


def test_beyond_the_margin_it_changes_in_either_direction() -> None:
    assert models(sticky(), 0.7, 0.41, 0.4, 0.59, 0.6, 0.41) == ["big", "big", "small", "small", "big", "big"]


def test_the_margins_may_differ() -> None:
    assert models(sticky(margin_up=0.0, margin_down=0.3), 0.4, 0.5, 0.3, 0.2) == ["small", "big", "big", "small"]
    assert models(sticky(margin_up=0.3), 0.4, 0.7, 0.8, 0.4) == ["small", "small", "big", "small"]


def test_without_a_margin_every_request_is_decided_by_the_threshold() -> None:
    assert models(sticky(margin=0.0), 0.5, 0.49, 0.5) == ["big", "small", "big"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.01, 1), st.floats(0, 1))
def test_a_model_never_answers_what_lies_beyond_the_margin_of_the_other(
    rates: list[float], threshold: float, margin: float
) -> None:
    for rate, model in zip(rates, models(sticky(margin=margin), *rates, threshold=threshold), strict=True):
        assert not (model == "small" and rate >= threshold + margin)
        assert not (model == "big" and rate <= threshold - margin and rate < threshold)


def test_a_threshold_of_zero_means_the_strong_model_always() -> None:
    of = sticky()
    of.settle(KEY, decided(0.1), PAIR)
    assert of.settle(KEY, decided(0.1, threshold=0.0), PAIR).model == "big"


@pytest.mark.parametrize("reason", ["pinned", "no-text", "modality", "context", "budget"])
def test_what_no_threshold_decided_stays_and_is_not_remembered(reason: Any) -> None:
    of = sticky()
    forced = Decision("small", reason, "mf", 0.5, None)
    assert of.settle(KEY, forced, PAIR) is forced
    assert of.settle(KEY, decided(0.5), PAIR).reason == "threshold"


def test_a_request_that_names_no_conversation_is_left_alone() -> None:
    of = sticky()
    assert of.key([], {}, "mf", None) is None
    assert of.settle(None, decided(0.5), PAIR) == decided(0.5)


def test_a_decision_without_a_call_leaves_no_trace() -> None:
    of = sticky()
    of.settle(KEY, decided(0.7), PAIR, remember=False)
    assert models(of, 0.45) == ["small"]
    assert of.settle(KEY, decided(0.55), PAIR, remember=False).reason == "sticky"


def test_routers_and_clients_are_apart() -> None:
    of = sticky()
    keys = {of.key(HEADERS, {}, router, client) for router in ("mf", "bert") for client in (None, "key-1", "key-2")}
    assert len(keys) == 6
    assert of.key([(HEADERS[0][0], b"1")], {}, "mf", "k") != of.key([(HEADERS[0][0], b"k1")], {}, "mf", "")


def test_the_header_may_have_another_name() -> None:
    of = sticky(header="X-Session")
    assert of.key([(b"x-session", b"s")], {}, "mf", None) is not None
    assert of.key(HEADERS, {}, "mf", None) is None


def test_conversations_survive_a_change_of_the_settings() -> None:
    table = ConversationTable.open(64, shared=False)
    Sticky(StickySettings(by="header"), table).settle(KEY, decided(0.7), PAIR)
    assert Sticky(StickySettings(by="header", margin=0.3), table).settle(KEY, decided(0.3), PAIR).model == "big"


def test_it_is_off_unless_asked_for() -> None:
    assert StickySettings().by is None


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"by": "cookie"}, "by is 'cookie'; it must be one of: header, user, start"),
        ({"by": False}, "`str | null`"),
        ({"header": "two words"}, "header's name"),
        ({"margin": 1.5}, "margin is 1.5; it must lie from 0 to 1"),
        ({"margin_down": -0.1}, "margin_down is -0.1"),
        ({"ttl_seconds": 0}, "ttl_seconds is 0"),
        ({"entries": 1 << 30}, "16,777,216"),
        ({"ttl": 5}, "unknown field `ttl`"),
    ],
)
def test_a_wrong_setting_is_told(section: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(section, StickySettings)
