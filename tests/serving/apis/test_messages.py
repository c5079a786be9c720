"""Anthropic's official client against a live server whose models speak chat completions only."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import pytest

from routellm.upstream.base import Timeouts
from tests.live import DIE, STALL, Gate, LiveServer, Recorded, Reply, closed_port_url, event
from tests.serving.apis.messages_client import ASK, CHUNK, CLIENT_KEY, HI, WEATHER, client_of
from tests.serving.running import KEY, STRONG, WEAK, RunningServer, settings_for

PNG = base64.b64encode(b"\x89PNG...").decode()


@pytest.fixture
def client(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    """The official client; the server's models speak chat only."""
    with client_of(server) as made:
        yield made


def test_a_translated_message(client: anthropic.Anthropic, live: LiveServer) -> None:
    raw = client.messages.with_raw_response.create(
        **ASK, system="Be brief.", extra_headers={"anthropic-beta": "context-1m-2025-08-07"}
    )
    message = raw.parse()
    assert [block.text for block in message.content if block.type == "text"] == ["Hello."]
    assert (message.role, message.model, message.stop_reason) == ("assistant", "big", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 2)
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-routellm-model"] == STRONG
    assert raw.headers["x-routellm-win-rate"] == "0.500000"
    seen = live.requests[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.json == {"model": "big", "max_tokens": 50, "messages": [{"role": "system", "content": "Be brief."}, HI]}
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert not {name for name in seen.headers if name.startswith("anthropic-") or name == "x-api-key"}


def test_the_threshold_decides_by_the_last_text_of_the_user(client: anthropic.Anthropic, live: LiveServer) -> None:
    raw = client.messages.with_raw_response.create(**ASK | {"model": "router-fixed-0.6"})
    assert (raw.headers["x-routellm-model"], live.requests[0].json["model"]) == (WEAK, "small")
    raw = client.messages.with_raw_response.create(**ASK | {"model": WEAK})
    assert raw.headers["x-routellm-reason"] == "pinned"


def test_many_turns_with_an_image_and_a_document(client: anthropic.Anthropic, live: LiveServer) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    pdf: Any = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PNG}}
    turns: list[Any] = [
        {"role": "user", "content": [image, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [pdf, {"type": "text", "text": "And this?"}]},
    ]
    raw = client.messages.with_raw_response.create(model="router-fixed-1", max_tokens=50, messages=turns)
    assert (raw.headers["x-routellm-reason"], raw.headers["x-routellm-model"]) == ("modality", STRONG)
    first, second, third = live.requests[0].json["messages"]
    assert first["content"][0] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert second == turns[1]
    assert third["content"][0]["file"]["file_data"] == f"data:application/pdf;base64,{PNG}"


def test_a_translated_stream(client: anthropic.Anthropic, live: LiveServer) -> None:
    gate = Gate()
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    parts = [
        event({"id": "c1", "model": "big", "choices": [{"index": 0, "delta": {"content": text}}]}) for text in ("Hel", "lo.")
    ]
    end = event({"id": "c1", "model": "big", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    live.replies = [Reply.sse(parts[0], gate, parts[1], end, event({"choices": [], "usage": usage}), event("[DONE]"))]
    with client.messages.stream(**ASK) as stream:
        texts = stream.text_stream
        assert next(texts) == "Hel"  # the upstream has not sent more than this
        gate.open()
        assert list(texts) == ["lo."]
        message = stream.get_final_message()
    assert live.requests[0].json["stream_options"] == {"include_usage": True}
    assert stream.response.headers["x-routellm-model"] == STRONG
    assert (message.id, message.stop_reason) == ("c1", "end_turn")
    assert message.usage.input_tokens == 5
    assert message.usage.cache_read_input_tokens == 4
    assert message.usage.output_tokens == 2


def play_weather(request: Recorded) -> Reply:
    """Asks for the weather in two cities at once, and then answers by what it was told."""
    told = [message for message in request.json["messages"] if message["role"] == "tool"]
    calls = [
        {
            "index": index,
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'},
        }
        for index, city in enumerate(("Ulm", "Bonn"))
    ]
    said: dict[str, Any] = {"content": "Let me see.", "tool_calls": calls}
    if told:
        said = {"content": " and ".join(f"{message['tool_call_id']}: {message['content']}" for message in told)}
    finish = "stop" if told else "tool_calls"
    if not request.json.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}
        return Reply.json({"id": "c1", "model": "big", "choices": [choice]})
    deltas: list[dict[str, Any]] = [{"content": said["content"]}]
    for call in said.get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        deltas.append({"tool_calls": [{**call, "function": {"name": "weather", "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]}
            for piece in (arguments[:4], arguments[4:])
        ]
    chunks = [{"id": "c1", "model": "big", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    last = {"id": "c1", "model": "big", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    return Reply.sse(*map(event, [*chunks, last]), event("[DONE]"))


def ask(client: anthropic.Anthropic, streamed: bool, **fields: Any) -> anthropic.types.Message:
    if not streamed:
        message: anthropic.types.Message = client.messages.create(**fields)
        return message
    with client.messages.stream(**fields) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_whole_tool_loop(client: anthropic.Anthropic, live: LiveServer, streamed: bool) -> None:
    live.answer = play_weather
    turns: list[Any] = [{"role": "user", "content": "Weather in Ulm and Bonn?"}]
    asked = ask(client, streamed, **ASK | {"messages": turns}, tools=[WEATHER], tool_choice={"type": "any"})
    calls = [block for block in asked.content if block.type == "tool_use"]
    assert asked.stop_reason == "tool_use"
    assert [(call.id, call.name, call.input) for call in calls] == [
        ("call_Ulm", "weather", {"city": "Ulm"}),
        ("call_Bonn", "weather", {"city": "Bonn"}),
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "call_Ulm", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "call_Bonn", "content": "no such city", "is_error": True},
    ]
    turns += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
    answer = ask(client, streamed, **ASK | {"messages": turns}, tools=[WEATHER])
    assert answer.stop_reason == "end_turn"
    assert [block.text for block in answer.content if block.type == "text"] == [
        "call_Ulm: rain and call_Bonn: Error: no such city"
    ]
    sent = live.requests[1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert sent[1]["content"] == "Let me see."
    assert sent[1]["tool_calls"][0] == {
        "id": "call_Ulm",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
    }


def test_the_asynchronous_client_in_both_forms(server: RunningServer, live: LiveServer) -> None:
    async def run() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key=CLIENT_KEY, max_retries=0) as client:
            answer = await client.messages.create(**ASK)
            async with client.messages.stream(**ASK) as stream:
                streamed = await stream.get_final_text()
            return "".join(block.text for block in answer.content if block.type == "text"), streamed

    assert asyncio.run(run()) == ("Hello.", "Hello.")


ERRORS = [
    (400, "BadRequestError", "invalid_request_error"),
    (401, "AuthenticationError", "authentication_error"),
    (403, "PermissionDeniedError", "permission_error"),
    (404, "NotFoundError", "not_found_error"),
    (413, "ContentTooLargeError", "request_too_large"),
    (429, "RateLimitError", "rate_limit_error"),
    (500, "InternalServerError", "api_error"),
    (503, "ServiceUnavailableError", "overloaded_error"),
    (529, "OverloadedError", "overloaded_error"),
]


@pytest.mark.parametrize("streamed", [False, True])
def test_errors_of_the_model(client: anthropic.Anthropic, live: LiveServer, streamed: bool) -> None:
    theirs = {"error": {"message": "theirs", "type": "their_type", "param": None, "code": "their_code"}}
    live.replies = [Reply.json(theirs, status=status, headers={"retry-after": "7"}) for status, _, _ in ERRORS]
    for status, error_class, kind in ERRORS:
        with pytest.raises(getattr(anthropic, error_class)) as caught:
            client.messages.create(**ASK, stream=streamed)
        assert (caught.value.status_code, caught.value.type, caught.value.api_message) == (status, kind, "theirs")
        assert caught.value.response.headers["retry-after"] == "7"


def test_an_unknown_model_and_a_field_that_no_chat_knows(client: anthropic.Anthropic, live: LiveServer) -> None:
    with pytest.raises(anthropic.NotFoundError, match="is not served") as unknown:
        client.messages.create(**ASK | {"model": "gpt-9"})
    assert (unknown.value.type, unknown.value.error_code) == ("not_found_error", "model_not_found")
    assert unknown.value.request_id == unknown.value.response.headers["x-request-id"]
    with pytest.raises(anthropic.BadRequestError, match=r"`thinking\.type`") as unsupported:
        client.messages.create(**ASK, thinking={"type": "adaptive"})
    assert unsupported.value.error_code == "unsupported_parameter"
    assert unsupported.value.response.headers["x-routellm-model"] == STRONG
    with pytest.raises(anthropic.BadRequestError, match="`messages`"):
        client.messages.create(**ASK | {"messages": []})
    assert live.requests == []


def test_a_model_that_is_away_or_silent(live: LiveServer) -> None:
    with RunningServer(settings_for(closed_port_url())) as server, client_of(server) as client:
        with pytest.raises(anthropic.InternalServerError) as away:
            client.messages.create(**ASK)
        assert (away.value.status_code, away.value.type) == (502, "api_error")
    live.replies = [Reply([STALL])]
    with RunningServer(settings_for(live.base_url, timeouts=Timeouts(read=0.05))) as server, client_of(server) as client:
        with pytest.raises(anthropic.GatewayTimeoutError) as silent:
            client.messages.create(**ASK)
        assert silent.value.type == "timeout_error"


def test_a_missing_key_is_not_tried_again() -> None:
    settings = settings_for(None, strong="gpt-4o", weak="demo/weak")
    keyless = replace(settings, strong=replace(settings.strong, api_key=None))
    with (
        RunningServer(keyless) as server,
        client_of(server, max_retries=2) as client,
        pytest.raises(anthropic.AuthenticationError, match="OPENAI_API_KEY") as caught,
    ):
        client.messages.create(**ASK)
    assert caught.value.type == "authentication_error"


def test_a_body_over_the_limit(live: LiveServer) -> None:
    with RunningServer(settings_for(live.base_url, max_body_bytes=200)) as server, client_of(server) as client:
        with pytest.raises(anthropic.ContentTooLargeError) as caught:
            client.messages.create(**ASK, system="x" * 300)
        assert str(caught.value.type) == "request_too_large"


@pytest.mark.parametrize(
    ("ending", "kind", "told"),
    [
        (DIE, "api_error", "broke off"),
        (STALL, "timeout_error", "fell silent"),
        (b"data: {garbage\n\n", "api_error", "no chat completion"),
        (event({"error": {"message": "all full"}}), "api_error", "all full"),
        (b"", "api_error", "no [DONE]"),
        (b'data: {"half', "api_error", "no [DONE]"),
    ],
)
def test_a_stream_that_breaks_ends_with_an_error(live: LiveServer, ending: Any, kind: str, told: str) -> None:
    live.replies = [Reply.sse(CHUNK, ending)]
    settings = settings_for(live.base_url, timeouts=Timeouts(read=0.2))
    with RunningServer(settings) as server, client_of(server) as client, client.messages.stream(**ASK) as stream:
        texts = stream.text_stream
        assert next(texts) == "one"
        with pytest.raises(anthropic.APIStatusError) as caught:
            next(texts)
        assert caught.value.type == kind
        assert told in str(caught.value.api_message)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"choices": [{"message": {"tool_calls": [{"function": {}}]}}]}'])
def test_a_reply_that_is_no_completion(client: anthropic.Anthropic, live: LiveServer, body: bytes) -> None:
    live.replies = [Reply([body], 200, {"content-type": "application/json"}, whole=True)]
    with pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(**ASK)
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")
