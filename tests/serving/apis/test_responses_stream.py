"""A chat's reply as a response: whole, and as a stream of events however its bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from routellm.errors import UpstreamError
from routellm.serving.apis.base import Translator
from routellm.serving.apis.responses.api import ResponsesApi
from tests.live import event

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
TOKEN = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": None}]}


def translator(**fields: Any) -> Translator:
    api = ResponsesApi()
    request = api.parse(json.dumps({"model": "router-fixed", "input": "Hi", **fields}).encode())
    made = api.translator(request, frozenset({"chat"}))
    made.body_for("big")
    return made


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **fields.pop("choice", {})}
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "big-2"}
    return {**base, "choices": [choice], **fields}


def call(index: int | None, *, call_id: str | None = None, name: str | None = None, arguments: str | None = None) -> Any:
    piece = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [{key: value for key, value in piece.items() if value is not None}]}


def stream(*chunks: Any) -> bytes:
    return b"".join(event(each) for each in chunks) + event("[DONE]")


def parse(written: bytes) -> list[dict[str, Any]]:
    """The events, each checked against the official client's types; the `event:` line must repeat the type."""
    events = []
    for block in written.split(b"\n\n")[:-1]:
        first, second = block.split(b"\n")
        data = json.loads(second.removeprefix(b"data: "))
        assert first == b"event: " + data["type"].encode()
        EVENTS.validate_python(data)
        events.append(data)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    return events


def run(*chunks: Any, **fields: Any) -> list[dict[str, Any]]:
    made = translator(stream=True, **fields)
    return parse(made.feed(stream(*chunks)) + made.end())


def kinds(events: Iterable[dict[str, Any]]) -> list[str]:
    return [each["type"].removeprefix("response.") for each in events]


TEXT = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo."}), chunk({}, "stop")]
TWO_CALLS = [
    chunk({"role": "assistant", "content": None}),
    chunk({"content": "Let me see."}),
    chunk(call(0, call_id="c1", name="weather", arguments="")),
    chunk(call(0, arguments='{"city"')),
    chunk(call(0, arguments=':"Ulm"}')),
    chunk(call(1, call_id="c2", name="weather", arguments='{"city":"Bern"}')),
    chunk({}, "tool_calls"),
    chunk(usage=USAGE, choices=[]),
]


def test_the_events_of_a_text() -> None:
    events = run(*TEXT, chunk(usage=USAGE, choices=[]))
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    created, last = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    assert created["id"] == last["id"]
    assert (last["model"], last["created_at"], last["status"]) == ("big-2", 1_700_000_000, "completed")
    message = last["output"][0]
    assert message["content"] == [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}]
    assert (message["role"], message["status"]) == ("assistant", "completed")
    assert events[8]["item"] == message
    assert events[2]["item"] == {**message, "status": "in_progress", "content": []}
    assert {each["item_id"] for each in events[3:8]} == {message["id"]}
    assert last["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 13,
    }


def test_parallel_calls_after_a_text() -> None:
    events = run(*TWO_CALLS)
    assert kinds(events) == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output[1:]] == [
        ("c1", "weather", '{"city":"Ulm"}'),
        ("c2", "weather", '{"city":"Bern"}'),
    ]
    assert [each["output_index"] for each in events if "output_index" in each] == [0] * 6 + [1] * 5 + [2] * 4
    assert len({item["id"] for item in output}) == 3


@pytest.mark.parametrize(
    "pieces",
    [
        [call(None, call_id="c1", name="f", arguments='{"a":1}'), call(None, call_id="c2", name="g", arguments="{}")],
        [call(0, call_id="c1", name="f", arguments='{"a":1}'), call(0, call_id="c2", name="g", arguments="{}")],
        [
            call(0, call_id="c1", name="f"),
            call(0, call_id="c1", name="f", arguments='{"a":'),
            call(0, call_id="other", arguments="1}"),
            call(1, call_id="c2", name="g", arguments="{}"),
        ],
    ],
    ids=["no index", "index always 0", "name and id repeated"],
)
def test_calls_as_some_endpoints_number_them(pieces: list[Any]) -> None:
    output = run(*(chunk(piece) for piece in pieces), chunk({}, "tool_calls"))[-1]["response"]["output"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output] == [
        ("c1", "f", '{"a":1}'),
        ("c2", "g", "{}"),
    ]


def test_a_call_without_an_id_gets_one() -> None:
    output = run(chunk(call(0, name="f", arguments="{}")), chunk({}, "tool_calls"))[-1]["response"]["output"]
    assert output[0]["call_id"].startswith("call_")


