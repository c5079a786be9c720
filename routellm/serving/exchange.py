"""One request and its reply on a connection: what an ASGI application receives of the one, and sends of the other.

A reply's head is held back until what follows it is written, or until the event loop's next turn: each write to a socket is a
system call, which costs as much as a tenth of a whole request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

    from routellm.serving.protocol import HttpProtocol

logger = logging.getLogger("routellm.serving")

WATCH = "routellm.watch"
"""The ASGI extension under which a scope holds `Exchange.watch`."""

HIGH_WATER = 64 * 1024
"""Bytes of a request's body that wait to be received; then no more is read from the connection."""

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES = {code: f"HTTP/1.1 {code} {_PHRASES.get(code, '')}\r\n".encode() for code in range(200, 600)}
_NO_BODY = (204, 304)


class Exchange:
    """See the module's docstring.

    Args:
        protocol: the connection.
        scope: the request's, as ASGI has it.
        keep_alive: whether the connection may be used again.
        expects: whether the client waits to be asked for the body (`Expect: 100-continue`).

    Attributes:
        more_body: whether some of the request is still to come.
        begun, complete: whether the reply has begun to go out, and whether all of it has.
        gone: whether the connection was lost before that.
    """

    __slots__ = (
        "_chunked", "_expects", "_left", "_pieces", "_protocol", "_received", "_size", "_task", "_waiter", "_when_gone",
        "begun", "complete", "gone", "keep_alive", "more_body", "scope",
    )  # fmt: skip

    def __init__(self, protocol: HttpProtocol, scope: Scope, *, keep_alive: bool, expects: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.more_body = True
        self.begun = self.complete = self.gone = False
        self._protocol = protocol
        self._expects = expects
        self._pieces: list[bytes] = []
        self._size = 0
        self._received = False  # all of the request, by the application
        self._waiter: asyncio.Future[None] | None = None
        self._when_gone: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = None
        self._chunked = False
        self._left: int | None = 0  # of a body of a known length; None without one
        scope["extensions"] = {WATCH: self.watch}

    def start(self, app: ASGIApp) -> asyncio.Task[None]:
        """Let `app` answer."""
        self._task = self._protocol.loop.create_task(self._run(app))
        return self._task

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
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._received = not self.more_body
        self._protocol.resume_reading()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """ASGI's."""
        protocol = self._protocol
        if not protocol.writable.is_set() and not self.gone:
            await protocol.writable.wait()
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    # --- the reply ---

    def _begin(self, status: int, headers: Headers) -> None:
        if self.begun:
            raise RuntimeError("a reply begins twice")
        if self._expects and self.more_body:
            self.keep_alive = False  # the body may come or not: there is no telling where the next request begins
        lines = [STATUS_LINES[status]]
        length: bytes | None = None
        for header in headers:
            name, value = header
            if name == b"content-length":
                length = value
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % header)
        if self.scope["method"] == "HEAD" or status in _NO_BODY:
            self._left = 0
        elif length is not None:
            self._left = int(length)
        else:
            self._left = None
            self._chunked = self.scope["http_version"] == "1.1"
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a header of the reply holds the end of a line, or a zero byte")
        self.begun = True
        self._protocol.hold(head + b"\r\n")

    def _write(self, body: bytes, *, more: bool) -> None:
        if not self.begun or self.complete:
            raise RuntimeError("a piece of a reply comes before its head, or after its end")
        if self.scope["method"] == "HEAD":
            body = b""
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("a reply's body is longer or shorter than its content-length")
        if body:
            self._protocol.write(body)
        if not more:
            self.complete = True
            self._wake()
            self._protocol.replied(self)

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:  # the server shuts down, and has waited long enough
            self._protocol.abort()
            raise
        except Exception:
            logger.exception("the application failed on %s %r", self.scope["method"], self.scope["path"])
            self._break_off()
        else:
            if not self.complete and not self.gone:
                self._break_off()  # as the application wants it where a model's reply broke off
        finally:
            if self._task is not None:
                self._protocol.tasks.discard(self._task)

    def _break_off(self) -> None:
        """Close the connection in the middle of the reply, so that no client takes it for a whole one."""
        if not self.begun and not self.gone:
            self._begin(500, [(b"content-length", b"0"), (b"connection", b"close")])
        self._protocol.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
