"""HTTP/1.1 as a proxy needs it of a client, and no more: POST, connections kept alive, bodies as they come in.

A general client follows redirects, keeps cookies, decodes, and builds objects for each, which takes most of a proxy's time.
Here llhttp (by httptools) parses, the event loop does TLS, and a request is one write.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import cast

import httptools

from routellm.upstream.answer import Answer
from routellm.upstream.base import joined

MAX_HEAD_BYTES = 64 * 1024
"""Of a reply's status line and headers."""

_WRITE_BYTES = 256 * 1024  # of a larger request so much is written at a time: TLS encrypts on the event loop


class WireError(ConnectionError):
    """A connection could not be opened or was lost, or what came over it is not HTTP.

    `repeatable` says that the request can't have been worked on: the connection was never open, or had been kept alive and
    was closed before anything came back, as endpoints do with idle connections whenever they like.
    """

    def __init__(self, message: str, *, repeatable: bool = False) -> None:
        super().__init__(message)
        self.repeatable = repeatable


class ConnectTimeoutError(TimeoutError):
    """A connection was not opened in time."""


class NoAnswerError(TimeoutError):
    """A request was not answered in time."""


class Pool:
    """Connections to one host, on one event loop; as many as there are requests under way.

    Args:
        host, port: where to connect.
        secure: whether to speak TLS, with the certificates that the system trusts.
        connect_timeout: seconds to open a connection, TLS included.
        keep_alive: seconds for which an idle connection may be used again.
    """

    def __init__(self, host: str, port: int, *, secure: bool, connect_timeout: float, keep_alive: float) -> None:
        self._host, self._port = host, port
        self._tls = _tls_context() if secure else None
        self._connect_timeout, self._keep_alive = connect_timeout, keep_alive
        self._idle: deque[Connection] = deque()  # the one that was used last is on the right
        self._open: set[Connection] = set()

    def post(self, target: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Awaitable[Answer]:
        """Send a request to the path and query `target`; returns, once awaited, when the reply's headers are in.

        Args:
            headers: must hold `host`; `content-length` is added.
            deadline: the event loop's time by which the headers must be in.

        Raises:
            WireError: see there.
            ConnectTimeoutError: no connection was opened in time.
            NoAnswerError: the deadline passed.
            ValueError: a header holds the end of a line.
        """
        head = _head(target, headers, len(body))
        connection = self._take()
        return self._post_anew(head, body, deadline) if connection is None else connection.post(head, body, deadline)

    async def close(self) -> None:
        """Close every connection; replies under way break off."""
        for connection in list(self._open):
            connection.abort()

    def release(self, connection: Connection, now: float) -> None:
        """Keep a connection for the next request, and close those that were not needed for long."""
        connection.idle_since = now
        self._idle.append(connection)
        while self._idle and self._idle[0].idle_since < now - self._keep_alive:
            self._idle.popleft().abort()

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(self._keep_alive):
                return connection
            connection.abort()
        return None

    async def _post_anew(self, head: bytes, body: bytes, deadline: float) -> Answer:
        connection = await self._connect(deadline)
        return await connection.post(head, body, deadline)

    async def _connect(self, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        name = self._host if self._tls else None
        until = min(loop.time() + self._connect_timeout, deadline)
        try:
            async with asyncio.timeout_at(until):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop), self._host, self._port, ssl=self._tls, server_hostname=name
                )
        except TimeoutError as error:
            raise (NoAnswerError if until == deadline else ConnectTimeoutError)("no connection in time") from error
        except OSError as error:  # refused, no such host, no valid certificate
            raise WireError(f"cannot connect to {self._host}, port {self._port}: {error}", repeatable=True) from error
        self._open.add(connection)
        return connection


