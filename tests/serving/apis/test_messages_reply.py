"""A whole chat completion as a message, and errors of every origin in Anthropic's form."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import RequestError, UpstreamTimeoutError, UpstreamUnavailableError
from routellm.errors import UpstreamError as Failure
from routellm.serving.apis.messages.api import MessagesApi
from routellm.serving.apis.messages.errors import error_type, upstream_error
from routellm.serving.apis.messages.reply import to_message
from routellm.serving.errors import error_body, render_error


def completion(said: dict[str, Any], finish: str | None = "stop", **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "model": "big", "choices": [choice], **fields}
    ).encode()


def message(said: dict[str, Any], finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(to_message(completion(said, finish, **fields), ["###"]))
    return found


def call(arguments: str = "{}", identity: str | None = "c1", name: str | None = "f") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": "c1", "name": "f", "input": value}


def test_a_whole_message() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert message({"content": "Hello."}, usage=usage) == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "big",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 6,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 5},
        },
    }


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "prompt_tokens_details": {"cached_tokens": 6}}])
def test_tokens_that_nobody_told_are_none(usage: Any) -> None:
    told = message({"content": "Hi"}, usage=usage)["usage"]
    assert (told["input_tokens"], told["output_tokens"]) == (0, 0)


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ({"content": None, "tool_calls": [call('{"a": 1.0}')]}, [tool({"a": 1.0})]),
        ({"content": " \n", "tool_calls": [call(""), call()]}, [tool({}), tool({})]),
        ({"content": "Hi", "tool_calls": [call()]}, [{"type": "text", "text": "Hi"}, tool({})]),
        ({"content": "Hi", "reasoning_content": "hidden", "tool_calls": None}, [{"type": "text", "text": "Hi"}]),
        ({"content": ""}, []),
        ({"content": None, "refusal": "No."}, [{"type": "text", "text": "No."}]),
    ],
)
def test_what_the_model_said(said: dict[str, Any], content: Any) -> None:
    assert message(said)["content"] == content


def test_a_call_without_an_id_gets_one() -> None:
    [block] = message({"tool_calls": [call(identity=None)]})["content"]
    assert block["id"].startswith("toolu_")
    assert message({"content": "Hi"}, id=None)["id"].startswith("msg_")


@pytest.mark.parametrize(
    ("said", "finish", "stop_reason"),
    [
        ({"content": "Hi"}, "stop", "end_turn"),
        ({"content": "Hi"}, None, "end_turn"),
        ({"content": "Hi"}, "length", "max_tokens"),
        ({"content": "Hi"}, "content_filter", "refusal"),
        ({"refusal": "No."}, "stop", "refusal"),
        ({"tool_calls": [call()]}, "tool_calls", "tool_use"),
        ({"tool_calls": [call()]}, "stop", "tool_use"),
        ({"tool_calls": []}, "tool_calls", "end_turn"),
        ({"tool_calls": [call("{")]}, "length", "max_tokens"),
    ],
)
def test_why_it_stopped(said: dict[str, Any], finish: str | None, stop_reason: str) -> None:
    assert message(said, finish)["stop_reason"] == stop_reason


@pytest.mark.parametrize(("told", "sequence"), [("###", "###"), ("other", None), (128_009, None), (None, None)])
def test_which_sequence_stopped_it_where_the_endpoint_says_so(told: object, sequence: str | None) -> None:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop", "stop_reason": told}
    found = message({}, choices=[choice])
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence" if sequence else "end_turn", sequence)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"finish_reason": "stop"}]}',
        b'{"error": {"message": "m"}}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"a":' * 100_000,
        completion({"content": 5}),
        completion({"content": "Hi"}, "error"),
        completion({"tool_calls": [call("{")]}),
        completion({"tool_calls": [call("[]")]}),
        completion({"tool_calls": [call(name=None)]}),
        completion({"tool_calls": [{"id": "c1"}]}),
    ],
)
def test_what_is_no_completion_is_the_upstreams_error(body: bytes) -> None:
    with pytest.raises(Failure):
        to_message(body, [])


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_no_bytes_make_the_translation_fail(body: bytes) -> None:
    with suppress(Failure):
        to_message(body, [])
    assert json.loads(upstream_error(500, body))["error"]["message"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_each_status_has_its_type(status: int, kind: str) -> None:
    assert error_type(status) == kind


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"message": "slow down", "type": "t", "code": null}}', "slow down"),
        (b'{"error": "slow down"}', "slow down"),
        (b'{"object": "error", "message": "slow down", "code": 429}', "slow down"),
        (b'{"detail": "slow down"}', "slow down"),
        (b'{"detail": [{"loc": ["body"]}]}', '[{"loc":["body"]}]'),
        (b'{"a": 1}', '{"a":1}'),
        (b" slow down\n", "slow down"),
        (b"\xff" * 9_000, "\ufffd" * 2_000),
        (b"", "The model answered with the status 429 and no message."),
        (b'{"error": {"message": ""}}', '{"message":""}'),
    ],
)
def test_an_upstreams_error_keeps_what_it_says(body: bytes, told: str) -> None:
    assert json.loads(upstream_error(429, body)) == {"type": "error", "error": {"type": "rate_limit_error", "message": told}}


def test_an_error_of_this_server() -> None:
    rendered = render_error(RequestError("Wrong.", param="top_k", code="unsupported_parameter"), "req-1")
    reply = MessagesApi().error_reply(rendered, "req-1")
    assert reply.status == 400
    assert json.loads(reply.body) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "Wrong.",
            "details": {"error_code": "unsupported_parameter", "param": "top_k"},
        },
        "request_id": "req-1",
    }
    assert dict(reply.headers) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(reply.body),
        b"request-id": b"req-1",
    }


def test_when_to_try_again_is_kept() -> None:
    reply = MessagesApi().error_reply(render_error(UpstreamUnavailableError("big", 7), "req-1"), "req-1")
    assert dict(reply.headers)[b"retry-after"] == b"7"
    assert json.loads(reply.body)["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Failure("It broke."), "api_error"),
        (UpstreamTimeoutError("It broke."), "timeout_error"),
    ],
)
def test_the_event_that_ends_a_broken_stream(error: Failure, kind: str) -> None:
    told = MessagesApi().error_event(error_body(str(error), "upstream_error", None, error.code))
    assert told.startswith(b"event: error\ndata: ")
    assert told.endswith(b"\n\n")
    assert json.loads(told.partition(b"data: ")[2]) == {"type": "error", "error": {"type": kind, "message": "It broke."}}