def test_a_text_after_a_call_is_a_message_of_its_own() -> None:
    events = run(chunk(call(0, call_id="c1", name="f", arguments="{}")), chunk({"content": "Done."}), chunk({}, "stop"))
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call", "message"]


def test_a_refusal() -> None:
    events = run(chunk({"content": "Hm. "}), chunk({"refusal": "I can't "}), chunk({"refusal": "do that."}), chunk({}, "stop"))
    assert kinds(events)[3:] == [
        *("content_part.added", "output_text.delta", "output_text.done", "content_part.done"),
        *("content_part.added", "refusal.delta", "refusal.delta", "refusal.done", "content_part.done"),
        *("output_item.done", "completed"),
    ]
    assert [part["type"] for part in events[-1]["response"]["output"][0]["content"]] == ["output_text", "refusal"]
    assert events[-1]["response"]["output"][0]["content"][1]["refusal"] == "I can't do that."
    assert [each["content_index"] for each in events if "content_index" in each] == [0] * 4 + [1] * 5


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    events = run(chunk({"content": "Hel"}), chunk({}, finish))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": reason}
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    output = run(chunk({"role": "assistant", "content": ""}), chunk({}, "stop"))[-1]["response"]["output"]
    assert [part["text"] for part in output[0]["content"]] == [""]


def test_log_probabilities_come_along() -> None:
    events = run(chunk({"content": "Hi"}, choice={"logprobs": {"content": [TOKEN]}}), chunk({}, "stop"))
    expected = [{**TOKEN, "top_logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": []}]}]
    assert events[4]["logprobs"] == expected
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


def test_a_response_tells_the_settings_that_were_asked_for() -> None:
    fields: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
        "text": {"verbosity": "low"},
        "tool_choice": "required",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        "top_logprobs": 2,
        "top_p": 0.9,
        "user": "u",
        "safety_identifier": "s",
    }
    response = run(*TEXT, **fields)[-1]["response"]
    assert {name: response[name] for name in fields} == {
        **fields,
        "reasoning": {"effort": "low", "summary": None},
        "text": {"format": {"type": "text"}, "verbosity": "low"},
    }
    assert response["store"] is False
    Response.model_validate(response)


def test_an_endpoint_may_leave_out_done_but_not_the_finish() -> None:
    made = translator(stream=True)
    written = made.feed(b"".join(map(event, TEXT)))
    assert kinds(parse(written + made.end()))[-1] == "completed"
    made = translator(stream=True)
    made.feed(b"".join(map(event, TEXT[:-1])))
    with pytest.raises(UpstreamError, match="before its answer"):
        made.end()
    with pytest.raises(UpstreamError, match="before its answer"):
        translator(stream=True).feed(stream(*TEXT[:-1]))


def test_what_follows_the_end_is_passed_by() -> None:
    made = translator(stream=True)
    written = made.feed(stream(*TEXT) + b"data: more\n\n") + made.feed(b"data: more\n\n") + made.end()
    assert kinds(parse(written))[-1] == "completed"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not json", "no chat completion"),
        (b"\xff\xfe", "no chat completion"),
        (b"[]", "no chat completion"),
        (b'{"choices": {}}', "no chat completion"),
        (b'{"choices": [{"delta": {"content": 5}}]}', "no chat completion"),
        (b"[" * 100_000, "no chat completion"),
        (b'{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}', "without a name"),
        (b'{"error": {"message": "overloaded", "code": 529}}', "overloaded"),
        (b'{"error": "overloaded"}', "overloaded"),
    ],
)
def test_a_stream_that_goes_wrong_ends_in_error_and_failed(data: bytes, words: str) -> None:
    made = translator(stream=True)
    written = made.feed(event(TEXT[0]))
    with pytest.raises(UpstreamError, match=words):
        made.feed(event(TEXT[1]) + b"data: " + data + b"\n\n")
    told = {"error": {"message": "it broke", "type": "upstream_error", "param": None, "code": "upstream_unreachable"}}
    events = parse(written + (made.error_event(json.dumps(told).encode()) or b""))
    assert kinds(events)[-3:] == ["output_text.delta", "error", "failed"]  # what was complete before is not lost
    assert (events[-2]["message"], events[-2]["code"]) == ("it broke", "upstream_unreachable")
    assert events[-2]["error"] == told["error"]
    response = events[-1]["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "server_error", "message": "it broke"})
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert response["output"][0]["status"] == "incomplete"


def test_a_stream_that_breaks_before_it_began_ends_in_an_error_alone() -> None:
    told = {"error": {"message": "it broke", "type": "upstream_error", "param": None, "code": "upstream_timeout"}}
    assert kinds(parse(translator(stream=True).error_event(json.dumps(told).encode()) or b"")) == ["error"]


@given(st.lists(st.integers(0, 2_000), max_size=12), st.sampled_from([TEXT, TWO_CALLS]))
def test_where_the_stream_is_cut_makes_no_difference(cuts: list[int], chunks: list[Any]) -> None:
    whole = stream(*chunks)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    made = translator(stream=True)
    written = b"".join(made.feed(whole[start:stop]) for start, stop in pairwise(edges)) + made.end()
    assert [without_ids(each) for each in parse(written)] == [without_ids(each) for each in run(*chunks)]


def without_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if isinstance(value, dict):
        return {name: without_ids(each) for name, each in value.items() if name not in ("id", "item_id", "completed_at")}
    return value


_DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, st.text(max_size=4)),
    st.builds(lambda text: {"refusal": text}, st.text(max_size=4)),
    st.builds(
        lambda index, call_id, arguments: call(index, call_id=call_id, name="f", arguments=arguments),
        st.integers(0, 3) | st.none(),
        st.sampled_from(["c1", "c2", None]),
        st.text(max_size=4),
    ),
)


