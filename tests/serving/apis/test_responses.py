"""`/v1/responses` through a live server: with the official client, translated to chat and back, and byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from routellm.errors import RequestError
from routellm.serving.apis.responses.api import ResponsesApi
from routellm.upstream.base import OPENAI_COMPATIBLE, Format
from tests.live import DIE, Gate, LiveServer, Reply, event
from tests.serving.apis.test_responses_stream import TEXT, TWO_CALLS, call, chunk
from tests.serving.running import KEY, STRONG, WEAK, RunningServer, post, request, settings_for

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PICTURE: Any = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
ROUTED: Any = "router-fixed-0.4"


class City(BaseModel):
    name: str
    country: Literal["DE", "CH"]


def speaking(live: LiveServer, formats: frozenset[Format], weak: frozenset[Format] | None = None) -> RunningServer:
    """A server whose models' endpoints speak `formats`."""
    settings = settings_for(live.base_url)
    strong = replace(settings.strong, formats=formats)
    return RunningServer(replace(settings, strong=strong, weak=replace(settings.weak, formats=weak or formats)))


@pytest.fixture
def native(live: LiveServer) -> Iterator[RunningServer]:
    with speaking(live, OPENAI_COMPATIBLE | {"responses"}) as running:
        yield running


def message(content: str | None, finish: str = "stop", **fields: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **fields}, "finish_reason": finish}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    base = {"id": "c", "object": "chat.completion", "created": 1_700_000_000, "model": "big", "usage": usage}
    return Reply.json({**base, "choices": [choice]})


def streamed(*chunks: Any) -> Reply:
    return Reply.sse(*map(event, chunks), event("[DONE]"))


def test_a_plain_question(server: RunningServer, live: LiveServer) -> None:
    with server.client() as client:
        raw = client.responses.with_raw_response.create(model=ROUTED, input="Hello!", instructions="Be brief.")
    assert live.requests[0].path == "/v1/chat/completions"
    assert live.requests[0].json == {
        "model": "big",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
    }
    assert raw.headers["x-routellm-model"] == STRONG
    assert raw.headers["x-routellm-win-rate"] == "0.500000"
    assert raw.headers["content-type"] == "application/json"
    response = raw.parse()
    assert response.output_text == "Hello."
    assert (response.status, response.model, response.instructions) == ("completed", "big", "Be brief.")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (5, 2, 7)


@pytest.mark.parametrize(("threshold", "model"), [("0.4", STRONG), ("0.6", WEAK)])
def test_the_threshold_decides(server: RunningServer, live: LiveServer, threshold: str, model: str) -> None:
    with server.client() as client:
        raw = client.responses.with_raw_response.create(model=f"router-fixed-{threshold}", input="Hello!")
    assert raw.headers["x-routellm-model"] == model
    assert live.requests[0].json["model"] == model.partition("/")[2]


def test_the_asynchronous_client_in_both_forms(server: RunningServer, live: LiveServer) -> None:
    live.replies = [message("Hello."), streamed(*TEXT)]

    async def ask() -> tuple[str, str]:
        async with server.async_client() as client:
            response = await client.responses.create(model=ROUTED, input="Hello!")
            stream = await client.responses.create(model=ROUTED, input="Hello!", stream=True)
            return response.output_text, "".join(
                [each.delta async for each in stream if each.type == "response.output_text.delta"]
            )

    assert asyncio.run(ask()) == ("Hello.", "Hello.")


def test_a_conversation_goes_on_with_what_came_back(server: RunningServer, live: LiveServer) -> None:
    conversation: list[Any] = [{"role": "user", "content": "Hello!"}]
    with server.client() as client:
        first = client.responses.create(model=ROUTED, input=conversation)
        conversation += first.output
        conversation.append({"role": "user", "content": "And again?"})
        client.responses.create(model=ROUTED, input=conversation)
    assert live.requests[1].json["messages"] == [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And again?"},
    ]


