"""A chat's stream as a message's events: in order whatever comes, alike however it is cut, and never half an answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import UpstreamError
from routellm.serving.apis.messages.stream import MessageStream
from tests.live import event

DONE = event("[DONE]")


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "big", "choices": [choice], **fields})


def call(index: int | None, arguments: str = "", *, identity: str | None = None, name: str | None = None) -> dict[str, Any]:
    """A piece of a call."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    piece: dict[str, Any] = {"function": function}
    piece |= {} if index is None else {"index": index}
    return {"tool_calls": [piece if identity is None else {**piece, "id": identity, "type": "function"}]}


def run(pieces: Iterable[bytes], stop_sequences: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The events that a whole stream becomes."""
    stream = MessageStream(stop_sequences)
    out = b"".join([stream.feed(piece) for piece in pieces]) + stream.end()
    return parsed(out)


def parsed(out: bytes) -> list[dict[str, Any]]:
    events = []
    for written in out.split(b"\n\n")[:-1]:
        name, data = written.split(b"\n")
        fields = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + fields["type"].encode()
        events.append(fields)
    return events


def message_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of the events, which must come in the order that the API promises."""
    first, ping, *middle, delta, last = events
    assert (first["type"], ping["type"], delta["type"], last["type"]) == (
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    )
    message: dict[str, Any] = first["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    content: list[dict[str, Any]] = []
    pieces: list[str] | None = None
    for found in middle:
        match found:
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert pieces is None
                assert index == len(content)
                content.append(block)
                pieces = []
            case {"type": "content_block_delta", "index": index, "delta": piece}:
                assert pieces is not None
                assert index == len(content) - 1
                pieces.append(piece["text"] if content[-1]["type"] == "text" else piece["partial_json"])
                assert piece["type"] == ("text_delta" if content[-1]["type"] == "text" else "input_json_delta")
            case {"type": "content_block_stop", "index": index}:
                assert pieces is not None
                assert index == len(content) - 1
                said = "".join(pieces)
                content[-1] |= {"text": said} if content[-1]["type"] == "text" else {"input": said}
                pieces = None
            case _:
                raise AssertionError(found)
    assert pieces is None
    return {**message, "content": content, **delta["delta"], "usage": delta["usage"]}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def tool(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 6}}
TEXT = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo."}),
    chunk(finish="stop"),
    event({"id": "chatcmpl-1", "model": "big", "choices": [], "usage": USAGE}),
    DONE,
]
TOOLS = [
    chunk({"role": "assistant", "content": "Let me see."}),
    chunk(call(0, identity="a", name="weather")),
    chunk(call(0, '{"city":')),
    chunk(call(0, '"Ulm"}')),
    chunk(call(1, '{"zone', identity="b", name="time")),
    chunk(call(1, '":"CET"}')),
    chunk(finish="tool_calls"),
    DONE,
]


