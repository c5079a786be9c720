"""The offline demo model: what it says, that it says what it is, and how its name tells it to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from routellm.errors import ConfigError, UpstreamError
from routellm.upstream.base import ModelSpec
from routellm.upstream.demo import DemoOptions, DemoUpstream, parse_demo_name
from routellm.upstream.demo_reply import count_tokens, error_reply, instance_of, reply_to

MARK = "[demo/strong: offline demo model, not a real LLM]"
USER = [{"role": "user", "content": "What is 2 + 2?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "days", "unit"],
        },
    },
}


def answer(**request: Any) -> Any:
    reply = reply_to(json.dumps({"messages": USER, **request}).encode(), "strong", created=7)
    assert reply.status == 200, reply.pieces
    return json.loads(b"".join(reply.pieces))


def stream(chunks: int | None = None, **request: Any) -> list[Any]:
    body = json.dumps({"messages": USER, "stream": True, **request}).encode()
    pieces = reply_to(body, "strong", created=7, chunks=chunks).pieces
    assert pieces[-1] == b"data: [DONE]\n\n"
    return [json.loads(piece.removeprefix(b"data: ")) for piece in pieces[:-1]]


def text_of(events: list[Any], index: int = 0) -> str:
    choices = [choice for each in events for choice in each["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_an_answer_says_what_it_is_repeats_the_prompt_and_counts_tokens() -> None:
    got = answer()
    assert got["choices"][0]["message"]["content"] == f"{MARK} You said: What is 2 + 2?"
    assert got["choices"][0]["finish_reason"] == "stop"
    assert (got["object"], got["model"], got["created"]) == ("chat.completion", "strong", 7)
    assert got["usage"] == {"prompt_tokens": 6, "completion_tokens": 23, "total_tokens": 29}
    assert got == answer()


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("   ", 0), ("What is 2 + 2?", 6), ("don't", 3), ("日本語 です。", 3), ("a_b1", 1)]
)
def test_tokens_are_words_and_single_other_characters(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_only_the_start_of_a_long_prompt_is_repeated() -> None:
    content = answer(messages=[{"role": "user", "content": "x" * 5000}])["choices"][0]["message"]["content"]
    assert content.endswith("x...")
    assert len(content) < 400


def test_the_last_user_message_is_repeated_and_parts_are_read() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [*USER, {"role": "user", "content": parts}, {"role": "tool", "content": "9"}]
    assert answer(messages=messages)["choices"][0]["message"]["content"].endswith("You said: look")


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_the_asked_length(field: str) -> None:
    got = answer(**{field: 3})
    assert got["choices"][0]["finish_reason"] == "length"
    assert got["choices"][0]["message"]["content"] == "[demo/"
    assert got["usage"]["completion_tokens"] == 3
    assert stream(**{field: 3})[-1]["choices"][0]["finish_reason"] == "length"


def test_several_choices_come_when_asked_for() -> None:
    got = answer(n=3)
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2]
    assert got["usage"]["completion_tokens"] == 3 * answer()["usage"]["completion_tokens"]
    events = stream(n=2)
    assert text_of(events, 0) == text_of(events, 1) == got["choices"][0]["message"]["content"]


def test_a_stream_names_the_role_first_and_the_reason_last_and_adds_up_to_the_answer() -> None:
    events = stream()
    assert {each["object"] for each in events} == {"chat.completion.chunk"}
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert events[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all(each["choices"][0]["finish_reason"] is None for each in events[:-1])
    assert text_of(events) == answer()["choices"][0]["message"]["content"]
    assert all("usage" not in each for each in events)


@pytest.mark.parametrize("chunks", [1, 2, 5, 1000])
def test_a_stream_has_as_many_pieces_of_text_as_asked(chunks: int) -> None:
    events = stream(chunks)
    assert len(events) - 2 == min(chunks, answer()["usage"]["completion_tokens"])
    assert text_of(events) == answer()["choices"][0]["message"]["content"]


def test_usage_ends_a_stream_that_asks_for_it() -> None:
    events = stream(stream_options={"include_usage": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == answer()["usage"]
    assert all(each["usage"] is None for each in events[:-1])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_tool_is_called_with_valid_arguments(choice: Any) -> None:
    got = answer(tools=[WEATHER], tool_choice=choice)["choices"][0]
    call = got["message"]["tool_calls"][0]
    assert got["finish_reason"] == "tool_calls"
    assert got["message"]["content"] is None
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": MARK, "days": 1, "unit": "C"}
    events = stream(tools=[WEATHER], tool_choice=choice)
    calls = [each["choices"][0]["delta"].get("tool_calls", [{}])[0] for each in events]
    assert calls[0]["id"] == call["id"]
    assert "".join(each.get("function", {}).get("arguments", "") for each in calls) == call["function"]["arguments"]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_tool_that_nobody_insists_on_is_not_called(choice: Any) -> None:
    assert "tool_calls" not in answer(tools=[WEATHER], tool_choice=choice)["choices"][0]["message"]


def test_json_mode_gives_json_that_says_what_it_is() -> None:
    content = answer(response_format={"type": "json_object"})["choices"][0]["message"]["content"]
    assert json.loads(content) == {"demo": MARK, "you_said": "What is 2 + 2?"}


class Person(BaseModel):
    class Pet(BaseModel):
        name: str
        legs: float

    name: str
    age: int
    pets: list[Pet]
    first: Pet
    nick: str | None


def test_a_json_schema_is_filled_so_that_the_official_client_can_parse_it() -> None:
    client = DemoUpstream(ModelSpec("demo/strong"), {}).client()
    reply = client.chat.completions.parse(model="strong", messages=USER, response_format=Person)  # type: ignore[arg-type]
    parsed = reply.choices[0].message.parsed
    assert parsed is not None
    assert (parsed.name, parsed.age, parsed.pets, parsed.first.legs) == (MARK, 0, [], 0)


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({}, {}),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "minLength": 6}, "text.."),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"type": ["null", "string"]}, None),
        ({"const": 4}, 4),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"anyOf": [{"type": "number", "minimum": 0.5}, {"type": "null"}]}, 0.5),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"enum": ["x"]}}}, "x"),
    ],
)
def test_simple_schemas_get_a_small_instance(schema: dict[str, Any], instance: Any) -> None:
    assert instance_of(schema, "text") == instance


def test_a_schema_that_needs_itself_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "next" in instance_of(node, "text")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        *("messages", "role", "content", "text", "n", "max_tokens", "stream", "stream_options", "response_format", "type"),
        *("json_schema", "schema", "properties", "required", "items", "minItems", "minLength", "maxLength", "minimum", "$ref"),
        *("anyOf", "enum", "tools", "tool_choice", "function", "name", "parameters"),
    ]
)
ODD_JSON = st.recursive(
    JSON | st.sampled_from(["user", "required", "json_schema", "object", "array", "string", "integer", "#/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(FIELDS, ODD_JSON, max_size=6), st.booleans())
def test_any_request_gets_a_reply(request: dict[str, Any], sensible: bool) -> None:
    if sensible:
        request["messages"] = USER
    reply = reply_to(msgspec.json.encode(request), "strong", created=7)
    assert reply.status in (200, 400)
    assert all(isinstance(piece, bytes) for piece in reply.pieces)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"messages": []}',
        b'{"messages": "hi"}',
        b'{"messages": ["hi"]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{}], "n": 0}',
        b'{"messages": [{}], "n": 1000000}',
        b'{"messages": [{}], "max_tokens": "many"}',
        b'{"messages": [{}], "tool_choice": "required"}',
        b'{"messages": [{}], "tool_choice": "required", "tools": 1}',
        b'{"messages": [{}], "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array", '
        b'"minItems": 1000000000}}}}',
    ],
)
def test_a_bad_request_gets_an_error_in_openais_words(body: bytes) -> None:
    reply = reply_to(body, "strong", created=7)
    error = json.loads(b"".join(reply.pieces))["error"]
    assert reply.status == 400
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_an_error_has_the_type_that_goes_with_its_status() -> None:
    assert json.loads(error_reply(429, "x").pieces[0])["error"]["type"] == "rate_limit_error"
    assert json.loads(error_reply(503, "x").pieces[0])["error"]["type"] == "server_error"


def test_options_are_read_from_the_name() -> None:
    name = "demo/a/b?delay=0.2&chunk_delay=0&chunks=5&status=429&retry_after=2&fail=connect"
    assert parse_demo_name(name) == ("a/b", DemoOptions(0.2, 0.0, 5, 429, 2.0, "connect"))
    assert parse_demo_name("demo/strong") == ("strong", DemoOptions())


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("dealy=1", "did you mean 'delay'"),
        ("delay=-1", "0 or more"),
        ("delay=nan", "0 or more"),
        ("delay=inf", "0 or more"),
        ("delay=soon", "0 or more"),
        ("delay=", "0 or more"),
        ("delay=1&delay=2", "twice"),
        ("chunks=0", "1 or more"),
        ("chunks=²", "1 or more"),
        ("status=200", "400 to 599"),
        ("status=x", "400 to 599"),
        ("retry_after=2", "add status"),
        ("fail=midsteam", "did you mean 'midstream'"),
        ("", "no option"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(query: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        DemoUpstream(ModelSpec(f"demo/x?{query}"), {})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("fail=connect", openai.APIConnectionError),
        ("fail=timeout", openai.APITimeoutError),
        ("status=429&retry_after=2", openai.RateLimitError),
        ("status=500", openai.InternalServerError),
    ],
)
def test_failures_reach_the_official_clients_as_their_own_exceptions(options: str, error: type[Exception]) -> None:
    upstream = DemoUpstream(ModelSpec(f"demo/x?{options}"), {})
    with pytest.raises(error):
        upstream.client().with_options(max_retries=0).chat.completions.create(model="x", messages=USER)  # type: ignore[arg-type]


def test_a_wait_is_asked_for_in_the_header() -> None:
    async def main() -> str:
        reply = await DemoUpstream(ModelSpec("demo/x?status=429&retry_after=2.5"), {}).send("/chat/completions", b"{}", {})
        return reply.headers["retry-after"]

    assert asyncio.run(main()) == "2.5"


@pytest.mark.parametrize("streamed", [True, False])
def test_half_an_answer_comes_before_it_breaks_off(streamed: bool) -> None:
    upstream = DemoUpstream(ModelSpec("demo/strong?fail=midstream"), {})
    got: list[bytes] = []

    async def read() -> None:
        reply = await upstream.send("/chat/completions", json.dumps({"messages": USER, "stream": streamed}).encode(), {})
        async for chunk in reply.chunks():
            got.extend([chunk])

    with pytest.raises(UpstreamError, match="broke off"):
        asyncio.run(read())
    assert got
    assert b"[DONE]" not in b"".join(got)


def test_delays_are_waited_for_on_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr("routellm.upstream.demo.asyncio.sleep", sleep)
    monkeypatch.setattr("routellm.upstream.demo.time.sleep", waits.append)
    upstream = DemoUpstream(ModelSpec("demo/x?delay=7&chunk_delay=3&chunks=2"), {})
    request = json.dumps({"messages": USER, "stream": True}).encode()

    async def read() -> None:
        reply = await upstream.send("/chat/completions", request, {})
        assert len([chunk async for chunk in reply.chunks()]) == 5

    asyncio.run(read())
    expected = [7, 0, 3, 3, 3, 3]  # role, two pieces of text, the reason, [DONE]
    assert waits == expected
    waits.clear()
    assert len(list(upstream.send_blocking("/chat/completions", request).chunks)) == 5
    assert waits == expected


def test_there_is_one_path_only() -> None:
    client = DemoUpstream(ModelSpec("demo/x"), {}).client()
    calls: list[Callable[[], object]] = [lambda: client.models.list(), lambda: client.embeddings.create(model="x", input="y")]
    for call in calls:
        with pytest.raises(openai.NotFoundError, match="offline demo model"):
            call()