def test_a_loop_of_tools_over_streams(server: RunningServer, live: LiveServer) -> None:
    live.replies = [streamed(*TWO_CALLS), streamed(*TEXT)]
    conversation: list[Any] = [{"role": "user", "content": "Weather in Ulm and Bern?"}]
    with server.client() as client:
        with client.responses.stream(model=ROUTED, input=conversation, tools=[TOOL], parallel_tool_calls=True) as stream:
            snapshots = [each.snapshot for each in stream if each.type == "response.function_call_arguments.delta"]
            response = stream.get_final_response()
        assert snapshots == ['{"city"', '{"city":"Ulm"}', '{"city":"Bern"}']
        assert response.usage is not None
        assert response.usage.input_tokens_details.cached_tokens == 3
        conversation += response.output
        for item in response.output:
            if item.type == "function_call":
                conversation.append({"type": "function_call_output", "call_id": item.call_id, "output": "rain"})
        with client.responses.stream(model=ROUTED, input=conversation, tools=[TOOL]) as stream:
            assert stream.get_final_response().output_text == "Hello."
    asked = live.requests[1].json
    assert asked["tools"] == [{"type": "function", "function": {name: TOOL[name] for name in TOOL if name != "type"}}]
    assert [each["role"] for each in asked["messages"]] == ["user", "assistant", "tool", "tool"]
    assert asked["messages"][1]["content"] == "Let me see."
    assert [each["id"] for each in asked["messages"][1]["tool_calls"]] == ["c1", "c2"]
    assert asked["messages"][3] == {"role": "tool", "tool_call_id": "c2", "content": "rain"}
    assert asked["stream_options"] == {"include_usage": True}


def test_events_come_before_the_next_chunk_exists(server: RunningServer, live: LiveServer) -> None:
    gate = Gate()
    live.replies = [Reply.sse(event(TEXT[1]), gate, *map(event, TEXT[2:]), event("[DONE]"))]
    with server.client() as client:
        stream = client.responses.create(model=ROUTED, input="Hello!", stream=True)
        for each in stream:
            if each.type == "response.output_text.delta":  # the upstream has not sent more than this
                assert each.delta == "Hel"
                gate.open()
                break
        assert [each.type for each in stream][-1] == "response.completed"


def test_structured_output_by_the_client_s_own_helpers(server: RunningServer, live: LiveServer) -> None:
    live.replies = [
        message('{"name": "Ulm", "country": "DE"}'),
        streamed(chunk({"content": '{"name": "Bern",'}), chunk({"content": ' "country": "CH"}'}), chunk({}, "stop")),
    ]
    with server.client() as client:
        parsed = client.responses.parse(model=ROUTED, input="A city?", text_format=City)
        assert parsed.output_parsed == City(name="Ulm", country="DE")
        with client.responses.stream(model=ROUTED, input="A city?", text_format=City) as stream:
            assert stream.get_final_response().output_parsed == City(name="Bern", country="CH")
    form = live.requests[0].json["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "City", True)
    assert set(form["json_schema"]["schema"]["properties"]) == {"name", "country"}


def test_a_refusal_and_a_cut(server: RunningServer, live: LiveServer) -> None:
    live.replies = [message(None, refusal="I can't do that."), message("Hel", "length")]
    with server.client() as client:
        refused = client.responses.create(model=ROUTED, input="Hello!")
        cut = client.responses.create(model=ROUTED, input="Hello!", max_output_tokens=16)
    content = refused.output[0].content[0]  # type: ignore[union-attr, index]
    assert content.type == "refusal"
    assert content.refusal == "I can't do that."
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert live.requests[1].json["max_completion_tokens"] == 16


def test_a_picture_goes_to_the_strong_model(server: RunningServer, live: LiveServer) -> None:
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, PICTURE]}]
    with server.client() as client:
        raw = client.responses.with_raw_response.create(model="router-fixed-0.9", input=asked)
    assert raw.headers["x-routellm-reason"] == "modality"
    assert live.requests[0].json["messages"][0]["content"][1] == {
        "type": "image_url",
        "image_url": {"url": PICTURE["image_url"], "detail": "low"},
    }


def test_an_upstream_that_speaks_responses_gets_and_gives_every_byte(native: RunningServer, live: LiveServer) -> None:
    reply = b'{ "id":"resp_1", "odd" : [1.50, "\\u00fc"]}'
    live.replies = [Reply([reply], headers={"content-type": "application/json", "openai-version": "1"}, whole=True)]
    body = b'{ "previous_response_id":"resp_0", "model" : "router-fixed-0.4","store":true,\n"include":["any"], "odd":1e2}'
    response = post(native, body, path="/v1/responses")
    assert live.requests[0].path == "/v1/responses"
    assert live.requests[0].body == body.replace(b'"router-fixed-0.4"', b'"big"')
    assert live.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert response.body == reply
    assert response.headers["openai-version"] == "1"
    assert response.headers["x-routellm-reason"] == "no-text"  # the conversation is the provider's