@given(st.lists(_DELTAS, max_size=8), st.sampled_from(["stop", "length", "tool_calls", "eos"]))
def test_any_order_of_pieces_makes_events_that_fit_together(deltas: list[Any], finish: str) -> None:
    events = run(*(chunk(delta) for delta in deltas), chunk({}, finish))
    last = events[-1]["response"]
    added = [each for each in events if each["type"] == "response.output_item.added"]
    done = [each["item"] for each in events if each["type"] == "response.output_item.done"]
    assert [each["output_index"] for each in added] == list(range(len(added)))
    assert [each["item"]["id"] for each in added] == [item["id"] for item in done]
    assert done == last["output"]
    said = "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
    assert said == "".join(delta.get("content") or "" for delta in deltas)
    Response.model_validate(last)


def completion(message: dict[str, Any], finish: str | None = "stop", **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **fields.pop("choice", {})}
    base = {"id": "c", "object": "chat.completion", "created": 1_700_000_000, "model": "big-2"}
    return json.dumps({**base, "choices": [choice], **fields}).encode()


def replied(body: bytes, **fields: Any) -> dict[str, Any]:
    response: dict[str, Any] = json.loads(translator(**fields).reply(body))
    Response.model_validate(response)
    return response


def test_a_whole_text() -> None:
    response = replied(completion({"content": "Hello."}, usage=USAGE, service_tier="default"))
    assert (response["object"], response["status"], response["model"]) == ("response", "completed", "big-2")
    assert response["error"] is response["incomplete_details"] is None
    assert response["output"][0]["content"][0]["text"] == "Hello."
    assert response["usage"]["total_tokens"] == 13
    assert response["service_tier"] == "default"


def test_a_whole_answer_with_everything_in_it() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    choice = {"logprobs": {"content": [TOKEN]}}
    response = replied(completion({"content": "Hi", "refusal": "No.", "tool_calls": calls}, "length", choice=choice))
    message, function_call = response["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][0]["logprobs"][0]["token"] == "Hi"
    assert (message["status"], function_call["status"], response["status"]) == ("completed", "incomplete", "incomplete")
    assert (function_call["call_id"], function_call["name"], function_call["arguments"]) == ("c1", "f", "{}")
    assert response["usage"] is None


def test_a_whole_answer_without_a_word() -> None:
    assert replied(completion({"content": None}))["output"][0]["content"][0]["text"] == ""


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b'{"error": {"message": "x"}}']
)
def test_what_is_no_completion_is_the_upstream_s_error(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        translator().reply(body)


def test_errors_keep_what_can_be_told_of_them() -> None:
    told = b'{"error": {"message": "slow down", "type": "rate_limit", "param": null, "code": null}}'
    assert translator().error(429, told) == told
    for body in (b"<html>Bad gateway</html>", b'{"detail": "Bad gateway"}', b"\xffBad gateway"):
        error = json.loads(translator().error(502, body))["error"]
        assert "502" in error["message"]
        assert "Bad gateway" in error["message"]
