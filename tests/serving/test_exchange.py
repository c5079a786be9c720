"""What a request leaves behind on its connection."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
from typing import Any, cast

import pytest

from routellm.serving.exchange import Exchange
from tests.live import LiveServer, Reply, event
from tests.serving.running import RunningServer, chat_body

STREAM = Reply.sse(event({"id": "c", "choices": [{"index": 0, "delta": {"content": "one"}}]}), b"data: [DONE]\n\n")


@pytest.mark.parametrize("reply", [Reply.json({"choices": []}), STREAM], ids=["whole", "stream"])
def test_a_request_leaves_nothing_to_the_garbage_collector(server: RunningServer, live: LiveServer, reply: Reply) -> None:
    """The collector stops all requests while it looks for cycles."""
    live.replies = [reply] * 5
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(5):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat_body()), {"content-type": "application/json"})
            assert connection.getresponse().read()
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, Exchange)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        connection.close()
    assert left == []


class Wire:
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def begin_reply(*headers: tuple[bytes, bytes]) -> bytes:
    """The head of an application's reply."""
    wire = Wire()
    exchange = Exchange(cast(Any, wire), {"method": "GET", "http_version": "1.1"}, {}, keep_alive=True)
    asyncio.run(exchange.send({"type": "http.response.start", "status": 200, "headers": headers}))
    return wire.written


def test_headers_given_several_times_become_one() -> None:
    head = begin_reply((b"vary", b"accept"), (b"content-length", b"0"), (b"vary", b"origin"), (b"set-cookie", b"a=1"))
    assert head == b"HTTP/1.1 200 OK\r\nvary: accept, origin\r\ncontent-length: 0\r\nset-cookie: a=1\r\n\r\n"


def test_several_cookies_are_refused_as_they_cannot_become_one() -> None:
    with pytest.raises(RuntimeError, match="several cookies"):
        begin_reply((b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))