def test_a_native_stream_comes_back_byte_for_byte(native: RunningServer, live: LiveServer) -> None:
    pieces = [
        b"event: response.crea",
        b'ted\ndata: {"type": "response.created"}\n\n',
        b": odd\n\nevent: x\nda",
        b"ta: \xff\n\n",
    ]
    live.replies = [Reply.sse(*pieces)]
    response = post(native, b'{"model": "router-fixed-0.4", "input": "Hello!", "stream": true}', path="/v1/responses")
    assert response.body == b"".join(pieces)


def test_a_native_stream_that_breaks_off_is_an_error_to_the_client(native: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(b'event: response.queued\ndata: {"type": "response.queued", "sequence_number": 0}\n\n', DIE)]
    with native.client() as client, client.responses.create(model=ROUTED, input="Hello!", stream=True) as stream:
        assert next(stream).type == "response.queued"
        with pytest.raises(openai.APIError, match="broke off") as caught:
            next(stream)
    assert caught.value.code == "upstream_broke_off"


@pytest.mark.parametrize("end", [DIE, b"", event({"error": {"message": "overloaded"}}), b"data: garbage\n\n"])
def test_a_translated_stream_that_breaks_off_is_an_error_to_the_client(
    server: RunningServer, live: LiveServer, end: Any
) -> None:
    live.replies = [Reply.sse(event(TEXT[1]), end)]
    with server.client() as client, client.responses.create(model=ROUTED, input="Hello!", stream=True) as stream:
        text: list[str] = []
        with pytest.raises(openai.APIError, match="model"):
            text.extend(each.delta for each in stream if each.type == "response.output_text.delta")
    assert text == ["Hel"]
    raw = post(server, b'{"model": "router-fixed-0.4", "input": "Hello!", "stream": true}', path="/v1/responses").body
    assert [json.loads(block.split(b"data: ")[1])["type"] for block in raw.split(b"\n\n")[-3:-1]] == [
        "error",
        "response.failed",
    ]


def test_the_mixed_pair_sends_each_model_what_it_speaks(live: LiveServer) -> None:
    with speaking(live, OPENAI_COMPATIBLE | {"responses"}, weak=OPENAI_COMPATIBLE) as server, server.client() as client:
        live.replies = [Reply.json({"id": "resp_1", "object": "response", "output": []}), message("Hello.")]
        client.responses.create(model="router-fixed-0.4", input="Hello!")
        client.responses.create(model="router-fixed-0.6", input="Hello!")
    assert [each.path for each in live.requests] == ["/v1/responses", "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"model": ROUTED}, 400, "input", "no `input`"),
        ({"input": "Hello!"}, 400, "model", "no `model`"),
        ({"model": ROUTED, "input": []}, 400, "input", "empty"),
        ({"model": ROUTED, "input": 5}, 400, "input", "string or a list"),
        ({"model": ROUTED, "input": [{"role": "user", "content": 5}]}, 400, "input[0].content", "must be a string"),
        ({"model": ROUTED, "input": [{"role": 5, "content": "a"}]}, 400, "input", "str"),
        (
            {"model": ROUTED, "input": "Hello!", "previous_response_id": "resp_1"},
            400,
            "previous_response_id",
            "stores nothing",
        ),
        ({"model": ROUTED, "previous_response_id": "resp_1"}, 400, "previous_response_id", "stores nothing"),
        ({"model": ROUTED, "input": "Hello!", "tools": [{"type": "web_search"}]}, 400, "tools[0]", "web_search"),
        ({"model": ROUTED, "input": "Hello!", "odd": 1}, 400, "odd", "can't be passed on"),
        ({"model": "gpt-4", "input": "Hello!"}, 404, "model", "not served"),
    ],
)
def test_what_can_t_be_asked_is_an_error_that_says_why(
    server: RunningServer, live: LiveServer, body: Any, status: int, param: str, words: str
) -> None:
    response = post(server, json.dumps(body).encode(), path="/v1/responses")
    error = json.loads(response.body)["error"]
    assert (response.status, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert words in error["message"]
    assert live.requests == []


def test_an_upstream_s_error_status_is_the_client_s(server: RunningServer, live: LiveServer) -> None:
    error = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    live.replies = [Reply.json(error, status=429, headers={"retry-after": "7"})]
    with server.client() as client, pytest.raises(openai.RateLimitError, match="slow down") as caught:
        client.responses.create(model=ROUTED, input="Hello!", stream=True)
    assert caught.value.response.headers["retry-after"] == "7"


def test_an_upstream_s_error_page_is_told_as_an_error(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply([b"<h1>Bad gateway</h1>"], status=502, headers={"content-type": "text/html"}, whole=True)]
    response = post(server, b'{"model": "router-fixed-0.4", "input": "Hello!"}', path="/v1/responses")
    assert response.status == 502
    assert "Bad gateway" in json.loads(response.body)["error"]["message"]


def test_a_reply_that_is_no_completion_is_a_bad_gateway(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.json({"choices": []})]
    response = post(server, b'{"model": "router-fixed-0.4", "input": "Hello!"}', path="/v1/responses")
    assert response.status == 502
    error = json.loads(response.body)["error"]
    assert "no chat completion" in error["message"]
    assert error["code"] == "upstream_bad_reply"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses/resp_1", 404),
        ("DELETE", "/v1/responses/resp_1", 404),
        ("POST", "/v1/responses/resp_1/cancel", 404),
        ("GET", "/v1/responses/resp_1/input_items", 404),
        ("GET", "/v1/responses", 405),
    ],
)
def test_nothing_is_stored_and_so_nothing_is_found(server: RunningServer, method: str, path: str, status: int) -> None:
    response = request(server, method, path)
    assert response.status == status
    assert json.loads(response.body)["error"]["type"] == "invalid_request_error"


