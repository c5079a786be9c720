"""The two sides of a server under test as bare bytes: an upstream that sends what no library would, and a client too."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from tests.dispatch.raw import Act, RawServer
from tests.live import PATIENCE


class RawUpstream:
    """A `RawServer` in a thread of its own, as a context manager. See there for what it is given and counts."""

    def __init__(self, *acts: Act, reads_bodies: bool = True) -> None:
        self._server = RawServer(*acts, reads_bodies=reads_bodies)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="raw-upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop).result(PATIENCE)
        self.url = self._server.url
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def answer_with(self, *acts: Act) -> None:
        """From the next request on."""
        self._server.acts[:] = [*[acts[0]] * self._server.requests, *acts]

    @property
    def requests(self) -> int:
        """How many came in so far."""
        return self._server.requests

    @property
    def connections(self) -> int:
        """How many were opened so far."""
        return self._server.connections

    def wait_until_closed(self) -> None:
        """Return once no connection is open."""
        asyncio.run_coroutine_threadsafe(self._server.all_closed(), self._loop).result(PATIENCE)


class Seen(NamedTuple):
    """A reply as a client sees it; `whole` tells whether it came to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, fields: Mapping[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Seen:
    """A request on a connection of its own, and what becomes of it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(fields), {"content-type": "application/json", **headers})
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Seen(response.status, told, response.read(), True)
        except http.client.IncompleteRead as cut:
            return Seen(response.status, told, cut.partial, False)
    finally:
        connection.close()


def connect(port: int) -> socket.socket:
    """A connection to a server under test; a wait for its bytes fails rather than hangs."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def request_bytes(body: bytes, *lines: bytes, path: str = "/v1/chat/completions") -> bytes:
    """A POST with its Content-Length, and these header lines before it."""
    head = [f"POST {path} HTTP/1.1".encode(), b"Host: x", *lines, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes or cuts the connection."""
    pieces: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def exchange(port: int, sent: bytes) -> bytes:
    """All that comes back on a connection of its own until that is closed, which the server must bring about."""
    with connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        return read_to_end(connection)


def statuses(answer: bytes) -> list[int]:
    """Of each reply in the bytes that came."""
    return [int(status) for status in re.findall(rb"(?:^|\r\n|[}\]])HTTP/1\.1 (\d{3}) ", answer)]