def test_text() -> None:
    events = run(TEXT)
    assert [found["type"] for found in events] == [
        *("message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert message_of(events) == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "big",
        "content": [text("Hello.")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 6, "output_tokens": 4},
    }


def test_each_piece_goes_out_as_soon_as_it_is_there() -> None:
    stream = MessageStream(())
    sent = [[found["type"] for found in parsed(stream.feed(piece))] for piece in TOOLS]
    assert sent == [
        ["message_start", "ping", "content_block_start", "content_block_delta"],
        ["content_block_stop", "content_block_start"],
        ["content_block_delta"],
        ["content_block_delta"],
        ["content_block_stop", "content_block_start", "content_block_delta"],
        ["content_block_delta"],
        [],
        ["content_block_stop", "message_delta", "message_stop"],
    ]
    assert stream.end() == b""


def test_tool_calls() -> None:
    message = message_of(run(TOOLS))
    weather, time = tool("a", "weather", '{"city":"Ulm"}'), tool("b", "time", '{"zone":"CET"}')
    assert message["content"] == [text("Let me see."), weather, time]
    assert message["stop_reason"] == "tool_use"


def test_calls_that_come_by_turns_follow_one_another() -> None:
    events = run(
        [
            chunk(call(0, '{"a":', identity="a", name="f")),
            chunk(call(1, '{"b":', identity="b", name="g")),
            chunk({"content": "Meanwhile"}),
            chunk(call(0, "1}")),
            chunk(call(1, "2}")),
            chunk({"content": " done."}),
            chunk(finish="tool_calls"),
            DONE,
        ]
    )
    assert message_of(events)["content"] == [tool("a", "f", '{"a":1}'), tool("b", "g", '{"b":2}'), text("Meanwhile done.")]


@pytest.mark.parametrize("index", [0, None])
def test_calls_that_share_an_index_are_told_apart_by_their_ids(index: int | None) -> None:
    pieces = [chunk(call(index, "{}", identity=identity, name="f")) for identity in ("a", "b")]
    message = message_of(run([*pieces, chunk(finish="stop"), DONE]))
    assert message["content"] == [tool("a", "f", "{}"), tool("b", "f", "{}")]
    assert message["stop_reason"] == "tool_use"


def test_an_id_in_each_piece_is_one_call() -> None:
    pieces = [chunk(call(0, piece, identity="a", name="f")) for piece in ("{", "}")]
    assert message_of(run([*pieces, DONE]))["content"] == [tool("a", "f", "{}")]


def test_a_call_without_arguments_and_without_an_id() -> None:
    [block] = message_of(run([chunk(call(0, name="now")), chunk(finish="tool_calls"), DONE]))["content"]
    assert (block["name"], block["input"]) == ("now", "")
    assert block["id"].startswith("toolu_")


def test_white_space_alone_is_no_block() -> None:
    message = message_of(run([chunk({"content": "\n"}), chunk({"content": " "}), *TOOLS[1:]]))
    assert [block["type"] for block in message["content"]] == ["tool_use", "tool_use"]
    message = message_of(run([chunk({"content": "\n"}), chunk({"content": " Hi"}), chunk({"content": " "}), DONE]))
    assert message["content"] == [text("\n Hi ")]


@pytest.mark.parametrize(
    ("finish", "stop_reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("tool_calls", "end_turn"),
        ("eos", "end_turn"),
    ],
)
def test_why_it_stopped(finish: str, stop_reason: str) -> None:
    assert message_of(run([chunk({"content": "Hi"}), chunk(finish=finish), DONE]))["stop_reason"] == stop_reason


def test_which_sequence_stopped_it_where_the_endpoint_says_so() -> None:
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "###"}]})
    message = message_of(run([chunk({"content": "Hi"}), last, DONE], ["###"]))
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "###")


def test_a_refusal_is_text_and_the_reason() -> None:
    message = message_of(run([chunk({"refusal": "I'd "}), chunk({"refusal": "rather not."}), chunk(finish="stop"), DONE]))
    assert (message["content"], message["stop_reason"]) == ([text("I'd rather not.")], "refusal")


def test_a_call_that_the_limit_cut_off_goes_out_as_far_as_it_came() -> None:
    message = message_of(run([chunk(call(0, '{"city":', identity="a", name="f")), chunk(finish="length"), DONE]))
    assert (message["content"], message["stop_reason"]) == ([tool("a", "f", '{"city":')], "max_tokens")


def test_only_the_first_answer_counts() -> None:
    other = event({"choices": [{"index": 1, "delta": {"content": "No"}}]})
    assert message_of(run([TEXT[1], other, *TEXT[2:]]))["content"] == [text("Hello.")]


def test_comments_other_line_ends_and_what_follows_the_end() -> None:
    sent = b": keep-alive\n\n" + b"".join(TEXT).replace(b"\n", b"\r\n") + chunk({"content": "more"}) + b"data: garbage\n\n"
    assert run([sent]) == run(TEXT)


BROKEN = {
    "without-an-end": ([*TEXT[:-1]], "no [DONE]"),
    "without-anything": ([], "no [DONE]"),
    "with-nothing-but-an-end": ([DONE], "before its answer began"),
    "garbage": ([TEXT[1], b"data: {garbage\n\n"], "no chat completion"),
    "another-form": ([TEXT[1], event({"choices": [{"delta": {"content": 5}}]})], "no chat completion"),
    "an-error": ([TEXT[1], event({"error": {"message": "overloaded", "code": 529}})], "overloaded"),
    "a-failed-finish": ([TEXT[1], chunk(finish="error"), DONE], "with an error"),
    "arguments-that-are-no-json": ([chunk(call(0, "{city}", identity="a", name="f")), DONE], "'f' with arguments"),
    "arguments-that-are-a-list": ([chunk(call(0, "[]", identity="a", name="f")), DONE], "'f' with arguments"),
    "half-a-call": ([chunk(call(0, "{", identity="a", name="f")), chunk(finish="tool_calls"), DONE], "'f' with arguments"),
    "a-call-that-goes-on-after-its-end": ([*TOOLS[:5], chunk(call(0, "}"))], "'weather' with arguments"),
    "a-call-without-a-name": ([chunk(call(0, "{}", identity="a"))], "no name"),
}