def view(items: Any, prompt_from: Any = "last") -> tuple[str | None, set[str]]:
    api = ResponsesApi()
    seen = api.view(api.parse(json.dumps({"model": "m", "instructions": "Not this.", "input": items}).encode()), prompt_from)
    return seen.text, set(seen.modalities)


ONE: Any = {"role": "user", "content": "one"}
TWO: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "two"}, PICTURE]}
ANSWER: Any = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes", "annotations": []}]}
FILE: Any = {"role": "user", "content": [{"type": "input_file", "file_url": "https://e.x/a.pdf"}]}
OUTPUT: Any = {"type": "function_call_output", "call_id": "c", "output": "rain"}
SHOWN: Any = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "no"}, PICTURE]}


@pytest.mark.parametrize(
    ("items", "prompt_from", "text", "modalities"),
    [
        ("one", "last", "one", set()),
        (" \n", "last", None, set()),
        ([ONE, ANSWER, TWO], "last", "two", {"image"}),
        ([ONE, ANSWER, TWO], "first", "one", {"image"}),
        ([ONE, ANSWER, TWO], 2, "one\n\ntwo", {"image"}),
        ([ONE, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, OUTPUT], "last", "one", set()),
        ([ONE, SHOWN], "last", "one", {"image"}),
        ([ONE, {"type": "computer_call_output", "call_id": "c", "output": {"type": "x"}}], "last", "one", {"image"}),
        ([ONE, {"type": "reasoning", "id": "rs", "summary": [], "content": None}], "last", "one", set()),
        ([FILE], "last", None, {"file"}),
        ([{"role": "developer", "content": "d"}, ANSWER, OUTPUT], "last", None, set()),
    ],
)
def test_the_prompt_that_decides(items: Any, prompt_from: Any, text: str | None, modalities: set[str]) -> None:
    assert view(items, prompt_from) == (text, modalities)


@pytest.mark.parametrize(
    ("items", "param"),
    [
        (None, "input"),
        ({}, "input"),
        ([], "input"),
        (["one"], "input"),
        ([ONE, {"role": "user", "content": {}}], "input[1].content"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
    ],
)
def test_a_conversation_that_can_t_be_read_is_named(items: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        view(items)
    assert caught.value.param == param


def test_a_call_is_streamed_in_the_order_of_openai_s(server: RunningServer, live: LiveServer) -> None:
    live.replies = [streamed(chunk(call(0, call_id="c1", name="weather", arguments="{}")), chunk({}, "tool_calls"))]
    with server.client() as client:
        stream = client.responses.create(model=ROUTED, input="Hello!", tools=[TOOL], stream=True)
        assert [each.type for each in stream] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
