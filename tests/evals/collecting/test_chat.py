from __future__ import annotations

import asyncio
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest

from routellm.evals.collecting.chat import Answer, CallError, ChatModel, retry_after
from routellm.evals.collecting.journal import Usage
from routellm.upstream.base import ModelSpec, Timeouts
from routellm.upstream.providers import open_upstream
from tests.evals.collecting.stage import SECRET, completion, error
from tests.live import DIE, STALL, LiveServer, Reply, closed_port_url


def ask(base_url: str, **parameters: Any) -> Answer:
    async def main() -> Answer:
        upstream = open_upstream(ModelSpec("openai/m", base_url, SECRET, timeouts=Timeouts(read=0.5)), {})
        model = ChatModel(upstream, parameters, [SECRET])
        try:
            return await model.ask(model.body(["one", "two"], ["first"]))
        finally:
            await upstream.aclose()

    return asyncio.run(main())


def failure(base_url: str) -> CallError:
    with pytest.raises(CallError) as caught:
        ask(base_url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


def test_the_request_and_the_answer(live: LiveServer) -> None:
    live.replies = [completion("Hi", prompt_tokens=9, completion_tokens=3, finish="length")]
    answer = ask(live.base_url, temperature=0, system="Be brief.", top_p=0.5)
    assert answer == Answer("Hi", "length", "m-1", Usage(9, 3))
    assert live.requests[0].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "first"},
            {"role": "user", "content": "two"},
        ],
        "temperature": 0,
        "top_p": 0.5,
    }
    assert live.requests[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, 3, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(9, 3)),
        ({"prompt_tokens": "9", "completion_tokens": 3}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_in_all_its_forms(live: LiveServer, given: object, usage: Usage | None) -> None:
    live.replies = [completion("Hi")]
    live.replies = [Reply.json({"choices": [{"message": {"content": "Hi"}}], "usage": given})]
    assert ask(live.base_url).usage == usage


@pytest.mark.parametrize(
    ("reply", "passing", "hopeless"),
    [
        (error(429), True, False),
        (error(408), True, False),
        (error(409), True, False),
        (error(500), True, False),
        (error(529), True, False),
        (error(400), False, False),
        (error(403), False, False),
        (error(422), False, False),
        (error(401), False, True),
        (error(402), False, True),
        (error(404), False, True),
        (error(429, code="insufficient_quota"), False, True),
    ],
)
def test_error_statuses(live: LiveServer, reply: Reply, passing: bool, hopeless: bool) -> None:
    live.replies = [reply]
    caught = failure(live.base_url)
    assert (caught.status, caught.passing, caught.hopeless) == (reply.status, passing, hopeless)
    assert f"{reply.status}: no" in str(caught)


def test_connections_that_fail_may_succeed_later(live: LiveServer) -> None:
    assert failure(closed_port_url()).passing
    for steps in ([DIE], [STALL], [b'{"choices"', DIE]):
        live.replies = [Reply(steps)]
        caught = failure(live.base_url)
        assert caught.passing
        assert caught.status is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html>gateway</html>", "not with a chat completion"),
        (b"", "not with a chat completion"),
        (b'{"choices": []}', "not with a chat completion"),
        (b'{"choices": [{"message": {"content": "cut o', "not with a chat completion"),
        (b'[1, "\xff"]', "not with a chat completion"),
        (b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}', "no text .content_filter"),
        (b'{"choices": [{"message": {"content": null, "refusal": "I will not"}}]}', "no text .I will not"),
    ],
)
def test_garbage_is_a_failure_with_the_start_of_what_came(live: LiveServer, body: bytes, told: str) -> None:
    live.replies = [Reply([body], whole=True)]
    caught = failure(live.base_url)
    assert (caught.status, caught.passing) == (200, False)
    assert told.replace(".", "(") in str(caught)


def test_a_key_that_an_endpoint_repeats_is_struck_out(live: LiveServer) -> None:
    for reply in (error(401, f"bad key {SECRET}"), Reply([SECRET.encode()], 400), Reply([SECRET.encode()], whole=True)):
        live.replies = [reply]
        assert "***" in str(failure(live.base_url))


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds
