"""Whatever a client does to its connection: it is refused or read in one way, and each request goes up at most once."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from routellm.serving.protocol import MAX_HEAD_BYTES
from routellm.serving.settings import read_gateway_settings
from tests.dispatch.raw import Exchange, reply
from tests.live import PATIENCE, STALL, Gate, LiveServer, Reply, event
from tests.serving.raw import RawUpstream, connect, exchange, read_to_end, request_bytes, statuses
from tests.serving.running import RunningServer, chat_body, settings_for

BODY = json.dumps(chat_body()).encode()
MESSAGE = json.dumps({**chat_body(stream=True), "max_tokens": 5}).encode()
CHUNK = event({"id": "c", "choices": [{"index": 0, "delta": {"content": "one"}}]})
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
WHOLE = START + LENGTH + b"\r\n" + BODY
LAST = request_bytes(BODY, b"Connection: close")
"""What is smuggled in: behind a shape that is refused it must reach nobody, and else exactly once."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[LiveServer]:
    with LiveServer() as live:
        yield live


@pytest.fixture(scope="module")
def gateway(upstream: LiveServer) -> Iterator[RunningServer]:
    """One server for the shapes below."""
    with RunningServer(settings_for(upstream.base_url)) as running:
        yield running


def chunked(
    size: bytes = b"%x" % len(BODY), *, first: bytes = b"Transfer-Encoding: chunked\r\n", last: bytes = b"0\r\n\r\n"
) -> bytes:
    return START + first + b"\r\n" + size + b"\r\n" + BODY + b"\r\n" + last


def headed(line: bytes) -> bytes:
    return START + LENGTH + line + b"\r\n\r\n" + BODY


