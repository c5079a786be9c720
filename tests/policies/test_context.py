from __future__ import annotations

import base64
import random
from typing import Any

import msgspec
import pytest

from routellm.policies.context import (
    BINARY_TOKENS,
    ContextRule,
    ContextSettings,
    estimate_tokens,
    fits,
    known_window,
    max_output_of,
)
from routellm.types import Decision, ModelPair
from tests.conftest import hide, require

PAIR = ModelPair("big", "small")
ENGLISH = "The quick brown fox jumps over the lazy dog, and then it runs away into the woods. "


def body_of(text: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"model": "router-mf", "messages": [{"role": "user", "content": text}], **fields})


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(body, type=dict[str, msgspec.Raw])


def settle(decided: Decision, body: bytes, windows: dict[str, int | None], pair: ModelPair = PAIR) -> Decision:
    return ContextRule(pair, windows).settle(decided, body, fields_of(body))


def by_threshold(model: str) -> Decision:
    return Decision(model, "threshold", "mf", 0.5, 0.6 if model == "big" else 0.4, 9.0)


@pytest.mark.parametrize("repeats", [20, 2_000])
def test_english_is_taken_for_a_little_longer_than_a_tokenizer_says(repeats: int) -> None:
    real = 20 * repeats  # what byte-pair tokenizers of 50,000 to 100,000 entries make of the sentence
    assert 1.0 <= estimate_tokens(body_of(ENGLISH * repeats)) / real <= 1.5


def test_a_large_body_is_counted_by_a_sample_that_tells_nearly_the_same() -> None:
    drawn = random.Random(0)
    words = [drawn.choice(["word", "12,345", "= {}", "日本語"]) for _ in range(20_000)]
    large, halves = body_of(" ".join(words)), [body_of(" ".join(words[at : at + 500])) for at in range(0, 20_000, 500)]
    assert estimate_tokens(large) == pytest.approx(sum(map(estimate_tokens, halves)), rel=0.05)


def test_escaped_text_is_not_taken_for_several_times_its_length() -> None:
    plain = '{"messages": "' + "こんにちは" * 200 + '"}'
    escaped = plain.encode("ascii", "backslashreplace")
    assert estimate_tokens(escaped) <= 1.5 * estimate_tokens(plain.encode())


def test_an_image_counts_as_an_image_and_not_as_text() -> None:
    data = base64.b64encode(bytes(range(256)) * 4_000).decode()
    parts = [
        [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}],
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}],
        [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}],
    ]
    for part in parts:
        assert BINARY_TOKENS <= estimate_tokens(body_of(part)) <= BINARY_TOKENS + 200


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, 0),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 200}, 200),
        ({"max_output_tokens": 300}, 300),
        ({"max_tokens": 100, "max_completion_tokens": 200}, 200),
        ({"max_tokens": None}, 0),
        ({"max_tokens": "many"}, 0),
        ({"max_tokens": -5}, 0),
    ],
)
def test_the_answer_that_is_allowed_is_read_by_every_apis_name(fields: dict[str, Any], most: int) -> None:
    assert max_output_of(fields_of(body_of("Hi!", **fields))) == most


def test_request_and_answer_share_the_window() -> None:
    assert fits(900, 100, 1_000)
    assert not fits(900, 101, 1_000)
    assert fits(10**9, 0, None)


def test_too_long_for_the_weak_model_goes_to_the_strong_one() -> None:
    long = body_of(ENGLISH * 100)
    decision = settle(by_threshold("small"), long, {"big": 8_000, "small": 1_000})
    assert decision == Decision("big", "context", "mf", 0.5, 0.4, 9.0)


def test_the_answer_counts_too() -> None:
    windows: dict[str, int | None] = {"big": 8_000, "small": 1_000}
    assert settle(by_threshold("small"), body_of("Hi!"), windows).model == "small"
    assert settle(by_threshold("small"), body_of("Hi!", max_tokens=990), windows).reason == "context"


def test_too_long_for_the_strong_model_goes_to_a_weak_one_of_larger_window() -> None:
    decision = settle(by_threshold("big"), body_of(ENGLISH * 100), {"big": 1_000, "small": 8_000})
    assert (decision.model, decision.reason) == ("small", "context")


@pytest.mark.parametrize(("big", "small", "model"), [(2_000, 1_000, "big"), (1_000, 2_000, "small"), (1_000, 1_000, None)])
def test_too_long_for_both_goes_to_the_larger_window(big: int, small: int, model: str | None) -> None:
    for chosen in ("big", "small"):
        decision = settle(by_threshold(chosen), body_of(ENGLISH * 1_000), {"big": big, "small": small})
        assert decision.model == (model or chosen)


def test_unknown_windows() -> None:
    long = body_of(ENGLISH * 1_000)
    assert settle(by_threshold("small"), long, {}).model == "small"
    assert settle(by_threshold("small"), long, {"big": 10**6, "small": None}).model == "small"
    assert settle(by_threshold("small"), long, {"small": 1_000}).model == "big"
    assert settle(by_threshold("big"), long, {"big": 1_000}).model == "big"


@pytest.mark.parametrize("reason", ["pinned", "modality", "no-text", "budget"])
def test_what_no_threshold_decided_stays(reason: Any) -> None:
    forced = Decision("small", reason)
    assert settle(forced, body_of(ENGLISH * 1_000), {"big": 10**6, "small": 1_000}) is forced


def test_a_sticky_conversation_that_has_outgrown_its_model_moves() -> None:
    held = Decision("small", "sticky", "mf", 0.5, 0.51)
    assert settle(held, body_of(ENGLISH * 1_000), {"big": 10**6, "small": 1_000}).model == "big"


def test_windows_are_looked_up_in_the_bundled_list() -> None:
    require("genai_prices")
    assert known_window("gpt-4o") == known_window("openai/gpt-4o") == 128_000
    assert known_window("ollama/a-model-of-my-own") is None


def test_without_the_list_no_window_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("genai_prices", monkeypatch)
    assert known_window("gpt-4o") is None


def test_a_wrong_window_is_told() -> None:
    assert msgspec.convert({"windows": {"ollama/llama3": 8_192}}, ContextSettings).windows == {"ollama/llama3": 8_192}
    with pytest.raises(msgspec.ValidationError, match="'ollama/llama3' is 0"):
        msgspec.convert({"windows": {"ollama/llama3": 0}}, ContextSettings)
