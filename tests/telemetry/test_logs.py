"""What a line of the log says, and what it never does."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from routellm.telemetry.logs import JsonFormatter, RequestLine, formatter_for
from routellm.types import Usage
from tests.telemetry.records import record, refused


def line(message: object, *arguments: object, level: int = logging.INFO, **extra: Any) -> dict[str, Any]:
    """The JSON of one line."""
    text = JsonFormatter().format(made(message, *arguments, level=level, **extra))
    assert "\n" not in text
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def made(message: object, *arguments: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    logger = logging.Logger("routellm.serving")
    return logger.makeRecord(logger.name, level, "file", 1, message, arguments, extra.pop("exc_info", None), extra=extra)


def test_a_request_is_one_object_with_its_decision() -> None:
    logged = made(RequestLine(record(key="key-7")))
    logged.created = 1_700_000_000.25
    assert json.loads(JsonFormatter().format(logged)) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "routellm.serving",
        "message": "request",
        "request_id": "req-1",
        "api": "chat",
        "asked": "router-mf-0.5",
        "outcome": "answered",
        "status": 200,
        "model": "openai/big",
        "reason": "threshold",
        "router": "mf",
        "threshold": 0.5,
        "win_rate": 0.62,
        "decision_us": 120.0,
        "streamed": False,
        "attempts": 1,
        "own_ms": 0.4,
        "upstream_ms": 800.0,
        "first_byte_ms": 300.0,
        "input_tokens": 10,
        "output_tokens": 20,
        "cached_input_tokens": 4,
        "tokens_estimated": False,
        "key_id": "key-7",
    }


def test_what_is_not_known_is_left_out() -> None:
    found = line(RequestLine(refused()))
    assert found["error"] == "model_not_found"
    assert {"model", "router", "win_rate", "input_tokens", "key_id"} & set(found) == set()


def test_a_request_as_text() -> None:
    assert str(RequestLine(record())) == (
        "req-1 chat: 200 answered in 800.4 ms; model='openai/big' reason=threshold "
        "router=mf threshold=0.5 win_rate=0.62 decision=120 us"
    )
    assert str(RequestLine(refused())) == "req-1 chat: 404 refused in 0.4 ms; error=model_not_found"
    pinned = record(router=None, threshold=None, win_rate=None, reason="pinned")
    assert str(RequestLine(pinned)) == "req-1 chat: 200 answered in 800.4 ms; model='openai/big' reason=pinned"
    assert str(RequestLine(refused(error=None))) == "req-1 chat: 404 refused in 0.4 ms"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_prompt_is_ever_logged(log_format: Any) -> None:
    request = record(prompt="planted", usage=Usage(input_tokens=1, output_tokens=1))
    assert "planted" not in formatter_for(log_format).format(made(RequestLine(request)))


def test_any_other_line_may_carry_a_request_id() -> None:
    found = line("%s broke off", "it", level=logging.WARNING, request_id="req-7")
    assert (found["message"], found["level"], found["request_id"]) == ("it broke off", "warning", "req-7")
    assert "request_id" not in line("started")


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        found = line("failed", exc_info=sys.exc_info())
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize("text", ["two\nlines", 'quo"ted \x00\x1b[31m', "lone \ud800 surrogate", "名前"])
def test_text_of_any_kind_stays_on_its_line_and_comes_back(text: str) -> None:
    assert line("%s", text)["message"] == text
    assert line(RequestLine(refused(asked=text)))["asked"] == text


def test_text_lines_look_as_they_did() -> None:
    text = formatter_for("text").format(made("started", level=logging.WARNING))
    assert text.endswith(" WARNING started")