REFUSED = {
    "length-and-chunks": chunked(first=LENGTH + b"Transfer-Encoding: chunked\r\n"),
    "chunks-and-length": chunked(first=b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    "same-length-twice": headed(LENGTH[:-2]),
    "two-lengths": headed(b"Content-Length: 5"),
    "list-of-lengths": START + LENGTH[:-2] + b", %d\r\n\r\n" % len(BODY) + BODY,
    "signed-length": START + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "negative-length": START + b"Content-Length: -1\r\n\r\n" + BODY,
    "hexadecimal-length": START + b"Content-Length: 0x%x\r\n\r\n" % len(BODY) + BODY,
    "length-over-2-to-the-64": START + b"Content-Length: 18446744073709551617\r\n\r\n" + BODY,
    "empty-length": START + b"Content-Length: \r\n\r\n" + BODY,
    "xchunked": chunked(first=b"Transfer-Encoding: xchunked\r\n"),
    "identity": START + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "chunked-then-identity": chunked(first=b"Transfer-Encoding: chunked, identity\r\n"),
    "chunked-twice": chunked(first=b"Transfer-Encoding: chunked\r\n" * 2),
    "space-before-colon": chunked(first=b"Transfer-Encoding : chunked\r\n"),
    "vertical-tab": chunked(first=b"Transfer-Encoding:\x0bchunked\r\n"),
    "folded-header": headed(b"X-A: b\r\n c"),
    "folded-transfer-encoding": chunked(first=b"Transfer-Encoding:\r\n chunked\r\n"),
    "bare-line-feeds": WHOLE.replace(b"\r\n", b"\n"),
    "one-bare-line-feed": headed(b"X-A: b\nX-B: c"),
    "bare-carriage-return": headed(b"X-A: b\rX-B: c"),
    "zero-byte": headed(b"X-A: b\0c"),
    "space-before-name": START + b" X-A: b\r\n" + LENGTH + b"\r\n" + BODY,
    "extension-with-line-feed": chunked(b"%x;a\nb" % len(BODY)),
    "chunks-with-bare-line-feeds": chunked().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n", 4),
    "chunk-over-2-to-the-64": chunked(b"1%016x" % len(BODY)),
    "negative-chunk": chunked(b"-%x" % len(BODY)),
    "prefixed-chunk": chunked(b"0x%x" % len(BODY)),
    "chunk-too-short": chunked(b"%x" % (len(BODY) - 3)),
    "chunk-too-long": chunked(b"%x" % (len(BODY) + 3)),
    "length-among-trailers": chunked(last=b"0\r\nContent-Length: 99\r\n\r\n"),
    "http-1.2": WHOLE.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 99,
    "method-in-small-letters": WHOLE.replace(b"POST", b"post"),
    "connect": WHOLE.replace(b"POST /v1/chat/completions", b"CONNECT x:80"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_what_two_readers_could_read_in_two_ways_is_refused(gateway: RunningServer, upstream: LiveServer, shape: str) -> None:
    before = len(upstream.requests)
    answer = exchange(gateway.port, REFUSED[shape] + LAST)
    assert statuses(answer) == [400]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "bad_http"
    assert_exactly(gateway, upstream, before)


READ = {
    "absolute-form": (WHOLE.replace(b"POST /v1", b"POST http://evil.example/v1"), 1),
    "chunks": (chunked(), 1),
    "tab-before-value": (chunked(first=b"Transfer-Encoding:\tchunked\r\n"), 1),
    "chunk-extensions": (chunked(b"%x;a=b" % len(BODY), last=b"0;c=d\r\n\r\n"), 1),
    "empty-lines-before": (b"\r\n\r\n" + WHOLE, 1),
    "body-where-none-belongs": (WHOLE.replace(b"POST /v1/chat/completions", b"GET /health"), 0),
    "head-request": (WHOLE.replace(b"POST /v1/chat/completions", b"HEAD /health"), 0),
    "upgrade-to-http-2": (headed(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAA"), 1),
    "upgrade-to-websocket": (headed(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x"), 1),
}


@pytest.mark.parametrize("shape", READ)
@pytest.mark.parametrize("in_two", [False, True])
def test_what_can_be_read_is_read_in_one_way(gateway: RunningServer, upstream: LiveServer, shape: str, in_two: bool) -> None:
    sent, requests = READ[shape]
    before = len(upstream.requests)
    with connect(gateway.port) as connection:
        if in_two:  # its body in a packet of its own, where a wrong reader would see another request
            cut = sent.index(b"\r\n\r\n", 4) + 4
            connection.sendall(sent[:cut])
            time.sleep(0.05)
            sent = sent[cut:]
        connection.sendall(sent + LAST)
        answer = read_to_end(connection)
    assert statuses(answer) == [200, 200]
    assert_exactly(gateway, upstream, before + requests + 1)
    assert len({each.body for each in upstream.requests[before:-1]}) == 1
    assert {"upgrade", "http2-settings"}.isdisjoint(upstream.requests[before].headers)


def assert_exactly(gateway: RunningServer, upstream: LiveServer, requests: int) -> None:
    """The upstream saw so many requests, and none is on its way: another one, which comes later, is the next."""
    mark = chat_body(text=f"mark {requests}")
    assert statuses(exchange(gateway.port, request_bytes(json.dumps(mark).encode(), b"Connection: close"))) == [200]
    assert len(upstream.requests) == requests + 1
    assert upstream.requests[-1].json["messages"] == mark["messages"]


def test_what_follows_a_request_and_can_t_be_read_does_not_cost_that_its_answer(
    gateway: RunningServer, upstream: LiveServer
) -> None:
    before = len(upstream.requests)
    answer = exchange(gateway.port, WHOLE + b"\x16\x03\x01 nonsense\r\n\r\n" + LAST)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    assert_exactly(gateway, upstream, before + 1)


def test_trailers_are_not_taken_for_headers(server: RunningServer, live: LiveServer) -> None:
    trailers = b"0\r\nx-request-id: forged\r\nx-trailer: 1\r\nauthorization: Bearer forged\r\n\r\n"
    answer = exchange(server.port, chunked(last=trailers) + LAST)
    assert statuses(answer) == [200, 200]
    assert b"forged" not in answer
    assert "x-trailer" not in live.requests[0].headers


@pytest.mark.parametrize(
    "sent",
    [
        START + b"X-Big: " + b"a" * 300_000,
        START + b"X-A: b\r\n" * 40_000,
        START.replace(b"completions", b"completions?" + b"a" * 300_000),
        headed(b"X-Big: " + b"a" * MAX_HEAD_BYTES),
        chunked(last=b"0\r\n" + b"X-A: b\r\n" * 40_000),
        chunked(b"%x;" % len(BODY) + b"a" * 300_000),
    ],
    ids="header headers target whole-head trailers extension".split(),
)
def test_what_is_no_body_has_a_limit(server: RunningServer, live: LiveServer, sent: bytes) -> None:
    with connect(server.port) as connection:
        for at in range(0, len(sent), 30_000):
            try:
                connection.sendall(sent[at : at + 30_000])
            except ConnectionError:
                break
            time.sleep(0.001)
        answer = read_to_end(connection)
    assert b"HTTP/1.1 431 " in answer or answer == b""  # a client that goes on sending may see its connection reset
    assert statuses(exchange(server.port, LAST)) == [200]
    assert len(live.requests) <= 2  # with trailers, its request is whole but for them


def test_headers_up_to_the_limit_go_up_as_they_came() -> None:
    with RawUpstream(reply(b"{}")) as upstream, RunningServer(settings_for(upstream.url)) as server:
        sent = request_bytes(BODY, b"X-Big: " + b"a" * 60_000, b"Connection: close")
        assert statuses(exchange(server.port, sent)) == [200]
        assert upstream.requests == 1


def test_a_head_over_the_limit_in_one_piece_is_told(gateway: RunningServer) -> None:
    answer = exchange(gateway.port, START + b"X-Big: " + b"a" * MAX_HEAD_BYTES)
    assert statuses(answer) == [431]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"


def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(server: RunningServer, live: LiveServer) -> None:
    gate = Gate()
    live.replies = [Reply([gate, b"{first}"]), Reply([b"{second}"]), Reply([b"{third}"])]
    with connect(server.port) as connection:
        connection.sendall(WHOLE + WHOLE + LAST)
        live.wait_for_request()
        time.sleep(0.1)
        assert len(live.requests) == 1
        gate.open()
        answer = read_to_end(connection)
    places = [answer.index(each) for each in (b"{first}", b"{second}", b"{third}")]
    assert places == sorted(places)
    assert len(live.requests) == 3


def test_a_client_that_leaves_with_requests_in_line_takes_back_the_first_one_too(
    server: RunningServer, live: LiveServer
) -> None:
    live.replies = [Reply([STALL])]
    with connect(server.port) as connection:
        connection.sendall(WHOLE * 3)
        recorded = live.wait_for_request()
    assert recorded.gone.wait(PATIENCE)
    assert len(live.requests) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("steps", [[STALL], [CHUNK, STALL]], ids=["before", "within"])
@pytest.mark.parametrize("how", ["leaves", "resets", "half-closes"])
def test_a_client_that_goes_away_cancels_its_call_and_is_recorded(
    live: LiveServer, path: str, steps: list[Any], how: str
) -> None:
    live.replies = [Reply.sse(*steps)]
    with RunningServer(settings_for(live.base_url, verbose=True)) as server:
        with connect(server.port) as connection:
            connection.sendall(request_bytes(MESSAGE, path=path))
            recorded = live.wait_for_request()
            if len(steps) > 1:
                assert connection.recv(9) == b"HTTP/1.1 "
            if how == "half-closes":  # a proxy can't tell one from a client that is gone, which is far more common
                connection.shutdown(socket.SHUT_WR)
                read_to_end(connection)
            elif how == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert recorded.gone.wait(PATIENCE)
        line = wait_for_line(server, " client-gone in ")
        assert (" 200 " if len(steps) > 1 else " 499 ") in line
        assert server.complaints == []


def wait_for_line(server: RunningServer, part: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for record in list(server.log):
            if part in record.getMessage():
                return record.getMessage()
        time.sleep(0.01)
    raise AssertionError(f"no {part!r} in {[record.getMessage() for record in server.log]}")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_client_that_leaves_while_its_body_goes_up_leaves_nothing_behind(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    large = json.dumps({**chat_body(text="x" * 8_000_000), "max_tokens": 5}).encode()
    with (
        RawUpstream(Exchange.stall, reads_bodies=False) as upstream,
        RunningServer(settings_for(upstream.url, verbose=True)) as server,
    ):
        with connect(server.port) as connection:
            connection.sendall(request_bytes(large, path=path))
            while not upstream.requests:
                time.sleep(0.01)
        wait_for_line(server, " 499 client-gone in ")
        time.sleep(0.05)
        gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_client_that_waits_for_100_continue(server: RunningServer, live: LiveServer) -> None:
    head = START + LENGTH + b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    with connect(server.port) as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert statuses(read_to_end(connection)) == [200]
    assert "expect" not in live.requests[0].headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
def test_a_body_that_is_too_large_is_refused_before_it_is_asked_for(live: LiveServer, path: str) -> None:
    with RunningServer(settings_for(live.base_url, max_body_bytes=1000)) as server:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
        assert statuses(exchange(server.port, head.encode())) == [413]
    assert live.requests == []


@pytest.fixture
def impatient(live: LiveServer) -> Iterator[RunningServer]:
    section = read_gateway_settings({"admission": {"receive_seconds": 0.4}}, {}, "a test")
    with RunningServer(settings_for(live.base_url, gateway=section)) as running:
        yield running


@pytest.mark.parametrize(
    ("begun", "status"),
    [(b"", []), (b"P", [408]), (START, [408]), (WHOLE[:-9], [408]), (chunked()[:-9], [408])],
    ids="nothing line head body chunks".split(),
)
def test_a_request_that_never_ends_is_given_up(
    impatient: RunningServer, live: LiveServer, begun: bytes, status: list[int]
) -> None:
    with connect(impatient.port) as connection:
        connection.sendall(begun)
        answer = read_to_end(connection)
    assert statuses(answer) == status
    assert status == [] or json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    assert live.requests == []


def test_a_request_that_drips_is_given_up_however_steadily_it_comes(impatient: RunningServer, live: LiveServer) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(START + b"X-A: ")
        while True:
            time.sleep(0.01)
            connection.sendall(b"x")

    with connect(impatient.port) as connection, pytest.raises(ConnectionError):
        drip(connection)
    assert live.requests == []


def test_neither_a_slow_answer_nor_a_pause_between_requests_is_given_up(impatient: RunningServer, live: LiveServer) -> None:
    gate = Gate()
    live.replies = [Reply([gate, b"{first}"], headers={"content-length": "7"}), Reply([b"{second}"])]
    with connect(impatient.port) as connection:
        connection.sendall(WHOLE)
        live.wait_for_request()
        time.sleep(0.8)
        gate.open()
        answer = b""
        while not answer.endswith(b"{first}"):
            answer += connection.recv(1000)
        time.sleep(0.8)
        connection.sendall(LAST)
        assert b"{second}" in read_to_end(connection)


def test_requests_are_served_beside_a_large_one_with_tools(live: LiveServer) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "description": "d" * 10_000}}}
    large = json.dumps({**chat_body(), "tools": [tool] * 2_900}).encode()
    assert 29_000_000 < len(large) < 32_000_000
    section = read_gateway_settings({"sticky": {"by": "start"}, "context": {"windows": {"openai/big": 10**9}}}, {}, "a test")

    async def main() -> list[bytes]:
        return await asyncio.gather(
            asyncio.to_thread(exchange, server.port, request_bytes(large, b"Connection: close")),
            *(asyncio.to_thread(exchange, server.port, LAST) for _ in range(20)),
        )

    with RunningServer(settings_for(live.base_url, gateway=section)) as server:
        answers = asyncio.run(main())
    assert [statuses(answer) for answer in answers] == [[200]] * 21
    assert sorted(len(each.json.get("tools", ())) for each in live.requests) == [0] * 20 + [2_900]


def test_a_slow_reader_does_not_hold_up_others(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply([b"x" * 65_536] * 400), Reply([b"{}"])]
    with connect(server.port) as slow:
        slow.sendall(WHOLE)
        held = live.wait_for_request()
        for _ in range(5):
            assert statuses(exchange(server.port, LAST)) == [200]
        assert not held.done.is_set()
