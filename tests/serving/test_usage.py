from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.serving.usage import LARGEST_COUNTED, UsageReader, estimate_tokens
from routellm.types import Usage
from routellm.upstream.base import Format

TRICKS = [
    "usage",
    '"usage": {"prompt_tokens": 999, "completion_tokens": 999}',
    '\\"usage\\":{"prompt_tokens":999}',
    'data: {"usage": {"prompt_tokens": 999, "completion_tokens": 999}}\n\n',
    '},"usage":{"prompt_tokens":999,"completion_tokens":999}}',
]
"""What a model may write that is about usage and is none."""

REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 40}]}).encode()  # 10 tokens


def told(given: int, answered: int, cached: int = 0) -> Usage:
    return Usage(input_tokens=given, output_tokens=answered, cached_input_tokens=cached)


def estimated(given: int, answered: int, cached: int = 0) -> Usage:
    return Usage(input_tokens=given, output_tokens=answered, cached_input_tokens=cached, estimated=True)


def events(*values: Any) -> bytes:
    return b"".join(
        b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n" for value in values
    )


def read(format: Format, *chunks: bytes, stream: bool = True, encoding: str = "", request: bytes = REQUEST) -> Usage:
    reader = UsageReader(format, "text/event-stream; charset=utf-8" if stream else "application/json", encoding)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.usage(request)


def delta(content: str, **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": content}}], **more}


CHAT_USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
CACHED = {**CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0}}
RESPONSES_USAGE = {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 34, "total_tokens": 46}
MESSAGES_USAGE = {"input_tokens": 3, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 34}

WHOLE: list[tuple[Format, dict[str, Any], Usage]] = [
    ("chat", {"choices": [{"message": {"content": "TEXT"}}], "usage": CACHED}, told(12, 34, 8)),
    ("chat", {"usage": CHAT_USAGE, "choices": [{"message": {"content": "TEXT"}}]}, told(12, 34)),
    ("chat", {"choices": [{"message": {"content": "TEXT", "usage": {"prompt_tokens": 1}}}], "usage": CACHED}, told(12, 34, 8)),
    ("completions", {"choices": [{"text": "TEXT"}], "usage": CHAT_USAGE, "id": "c"}, told(12, 34)),
    ("embeddings", {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 12, "total_tokens": 12}}, told(12, 0)),
    ("responses", {"output": [{"content": [{"text": "TEXT"}]}], "usage": RESPONSES_USAGE, "user": None}, told(12, 34, 8)),
    ("messages", {"content": [{"type": "text", "text": "TEXT"}], "usage": MESSAGES_USAGE}, told(12, 34, 5)),
]


@pytest.mark.parametrize("text", ["At noon.", *TRICKS])
@pytest.mark.parametrize(("format", "body", "usage"), WHOLE)
def test_a_whole_reply(format: Format, body: dict[str, Any], usage: Usage, text: str) -> None:
    for indent in (None, 2):
        encoded = json.dumps(body, indent=indent).replace('"TEXT"', json.dumps(text)).encode()
        assert read(format, encoded, stream=False) == usage
        assert read(format, *(encoded[start : start + 7] for start in range(0, len(encoded), 7)), stream=False) == usage


def chat_stream(*texts: str, null: bool = True, usage: Any = CACHED) -> bytes:
    none = {"usage": None} if null else {}
    last = [{"id": "c", "choices": [], "usage": usage}] if usage is not None else []
    return events(*(delta(text, **none) for text in texts), *last, b"[DONE]")


def messages_stream(*texts: str, end: bool = True) -> bytes:
    start = {**MESSAGES_USAGE, "output_tokens": 1}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 34}}
    return b"".join(
        b"event: " + value["type"].encode() + b"\n" + events(value)
        for value in [
            {"type": "message_start", "message": {"id": "m", "content": [], "usage": start}},
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
                for text in texts
            ),
            *([last] if end else []),
            {"type": "message_stop"},
        ]
    )  # fmt: skip


def responses_stream(*texts: str, end: bool = True) -> bytes:
    response = {"id": "r", "output": [{"content": [{"type": "output_text", "text": "".join(texts)}]}], "usage": None}
    return events(
        {"type": "response.created", "response": response},
        *({"type": "response.output_text.delta", "delta": text} for text in texts),
        {"type": "response.output_text.done", "text": "".join(texts)},
        *([{"type": "response.completed", "response": {**response, "usage": RESPONSES_USAGE}}] if end else []),
    )


STREAMS: list[tuple[Format, bytes, Usage]] = [
    ("chat", chat_stream("At ", "noon."), told(12, 34, 8)),
    ("chat", chat_stream("At ", "noon.", null=False, usage=CHAT_USAGE), told(12, 34)),
    ("chat", chat_stream(*TRICKS), told(12, 34, 8)),
    ("chat", events(delta("a", usage={**CHAT_USAGE, "completion_tokens": 1}), delta("b", usage=CACHED)), told(12, 34, 8)),
    ("chat", events(delta("a", tool={"usage": CHAT_USAGE}), {"usage": CACHED}), told(12, 34, 8)),
    ("completions", events({"choices": [{"text": "At noon."}]}, {"choices": [], "usage": CHAT_USAGE}), told(12, 34)),
    ("messages", messages_stream("At ", "noon."), told(12, 34, 5)),
    ("messages", messages_stream(*TRICKS), told(12, 34, 5)),
    ("responses", responses_stream("At ", "noon."), told(12, 34, 8)),
    ("responses", responses_stream(*TRICKS), told(12, 34, 8)),
]  # fmt: skip


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("format", "stream", "usage"), STREAMS)
def test_a_stream_however_it_is_cut(format: Format, stream: bytes, usage: Usage, ends: bytes) -> None:
    stream = stream.replace(b"\n", ends)
    assert read(format, stream) == usage
    for size in (1, 3, 50, 333):
        assert read(format, *(stream[start : start + size] for start in range(0, len(stream), size))) == usage


