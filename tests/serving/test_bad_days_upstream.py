"""Whatever an upstream does to a request, its client gets a typed error, a whole reply, or one that is plainly cut; and the
next request is answered. Natively, where bytes pass through, and where they are translated."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from routellm.serving.settings import read_gateway_settings
from tests.dispatch.raw import Act, Exchange, head, reply, stream
from tests.live import LiveServer, Reply, event
from tests.serving.raw import RawUpstream, Seen, ask
from tests.serving.running import KEY, STRONG, WEAK, RunningServer, chat_body, settings_for

NATIVE, TRANSLATED = "/v1/chat/completions", "/v1/messages"
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Grüße."}, "finish_reason": "stop"}],
}
BODY = json.dumps(COMPLETION, ensure_ascii=False).encode()
CHUNK = event({"id": "c", "choices": [{"index": 0, "delta": {"content": "one"}}]})
LIMITS = {"first_byte_seconds": 1.0, "idle_seconds": 0.6, "total_seconds": 2.0}
SECTION: dict[str, Any] = {
    "models": {STRONG: {"timeouts": LIMITS}, WEAK: {"timeouts": LIMITS}},
    "breaker": {"failures": 0},
    "retries": {"count": 0},
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with RawUpstream(reply(BODY)) as raw:
        yield raw


@pytest.fixture(scope="module")
def gateway(upstream: RawUpstream) -> Iterator[RunningServer]:
    """One server for all of these days."""
    with RunningServer(settings_for(upstream.url, gateway=read_gateway_settings(SECTION, {}, "a test"))) as running:
        yield running
        raised = [record for record in running.log if record.exc_info or record.levelno >= logging.ERROR]
        assert [record.getMessage() for record in raised] == []


def say(server: RunningServer, path: str, **fields: Any) -> Seen:
    return ask(server.port, {**chat_body(), "max_tokens": 5, **fields}, path)


def assert_well(server: RunningServer, upstream: RawUpstream) -> None:
    """The next request is answered, and once."""
    upstream.answer_with(reply(BODY))
    before = upstream.requests
    assert say(server, NATIVE).body == BODY
    assert upstream.requests == before + 1


def pieces(*parts: bytes, close: bool = False) -> Act:
    """These bytes, each in a packet of its own."""

    async def act(exchange: Exchange) -> None:
        for part in parts:
            await exchange.send(part)
            await asyncio.sleep(0.005)
        if close:
            await exchange.reset()

    return act


def chunks(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + last


def headed(line: bytes) -> bytes:
    """A head with this line in it."""
    return head(content_length=str(len(BODY)))[:-2] + line + b"\r\n\r\n"


async def cut(exchange: Exchange) -> None:
    await exchange.reset()


async def silence(exchange: Exchange) -> None:
    await exchange.stall()


async def slow_head(exchange: Exchange) -> None:
    await exchange.drip(head(content_length=str(len(BODY))) + BODY, 1.0)


async def slow_body(exchange: Exchange) -> None:
    await exchange.send(head(content_length=str(len(BODY))))
    await exchange.drip(BODY, 0.3)


async def silent_body(exchange: Exchange) -> None:
    await exchange.send(head(content_length=str(len(BODY))) + BODY[:9])
    await exchange.stall()


async def endless_interim(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


async def endless_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nx-a: ")
    while True:
        await exchange.send(b"a" * 10_000)


LENGTH = b"content-length: %d" % len(BODY)
NO_REPLY = {
    "cut": cut,
    "cut-in-its-head": pieces(b"HTTP/1.1 200 OK\r\ncontent-ty", close=True),
    "garbage": pieces(b"\x16\x03\x01 what is this\r\n\r\n"),
    "no-head": pieces(BODY, close=True),
    "http-2": pieces(b"HTTP/2 200 OK\r\n" + LENGTH + b"\r\n\r\n" + BODY),
    "switches-protocols": pieces(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
    "negative-length": pieces(head(content_length="-1") + BODY),
    "two-lengths": pieces(headed(b"content-length: 5") + BODY),
    "same-length-twice": pieces(headed(LENGTH) + BODY),
    "list-of-lengths": pieces(head(content_length=f"{len(BODY)}, {len(BODY)}") + BODY),
    "length-and-chunks": pieces(head(content_length="5", transfer_encoding="chunked") + chunks(BODY)),
    "chunks-and-length": pieces(head(transfer_encoding="chunked", content_length="5") + chunks(BODY)),
    "space-before-colon": pieces(headed(b"x-a : b") + BODY),
    "folded-header": pieces(headed(b"x-a: b\r\n c") + BODY),
    "control-character": pieces(headed(b"x-a: b\x01c") + BODY),
    "bare-line-feed": pieces(headed(b"x-a: b\nx-b: c") + BODY),
    "status-799": pieces(head("799 What", content_length=str(len(BODY))) + BODY),
    "status-042": pieces(head("042 What", content_length=str(len(BODY))) + BODY),
    "endless-interim-replies": endless_interim,
    "endless-head": endless_head,
}


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
@pytest.mark.parametrize("day", NO_REPLY)
def test_no_reply_is_a_bad_gateway(gateway: RunningServer, upstream: RawUpstream, day: str, path: str) -> None:
    upstream.answer_with(NO_REPLY[day])
    before = upstream.requests
    seen = say(gateway, path)
    assert (seen.status, seen.headers["content-type"], seen.whole) == (502, "application/json", True)
    kind, message = seen.json["error"]["type"], seen.json["error"]["message"]
    assert kind == ("upstream_error" if path == NATIVE else "api_error")
    assert STRONG in message
    assert KEY not in message
    assert upstream.requests == before + 1
    assert_well(gateway, upstream)


@pytest.mark.parametrize("act", [silence, slow_head], ids=["silence", "a-byte-a-second"])
@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
def test_no_reply_in_time_is_a_gateway_timeout(gateway: RunningServer, upstream: RawUpstream, act: Act, path: str) -> None:
    upstream.answer_with(act)
    seen = say(gateway, path)
    assert (seen.status, seen.json["error"]["type"]) == (504, "upstream_error" if path == NATIVE else "timeout_error")
    assert "within 1 s" in seen.json["error"]["message"]
    assert_well(gateway, upstream)


BROKEN_OFF = {
    "cut": (pieces(head(content_length=str(len(BODY))) + BODY[:20], close=True), 502),
    "length-too-long": (pieces(head(content_length=str(len(BODY) + 9)) + BODY, close=True), 502),
    "bad-chunk": (pieces(head(transfer_encoding="chunked") + b"1\r\n{\r\n", b"nonsense\r\n"), 502),
    "chunk-of-2-to-the-64": (pieces(head(transfer_encoding="chunked") + b"1\r\n{\r\n", b"10000000000000000\r\n{"), 502),
    "cut-between-chunks": (pieces(head(transfer_encoding="chunked") + chunks(BODY, last=b""), close=True), 502),
    "falls-silent": (silent_body, 504),
    "a-byte-at-a-time": (slow_body, 504),
}


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
@pytest.mark.parametrize("day", BROKEN_OFF)
def test_a_reply_that_breaks_off_is_cut_or_an_error_and_never_taken_for_whole(
    gateway: RunningServer, upstream: RawUpstream, day: str, path: str
) -> None:
    act, status = BROKEN_OFF[day]
    upstream.answer_with(act)
    seen = say(gateway, path)
    if path == NATIVE:
        assert (seen.status, seen.whole) == (200, False)
        assert BODY.startswith(seen.body)
    else:
        assert (seen.status, seen.whole) == (status, True)
        assert STRONG in seen.json["error"]["message"]
    assert_well(gateway, upstream)


BROKEN_STREAMS = {
    "cut": Exchange.reset,
    "falls-silent": Exchange.stall,
    "never-ends": lambda exchange: exchange.drip(chunks(b":\n", last=b"") * 99, 0.05),
    "bad-chunk": lambda exchange: exchange.send(b"nonsense\r\n"),
}


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
@pytest.mark.parametrize("day", BROKEN_STREAMS)
def test_a_stream_that_breaks_off_ends_in_an_error(gateway: RunningServer, upstream: RawUpstream, day: str, path: str) -> None:
    async def then(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await BROKEN_STREAMS[day](exchange)

    upstream.answer_with(stream(CHUNK, then=then))
    seen = say(gateway, path, stream=True)
    assert seen.status == 200
    if day == "never-ends" and path == NATIVE:
        assert (seen.body.startswith(CHUNK), seen.whole) == (True, False)  # it was cut within an event
    else:
        assert seen.whole
        last = json.loads(seen.body.rstrip().splitlines()[-1].removeprefix(b"data: "))
        assert STRONG in last["error"]["message"]
    assert b"[DONE]" not in seen.body
    assert b"message_stop" not in seen.body
    assert_well(gateway, upstream)


async def closes_at_the_end(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + BODY[:30])
    await asyncio.sleep(0.02)
    await exchange.send(BODY[30:])
    await exchange.reset()


ODD_BUT_WHOLE = {
    "interim-replies": pieces(
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + headed(b"x-a: b") + BODY,
    ),
    "http-1.0": closes_at_the_end,
    "byte-by-byte-chunks": pieces(
        head(transfer_encoding="chunked"), *(chunks(BODY[at : at + 1], last=b"") for at in range(len(BODY))), b"0\r\n\r\n"
    ),
    "chunk-extensions": pieces(head(transfer_encoding="chunked") + b"%x;a=b\r\n%b\r\n0;c\r\n\r\n" % (len(BODY), BODY)),
    "60-kb-of-headers": pieces(headed(b"x-big: " + b"a" * 60_000) + BODY),
}


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
@pytest.mark.parametrize("day", ODD_BUT_WHOLE)
def test_an_odd_reply_arrives_whole(gateway: RunningServer, upstream: RawUpstream, day: str, path: str) -> None:
    upstream.answer_with(ODD_BUT_WHOLE[day])
    seen = say(gateway, path)
    assert (seen.status, seen.whole) == (200, True)
    assert "link" not in seen.headers
    if path == NATIVE:
        assert seen.body == BODY
    else:
        assert seen.json["content"] == [{"type": "text", "text": "Grüße."}]
    assert_well(gateway, upstream)


def test_trailers_are_not_taken_for_headers(gateway: RunningServer, upstream: RawUpstream) -> None:
    upstream.answer_with(pieces(head(transfer_encoding="chunked") + chunks(BODY, last=b"0\r\nx-t: 1\r\nserver: evil\r\n\r\n")))
    seen = say(gateway, NATIVE)
    assert (seen.body, seen.headers["x-routellm-model"]) == (BODY, STRONG)
    assert {"x-t", "server"}.isdisjoint(seen.headers)
    assert_well(gateway, upstream)


def test_what_a_reply_has_beyond_its_length_reaches_nobody(gateway: RunningServer, upstream: RawUpstream) -> None:
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    upstream.answer_with(pieces(head(content_length=str(len(BODY))) + BODY + evil))
    assert say(gateway, NATIVE).body == BODY
    assert_well(gateway, upstream)
    upstream.answer_with(pieces(head(content_length="5") + BODY))
    assert say(gateway, NATIVE).body == BODY[:5]
    upstream.answer_with(pieces(head(content_length="5") + BODY))
    assert say(gateway, TRANSLATED).status == 502
    assert_well(gateway, upstream)


@pytest.mark.parametrize(("status", "translated"), [("204 No Content", 502), ("304 Not Modified", 502)])
def test_a_reply_without_a_body(gateway: RunningServer, upstream: RawUpstream, status: str, translated: int) -> None:
    upstream.answer_with(reply(b"", status), pieces(head(status, content_length="99")), pieces(head(status)))
    for _ in range(2):
        seen = say(gateway, NATIVE)
        assert (seen.status, seen.body, seen.whole) == (int(status[:3]), b"", True)
    assert say(gateway, TRANSLATED).status == translated
    assert_well(gateway, upstream)


def test_a_redirect_is_handed_on_and_never_followed(gateway: RunningServer, upstream: RawUpstream) -> None:
    upstream.answer_with(reply(b"", "307 Temporary Redirect", location="http://127.0.0.1:1/"))
    before = upstream.requests
    assert (say(gateway, NATIVE).status, say(gateway, TRANSLATED).status) == (307, 502)
    assert upstream.requests == before + 2


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
def test_bytes_that_are_no_utf_8(gateway: RunningServer, upstream: RawUpstream, path: str) -> None:
    broken = BODY.replace("ü".encode(), b"\xff\xc3")
    sevens = (broken[at : at + 7] for at in range(0, len(broken), 7))
    upstream.answer_with(pieces(head(transfer_encoding="chunked"), *(chunks(each, last=b"") for each in sevens), chunks()))
    seen = say(gateway, path)
    if path == NATIVE:
        assert (seen.status, seen.body) == (200, broken)
    else:
        assert (seen.status, seen.json["error"]["type"]) == (502, "api_error")
        assert "no chat completion" in seen.json["error"]["message"]
    assert_well(gateway, upstream)


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
def test_utf_8_that_is_split_over_chunks(gateway: RunningServer, upstream: RawUpstream, path: str) -> None:
    said = b'data: {"id": "c", "choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n' % "😀ü".encode()
    end = event({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + event("[DONE]")
    whole = said + end
    upstream.answer_with(stream(*(whole[at : at + 1] for at in range(len(whole)))))
    seen = say(gateway, path, stream=True)
    assert seen.body == whole if path == NATIVE else '"text":"😀ü"'.encode() in seen.body
    broken = whole.replace("ü".encode(), b"\xfc")
    upstream.answer_with(stream(broken[:90], broken[90:]))
    seen = say(gateway, path, stream=True)
    assert seen.whole
    if path == NATIVE:
        assert seen.body == broken
    else:
        assert b"event: error\n" in seen.body
        assert b"message_stop" not in seen.body
    assert_well(gateway, upstream)


def test_a_compressed_reply_passes_and_where_it_must_be_read_none_is_asked_for(live: LiveServer) -> None:
    packed = gzip.compress(BODY)
    live.replies = [Reply([packed], headers={"content-type": "application/json", "content-encoding": "gzip"}, whole=True)]
    with RunningServer(settings_for(live.base_url)) as server:
        fields = {**chat_body(), "max_tokens": 5}
        seen = ask(server.port, fields, NATIVE, **{"accept-encoding": "gzip"})
        assert (seen.body, seen.headers["content-encoding"]) == (packed, "gzip")
        seen = ask(server.port, fields, TRANSLATED, **{"accept-encoding": "gzip"})
        assert (seen.status, seen.json["error"]["type"]) == (502, "api_error")
    assert [each.headers["accept-encoding"] for each in live.requests] == ["gzip", "identity"]


def test_a_reply_that_comes_before_the_request_was_read(gateway: RunningServer) -> None:
    refusal = b'{"error": {"message": "too much"}}'
    with RawUpstream(reply(refusal, "413 Content Too Large"), reads_bodies=False) as hasty:
        settings = settings_for(hasty.url, gateway=read_gateway_settings(SECTION, {}, "a test"))
        with RunningServer(settings) as server:
            fields = {**chat_body(text="x" * 4_000_000), "max_tokens": 5}
            seen = ask(server.port, fields)
            assert (seen.status, seen.body) == (413, refusal)
            assert ask(server.port, fields, TRANSLATED).json["error"]["message"] == "too much"
        assert hasty.connections == 2  # none was used again, with half a request still to be written to it


@pytest.mark.parametrize("path", [NATIVE, TRANSLATED])
def test_in_a_storm_of_429_each_client_is_told_and_the_upstream_is_not_asked_more_often_than_is_stated(
    live: LiveServer, path: str
) -> None:
    live.replies = [Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0.05"})]
    section = {"retries": {"count": 1, "first_backoff_seconds": 0.05, "budget_seconds": 20}}
    with RunningServer(settings_for(live.base_url, gateway=read_gateway_settings(section, {}, "a test"))) as server:
        with ThreadPoolExecutor(50) as clients:
            seen = list(clients.map(lambda _: say(server, path), range(100)))
        told = {(each.status, each.headers["retry-after"], each.json["error"]["message"]) for each in seen}
        assert told == {(429, "0.05", "slow down")}
        assert 100 <= len(live.requests) <= 200
        live.replies = [Reply.json(COMPLETION)]
        assert say(server, path).status == 200  # a rate limit opens no breaker


def test_a_key_that_the_upstream_repeats_in_its_error_goes_no_further(live: LiveServer) -> None:
    told = f"Incorrect API key provided: {KEY}."
    live.replies = [
        Reply.json({"error": {"message": told}}, status=401, headers={"x-key": KEY}),
        Reply([f'{{"error": {{"message": "{told[:30]}'.encode(), f'{told[30:]}"}}}}'.encode()], 401),
        Reply.json({"error": {"message": told}}, status=500),
        Reply.json({"error": {"message": told}}, status=401),
    ]
    with RunningServer(settings_for(live.base_url, verbose=True)) as server:
        seen = [say(server, path) for path in (NATIVE, NATIVE, NATIVE, TRANSLATED)]
        assert [each.status for each in seen] == [401, 401, 500, 401]
        for each in seen:
            assert each.json["error"]["message"] == told.replace(KEY, "*" * len(KEY))
            assert KEY not in str(each.headers)
        assert [record for record in server.log if KEY in record.getMessage()] == []
