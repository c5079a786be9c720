"""uvicorn's HTTP protocol, with fewer writes, and without its weak places.

- uvicorn writes a reply's head as soon as it has it, and each write to a socket is a system call that costs as much as a tenth
  of a whole request. A head is held back here until what follows it is written, or until the event loop's next turn.
- Heads have a limit, as do trailers and all else that is not a body; and a request must come in whole in a certain time.
- Trailers are not taken for headers.
- A request that would like to speak another protocol (Java's client asks for HTTP/2 with each one) is read as if it did not.
  llhttp takes such a request's body for that protocol's first bytes, and uvicorn then reads it as the next request.
- What can't be read is refused in OpenAI's form, after the answers that are owed for what came before it.
- When a connection is lost, the request that is under way learns of it, also where others are in line behind it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from routellm.errors import RequestError
from routellm.serving.errors import render_error

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers."""

_HEAD = b"HTTP/1.1 "


class HeadTooLargeError(RequestError):
    """A request's line and headers are over the limit."""

    status = 431


class RequestTimeoutError(RequestError):
    """A request did not come in in time."""

    status = 408


class HttpProtocol(HttpToolsProtocol):
    """See the module's docstring.

    Args:
        receive_seconds: for how long a connection may be open without a request, and a request be under way to here.
    """

    def __init__(self, *args: Any, receive_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receive_seconds = receive_seconds
        self._waits_for: tuple[RequestResponseCycle | None, float] | None = None  # behind which request, and since when
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0  # bytes since the last head or piece of a body
        self._deaf = False
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _HeadHoldingTransport(transport, self.loop)))
        self._check_time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._taken += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            wrong = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            self._refuse(wrong if isinstance(wrong, RequestError) else _not_http(error))
        if self._taken > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(_head_too_large())

    # --- called by the parser ---

    def on_headers_complete(self) -> None:
        if self._taken > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            raise _head_too_large()
        self._taken = 0
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise RequestError("This server is no proxy: it does not take CONNECT.", code="bad_http")
            return  # read again by `_read_without_upgrade`
        super().on_headers_complete()
        self.headers = []  # the request has its own; what may still come are trailers

    def on_body(self, body: bytes) -> None:
        self._taken = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    # --- uvicorn's own steps ---

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.expect_100_continue and self._running is not None and self._running.more_body:
            self.transport.close()  # the client may send its body or not: there is no telling where its next request begins

    # --- what is added ---

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _read_without_upgrade(self, rest: bytes) -> None:
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = (b"%b: %b" % header for header in self.headers if header[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join((line, *kept, b"\r\n")) + rest)

    def _refuse(self, error: RequestError) -> None:
        """Read no more, and say why, unless an answer is under way: then that is the connection's last."""
        self._deaf = True
        self.pipeline.clear()
        running = self._running
        if running is not None and not running.response_complete and not running.more_body:
            running.keep_alive = False
            return
        if running is None or not running.response_started or running.response_complete:
            reply = render_error(error, "")
            lines = [STATUS_LINE[reply.status], *(b"%b: %b\r\n" % header for header in reply.headers)]
            self.transport.write(b"".join((*lines, b"connection: close\r\n\r\n", reply.body)))
            self.logger.warning("Refused a connection's bytes: %s", error)
        self.transport.close()

    def _check_time(self) -> None:
        """Called from time to time while the connection is open, so that no request has to set a timer."""
        now, cycle = self.loop.time(), self.cycle
        idle = cycle is not None and cycle.response_complete and not self._taken and not cycle.more_body
        answering = cycle is not None and not cycle.more_body and not cycle.response_complete
        if idle or answering:
            self._waits_for = None
        elif self._waits_for is None or self._waits_for[0] is not cycle:
            self._waits_for = (cycle, now)
        elif now - self._waits_for[1] >= self._receive_seconds:
            self._give_up()
            return
        self._timer = self.loop.call_later(self._receive_seconds / 4, self._check_time)

    def _give_up(self) -> None:
        owed_nothing = self.cycle is None or self.cycle.response_complete
        if owed_nothing and not self._taken:
            self.transport.close()
        else:
            self._refuse(_too_slow(self._receive_seconds))


def _not_http(error: Exception) -> RequestError:
    return RequestError(f"What came over this connection is no request of HTTP/1.1: {error}.", code="bad_http")


def _head_too_large() -> RequestError:
    return HeadTooLargeError(f"The request's line and headers are over {MAX_HEAD_BYTES:,} bytes.", code="headers_too_large")


def _too_slow(seconds: float) -> RequestError:
    return RequestTimeoutError(f"No whole request came in within {seconds:g} s.", code="request_timeout")


class _HeadHoldingTransport:
    """A transport that holds a head back; everything else passes through."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head is not None:
            data, self._head = self._head + data, None
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