def run_broken(pieces: Iterable[bytes]) -> tuple[bytes, str]:
    """What comes out before the error, and the error."""
    stream = MessageStream(())
    out = b""
    try:
        for piece in pieces:
            out += stream.feed(piece)
        out += stream.end()
    except UpstreamError as error:
        return out, str(error)
    raise AssertionError("no error")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_answer_is_an_error_after_what_came_before(name: str) -> None:
    pieces, reason = BROKEN[name]
    out, error = run_broken(pieces)
    assert reason in error
    assert run_broken([b"".join(pieces)]) == (out, error)
    assert b"message_stop" not in out


def test_an_error_is_told_as_soon_as_nothing_else_is_left_to_tell() -> None:
    stream = MessageStream(())
    assert stream.feed(TEXT[1] + b"data: {garbage\n\n") != b""
    for piece in (b": comment\n\n", TEXT[2]):
        with pytest.raises(UpstreamError):
            stream.feed(piece)
    with pytest.raises(UpstreamError):
        stream.end()


cuts = st.lists(st.integers(0, 2_000), max_size=12)


def cut(whole: bytes, at: Sequence[int]) -> list[bytes]:
    ends = sorted({min(end, len(whole)) for end in at} | {0, len(whole)})
    return [whole[start:end] for start, end in pairwise(ends)]


@given(at=cuts, stream=st.sampled_from([TEXT, TOOLS]), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_the_events_are_the_same_however_the_bytes_are_cut(at: list[int], stream: list[bytes], line_end: bytes) -> None:
    assert run(cut(b"".join(stream).replace(b"\n", line_end), at)) == run(stream)


def test_the_events_are_the_same_byte_by_byte() -> None:
    whole = b"".join(TOOLS)
    assert run([whole[at : at + 1] for at in range(len(whole))]) == run(TOOLS)


arguments = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3).map(json.dumps)


@given(data=st.data(), asked=st.lists(arguments, max_size=4), said=st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_any_mixture_of_calls_and_text_arrives_whole(data: st.DataObject, asked: list[str], said: list[str]) -> None:
    waiting = [[call(index, "", identity=f"id{index}", name=f"f{index}")] for index in range(len(asked))]
    for index, whole in enumerate(asked):
        waiting[index] += [call(index, piece) for piece in data.draw(st.builds(split, st.just(whole), cuts))]
    waiting.append([{"content": piece} for piece in said])
    sent: list[bytes] = []
    while any(waiting):
        sent.append(chunk(data.draw(st.sampled_from([pieces for pieces in waiting if pieces])).pop(0)))
    content = message_of(run([*sent, chunk(), DONE]))["content"]
    calls = {block["name"]: block["input"] for block in content if block["type"] == "tool_use"}
    assert calls == {f"f{index}": whole for index, whole in enumerate(asked)}
    assert "".join("".join(said).split()) == "".join("".join(block.get("text", "") for block in content).split())


def split(whole: str, at: Sequence[int]) -> list[str]:
    ends = sorted({end % (len(whole) + 1) for end in at} | {0, len(whole)})
    return [whole[start:end] for start, end in pairwise(ends)]


scalars = st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=3) | st.sampled_from(["{}", "stop", "error", "f"])
names = st.sampled_from(
    ["choices", "delta", "tool_calls", "function", "name", "arguments", "content", "index", "id", "usage", "error"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": values,
        "tool_calls": st.lists(st.dictionaries(names, values, max_size=4), max_size=2),
        "refusal": values,
    },
)


@given(st.lists(st.dictionaries(names, values, max_size=4) | deltas.map(lambda d: {"choices": [{"delta": d}]}), max_size=4))
def test_no_stream_makes_the_translation_fail(chunks: list[dict[str, Any]]) -> None:
    stream = MessageStream(())
    try:
        events = parsed(stream.feed(b"".join([*map(event, chunks), DONE])) + stream.end())
    except UpstreamError as error:
        assert str(error)  # noqa: PT017
    else:
        message_of(events)