def test_an_estimate_where_nothing_is_told() -> None:
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "y" * 81}}]}).encode()
    assert read("chat", body, stream=False) == estimated(10, 21)
    for null in (True, False):
        assert read("chat", chat_stream("y" * 40, "y" * 41, null=null, usage=None)) == estimated(10, 21)
    call = {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"a":1}'}}]}}]}  # 11 bytes in the JSON
    assert read("chat", events(call, delta("y" * 5))) == estimated(10, 4)
    assert read("responses", responses_stream("y" * 40, "y" * 41, end=False)) == estimated(10, 21)


def test_what_broke_off_has_the_rest_estimated() -> None:
    stream = messages_stream("y" * 40, "y" * 41, end=False)
    assert read("messages", stream) == estimated(12, 21, 5), "the input is told at a message's beginning"
    assert read("chat", b"", stream=False) == estimated(10, 0)
    assert read("embeddings", b'{"data": []}', stream=False) == estimated(10, 0)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": "12", "completion_tokens": 5},
        {"prompt_tokens": 1e300, "completion_tokens": 5},
        {"prompt_tokens": 10**30, "completion_tokens": 5},
        {"something": "else"},
        {},
        [],
        "usage",
    ],
)
def test_usage_that_makes_no_sense_is_none(usage: Any) -> None:
    body = json.dumps({"choices": [{"message": {"content": "y" * 8}}], "usage": usage}).encode()
    assert read("chat", body, stream=False) == estimated(10, 2)
    assert read("chat", chat_stream("y" * 8, usage=usage)) == estimated(10, 2)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_replies_are_read(encoding: str) -> None:
    squeeze = gzip.compress if encoding == "gzip" else zlib.compress
    body = squeeze(json.dumps(WHOLE[0][1]).encode())
    assert read("chat", body[:5], body[5:], stream=False, encoding=encoding) == told(12, 34, 8)
    assert read("chat", squeeze(chat_stream("At noon.")), encoding=encoding) == told(12, 34, 8)


def test_what_can_not_be_decompressed_counts_as_it_came() -> None:
    for body, encoding in (
        (b"\x0b\x02\x80" * 40, "br"),
        (b"\x1f\x8b broken" * 12, "gzip"),
        (gzip.compress(b"x" * (2 << 20)), "gzip"),
    ):
        assert read("chat", body, stream=False, encoding=encoding) == estimated(10, -(-len(body) // 4))


def test_of_a_large_reply_the_end_is_enough_and_no_more_is_kept() -> None:
    vectors = b'{"data":[' + b"0.123456789," * (1 << 20) + b'0],"usage":{"prompt_tokens":12,"total_tokens":12}}'
    reader = UsageReader("embeddings", "application/json")
    for start in range(0, len(vectors), 65_536):
        reader.feed(vectors[start : start + 65_536])
        assert sum(map(len, reader._pieces)) <= 1 << 20
    assert reader.usage(REQUEST) == told(12, 0)


def test_an_endless_event_is_not_kept() -> None:
    reader = UsageReader("chat", "text/event-stream")
    for _ in range(100):
        reader.feed(b"x" * 100_000)
    assert sum(map(len, reader._pieces)) <= (4 << 20) + 100_000
    reader.feed(b"\n\n" + chat_stream("At noon."))
    assert reader.usage(REQUEST) == told(12, 34, 8)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5), st.booleans())
def test_no_bytes_make_it_fail(data: bytes, cuts: list[int], stream: bool) -> None:
    data = data.replace(b"u", b'"usage":{').replace(b"d", b"\ndata:")
    pieces = [data[start:end] for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True)]
    for format in ("chat", "completions", "embeddings", "messages", "responses"):
        usage = read(format, *pieces, stream=stream)
        assert usage.input_tokens >= usage.cached_input_tokens >= 0
        assert usage.output_tokens >= 0


def test_deeply_nested_json_is_no_usage() -> None:
    body = b'{"a":' + b"[" * 100_000 + b'"usage":{}'
    assert read("chat", body, stream=False) == estimated(10, 0)
    assert read("chat", b"data: " + body + b"\n\n", request=body) == estimated(0, 0)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "x" * 40}]}, 10),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 41}]}]}, 11),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 999}}]}]}, 0),
        ({"messages": [{"content": [{"source": {"type": "base64", "data": "A" * 999}}]}], "system": "x" * 8}, 2),
        ({"input": ["x" * 4, "x" * 4]}, 2),
        ({"input": [1, 2, 3], "encoding_format": None, "dimensions": 256}, 3),
        ({"messages": [{"content": "\u4e2d" * 4}], "temperature": 0.5, "stream": True, "n": 1}, 3),
        ({"messages": [], "tools": [{"type": "function", "function": {"description": "x" * 16}}]}, 4),
    ],
)
def test_a_requests_texts_are_counted(body: dict[str, Any], tokens: int) -> None:
    assert estimate_tokens(json.dumps({"model": "router-mf-0.5", **body}).encode()) == tokens


def test_a_request_too_large_to_be_looked_through_counts_as_the_largest() -> None:
    assert estimate_tokens(b" " * (LARGEST_COUNTED + 1)) == LARGEST_COUNTED // 4
    assert estimate_tokens(b"not JSON") == 0
