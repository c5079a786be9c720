"""One request and its reply on a connection: what an ASGI application receives of the one, and sends of the other.

What ASGI has no words for is asked of the exchange itself, which a scope holds as an extension: to be called when the client
goes away, without a task that waits for it, and to send a reply as one piece. Each write to a socket is a system call, which
costs as much as a tenth of a whole request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from routellm.upstream.base import NO_BODY, joined

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

    from routellm.serving.protocol import HttpProtocol

logger = logging.getLogger("routellm.serving")

EXCHANGE = "routellm.exchange"
"""The ASGI extension under which a scope holds its exchange."""

HIGH_WATER = 64 * 1024
"""Bytes of a request's body that wait to be received; then no more is read from the connection."""

Headers: TypeAlias = Mapping[bytes, bytes]
"""Of a reply: names in lower case, one value a name."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {code: f"HTTP/1.1 {code} {_PHRASES.get(code, '')}".encode() for code in range(200, 600)}
_COLON = b": "


class Exchange:
    """See the module's docstring.

    Args:
        protocol: the connection.
        scope: the request's, as ASGI has it.
        fields: see below.
        keep_alive: whether the connection may be used again.

    Attributes:
        fields: the request's headers, one value a name.
        more_body: whether some of the request is still to come.
        begun, complete: whether the reply has begun to go out, and whether all of it has.
        gone: whether the connection was lost before that.
    """

    __slots__ = (
        "_bodiless", "_expects", "_left", "_pieces", "_protocol", "_received", "_size", "_waiter", "_when_gone",
        "begun", "complete", "fields", "gone", "keep_alive", "more_body", "scope",
    )  # fmt: skip

    def __init__(self, protocol: HttpProtocol, scope: Scope, fields: dict[bytes, bytes], *, keep_alive: bool) -> None:
        self.scope = scope
        self.fields = fields
        self.keep_alive = keep_alive
        self.more_body = True
        self.begun = self.complete = self.gone = False
        self._protocol = protocol
        self._expects = fields.get(b"expect", b"").lower() == b"100-continue"  # then the client waits to be asked for the body
        self._pieces: list[bytes] = []
        self._size = 0
        self._received = False  # all of the request, by the application
        self._waiter: asyncio.Future[None] | None = None
        self._when_gone: Callable[[], object] | None = None
        self._bodiless = False
        self._left: int | None = None  # of a body of a known length
        scope["extensions"] = {EXCHANGE: self}

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The one that `run` is awaited in."""
        return self._protocol.task

    async def run(self, app: ASGIApp) -> None:
        """Let `app` answer, and make sure that the client is not left without an end."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:  # the server shuts down, and has waited long enough
            self._protocol.abort()
            raise
        except Exception:  # an error of ours that nothing foresaw: it is logged, and the client is told by an end
            logger.exception("the application failed on %s %r", self.scope["method"], self.scope["path"])
            self._break_off()
        else:
            if not self.complete and not self.gone:
                self._break_off()  # as the application wants it where a model's reply broke off
        finally:
            # The scope holds the exchange: a cycle, for each of which the garbage collector would have to stop all requests.
            self.scope.pop("extensions", None)

    def watch(self, when_gone: Callable[[], object] | None) -> None:
        """Call `when_gone` once the connection is lost before the reply is complete; None: call nothing any more."""
        if self.gone and when_gone is not None:
            when_gone()
        else:
            self._when_gone = when_gone

    # --- called by the connection ---

    def feed(self, piece: bytes) -> None:
        """A piece of the request's body came in."""
        if self.complete:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > HIGH_WATER:
            self._protocol.pause_reading()
        self._wake()

    def feed_end(self) -> None:
        """All of the request has come in."""
        self.more_body = False
        self._wake()

    def lose(self) -> None:
        """The connection was lost."""
        if self.complete:
            return
        self.gone = True
        self._wake()
        when_gone, self._when_gone = self._when_gone, None
        if when_gone is not None:
            when_gone()

    # --- called by the application ---

    def whole(self) -> bytes | None:
        """The request's body, where all of it has come in already and none was received; else None. Instead of `receive`."""
        if self.more_body or self._received or self.gone or self.complete:
            return None
        self._received = True
        return self._take()

    async def receive(self) -> Message:
        """ASGI's."""
        if self._expects and self.more_body and not self.gone:
            self._expects = False
            self._protocol.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.gone or self.complete or self._pieces or (not self.more_body and not self._received)):
            self._waiter = self._protocol.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        self._received = not self.more_body
        return {"type": "http.request", "body": self._take(), "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """ASGI's."""
        protocol = self._protocol
        if not protocol.writable.is_set() and not self.gone:
            await protocol.writable.wait()
        if self.gone:
            return
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if [name for name, _ in headers].count(b"set-cookie") > 1:
                raise RuntimeError("a reply sets several cookies, which don't go into one header")
            protocol.write(self._head(message["status"], joined(headers)))
            return
        more = message.get("more_body", False)
        if piece := self._framed(message.get("body", b""), more=more):
            protocol.write(piece)
        if not more:
            self._end()

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole reply in one piece; its length is told, also where `headers` don't."""
        protocol = self._protocol
        if not protocol.writable.is_set() and not self.gone:
            await protocol.writable.wait()
        if not self.gone:
            head = self._head(status, headers, len(body))
            protocol.write(head + self._framed(body, more=False))
            self._end()

    # --- the reply ---

    def _head(self, status: int, headers: Headers, size: int | None = None) -> bytes:
        """The head of a reply whose body has `size` bytes, where that is known and `headers` don't tell it."""
        if self.begun:
            raise RuntimeError("a reply begins twice")
        if self._expects and self.more_body:
            self.keep_alive = False  # the body may come or not: there is no telling where the next request begins
        connection = headers.get(b"connection")
        if connection is not None and b"close" in connection.lower():
            self.keep_alive = False
            headers = {name: value for name, value in headers.items() if name != b"connection"}
        lines = [STATUS_LINES[status], *map(_COLON.join, headers.items())]
        told = headers.get(b"content-length")
        if self.scope["method"] == "HEAD" or status in NO_BODY:
            self._bodiless = True
        elif told is not None:
            self._left = int(told)
        elif size is not None:
            self._left = size
            lines.append(b"content-length: %d" % size)
        elif self.scope["http_version"] == "1.1":
            lines.append(b"transfer-encoding: chunked")
        else:
            self.keep_alive = False  # the end of the connection is the end of the body
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join((*lines, b"\r\n"))
        ends = len(lines) + 1
        if head.count(b"\n") != ends or head.count(b"\r") != ends or 0 in head:
            raise RuntimeError("a header of the reply holds the end of a line, or a zero byte")
        self.begun = True
        return head

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        """A piece of the body as it is written."""
        if not self.begun or self.complete:
            raise RuntimeError("a piece of a reply comes before its head, or after its end")
        if self._bodiless:
            return b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("a reply's body is longer or shorter than its content-length")
            return body
        if self.scope["http_version"] != "1.1":
            return body
        framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return framed if more else framed + b"0\r\n\r\n"

    def _take(self) -> bytes:
        """What has come of the request's body since the last time."""
        pieces, self._pieces = self._pieces, []
        if self._size > HIGH_WATER:
            self._protocol.resume_reading()
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end(self) -> None:
        self.complete = True
        self._wake()
        self._protocol.replied(self)

    def _break_off(self) -> None:
        """Close the connection in the middle of the reply, so that no client takes it for a whole one."""
        if not self.begun and not self.gone:
            self._protocol.write(self._head(500, {b"connection": b"close"}, 0))
        self._protocol.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