class Connection(asyncio.Protocol):
    """One connection, and the reply that is under way on it."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.idle_since = 0.0
        self._pool, self._loop = pool, loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._headers: list[tuple[bytes, bytes]] | None = None  # of the reply that comes in, until all of them have
        self._answered = False  # whether it was used before
        self._heard = 0  # bytes since the request
        self._interim = self._writing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadline = 0.0  # of the last request
        self._timer: asyncio.TimerHandle | None = None

    async def post(self, head: bytes, body: bytes, deadline: float) -> Answer:
        """Send a request and wait for the reply's headers. Cancelled, it closes the connection."""
        answer = self._answer = Answer(self, self._loop)
        self._heard = 0
        self._watch(deadline)
        try:
            if len(body) <= _WRITE_BYTES:
                self._transport.write(head + body)
            else:
                await self._write(head, body, answer)
            await answer.head
        except BaseException:
            answer.head.cancel()  # nobody waits for it any more
            self.abort()
            raise
        return answer

    async def _write(self, head: bytes, body: bytes, answer: Answer) -> None:
        """Piece by piece, no faster than it is taken; a reply that comes before the end ends it."""
        self._writing = True
        self._transport.write(head)
        pieces = memoryview(body)
        for start in range(0, len(body), _WRITE_BYTES):
            await self._writable.wait()
            if answer.head.done():
                return
            self._transport.write(pieces[start : start + _WRITE_BYTES])
        self._writing = False

    def _watch(self, deadline: float) -> None:
        """See that the reply's headers are in by then. A timer that was set for an earlier request is not set anew for each
        that follows, but only once it has fired."""
        if self._timer is not None:
            if self._deadline <= deadline:
                self._deadline = deadline
                return
            self._timer.cancel()
        self._deadline = deadline
        self._timer = self._loop.call_at(deadline, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        answer = self._answer
        if answer is None or answer.head.done():
            return
        if self._loop.time() < self._deadline:
            self._watch(self._deadline)
            return
        answer.fail(NoAnswerError("no answer in time"))
        self._writable.set()

    def is_usable(self, keep_alive: float) -> bool:
        """Whether an idle connection may take another request."""
        return not self._transport.is_closing() and self.idle_since >= self._loop.time() - keep_alive

    def abort(self) -> None:
        """Close at once; a reply under way breaks off."""
        self._transport.abort()

    def let_go(self, answer: Answer) -> None:
        """Close if `answer` is still under way."""
        if self._answer is answer:
            self.abort()

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        self._heard += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(WireError(f"what came is not HTTP/1.1: {error}"))
        if self._heard > MAX_HEAD_BYTES and self._answer is not None and not self._answer.head.done():
            self._fail(WireError(f"the reply's headers are over {MAX_HEAD_BYTES:,} bytes"))

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.forget(self)
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if error is None and answer.head.done() and answer.ends_with_connection:
            answer.end()
            return
        reason = str(error or "the connection was closed before the reply's end")
        answer.fail(WireError(reason, repeatable=self._answered and not self._heard))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        self._headers = []
        if self._answer is None:
            self.abort()  # nobody asked

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers is not None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, None  # what may still come are trailers
        answer = self._answer
        if answer is None or headers is None:
            return
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200  # goes before the reply proper
        if not self._interim and not answer.head.done():
            answer.status, answer.headers = status, joined(headers)
            answer.head.set_result(None)
            self._writable.set()

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(body)

    def on_message_complete(self) -> None:
        if self._interim or self._answer is None:
            return
        answer, self._answer = self._answer, None
        answer.end()
        if self._writing or self._transport.is_closing() or not self._parser.should_keep_alive():
            self._transport.close()
        else:
            self._answered = True
            self._pool.release(self, self._loop.time())

    def _fail(self, error: WireError) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(error)
        self.abort()


def _head(target: str, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"POST {target} HTTP/1.1", *map(": ".join, headers.items())]
    given = "".join(lines)
    if "\n" in given or "\r" in given or "\0" in given:
        raise ValueError("a header holds the end of a line, or a zero byte")
    lines.append(f"content-length: {length}\r\n\r\n")
    return "\r\n".join(lines).encode(errors="surrogateescape")


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
