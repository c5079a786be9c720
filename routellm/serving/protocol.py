"""HTTP/1.1 as the server speaks it: llhttp (by httptools) parses, and each request becomes an `Exchange` for the application.

uvicorn runs it in place of its own protocols, which cost a fifth of a whole request more, and are less wary:

- Heads have a limit, as do trailers and all else that is not a body; and a request must come in whole in a certain time.
- Trailers are not taken for headers.
- A request that would like to speak another protocol (Java's client asks for HTTP/2 with each one) is read as if it did not.
  llhttp takes such a request's body for that protocol's first bytes.
- What can't be read is refused in OpenAI's form, after the answers that are owed for what came before it.
- When a connection is lost, the request that is under way learns of it, also where others are in line behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools

from routellm.errors import RequestError
from routellm.serving.errors import render_error
from routellm.serving.exchange import STATUS_LINES, Exchange
from routellm.upstream.base import joined

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.server import ServerState

logger = logging.getLogger("routellm.serving")

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers."""

_LONGEST_LINE = 16
"""Requests behind the one that is answered; then no more is read, and not noticed either whether the client is still there."""

_CHECKS = 4
"""How often a connection's time is looked at in the shortest time that it may take for something."""


class HeadTooLargeError(RequestError):
    """A request's line and headers are over the limit."""

    status = 431


class RequestTimeoutError(RequestError):
    """A request did not come in in time."""

    status = 408


class HttpProtocol(asyncio.Protocol):
    """One connection. The arguments without a name are those that uvicorn gives.

    Args:
        receive_seconds: for how long a connection may be open without a request, and a request be under way to here.

    Attributes:
        writable: set while the client takes what is written.
        task: answers the requests.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        receive_seconds: float,
    ) -> None:
        self.loop = _loop or asyncio.get_event_loop()
        self.writable = asyncio.Event()
        self.writable.set()
        self._app = config.loaded_app
        self._app_state = app_state
        self._server_state = server_state
        self._parser: httptools.HttpRequestParser = _parser(self)
        self._transport: asyncio.Transport
        self._scope: dict[str, Any] = {}  # what is the same for all requests of this connection
        self._reads = True
        self._deaf = False  # reads no more requests
        self._is_lost = False
        # The request that comes in:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._taken = 0  # bytes since the last head or piece of a body
        # The one that came last, the one that is answered, and those in line behind that:
        self._last: Exchange | None = None
        self._running: Exchange | None = None
        self._line: deque[Exchange] = deque()
        # One task answers all of them: to make one for each, and have asyncio keep account of it, shows in a profile.
        self.task: asyncio.Task[None] | None = None
        self._due: Exchange | None = None  # for the task to begin with
        self._waiter: asyncio.Future[None] | None = None
        # Time:
        self._receive_seconds, self._idle_seconds = receive_seconds, float(config.timeout_keep_alive)
        self._waits_for: tuple[Exchange | None, bool, float] | None = None  # behind which request, for a new one?, since when
        self._timer: asyncio.TimerHandle | None = None

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._server_state.connections.add(cast(Any, self))
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "root_path": "",
            "server": _address(transport.get_extra_info("sockname")),
            "client": _address(transport.get_extra_info("peername")),
            "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
        }
        self._check_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(cast(Any, self))
        if self._timer is not None:
            self._timer.cancel()
        self._deaf = self._is_lost = True
        self.writable.set()
        for exchange in (self._running, *self._line):
            if exchange is not None:
                exchange.lose()
        self._line.clear()
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._taken += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            wrong = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            self._refuse(wrong if isinstance(wrong, RequestError) else _not_http(error))
        if self._taken > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(_head_too_large())

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._taken > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            raise _head_too_large()
        self._taken = 0
        parser = self._parser
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                raise RequestError("This server is no proxy: it does not take CONNECT.", code="bad_http")
            return  # read again by `_read_without_upgrade`
        path, raw_path, query = _split(self._target)
        version = parser.get_http_version()
        scope = {
            **self._scope,
            "http_version": version,
            "method": parser.get_method().decode(),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self._headers,
            "state": self._app_state.copy(),
        }
        keep_alive = version != "1.0" and parser.should_keep_alive()
        exchange = self._last = Exchange(self, scope, joined(self._headers), keep_alive=keep_alive)
        self._headers = []  # the request has its own; what may still come are trailers
        if self._running is None or self._running.complete:
            self._start(exchange)
        else:
            self._line.append(exchange)
            if len(self._line) >= _LONGEST_LINE:
                self.pause_reading()

    def on_body(self, body: bytes) -> None:
        self._taken = 0
        if self._last is not None:
            self._last.feed(body)

    def on_message_complete(self) -> None:
        if self._last is not None and not self._parser.should_upgrade():
            self._last.feed_end()

    # --- called by exchanges ---

    def write(self, data: bytes) -> None:
        """Write a part of a reply."""
        self._transport.write(data)

    def replied(self, exchange: Exchange) -> None:
        """A reply is complete."""
        self._server_state.total_requests += 1
        if not exchange.keep_alive:
            self._deaf = True
            self._transport.close()
        else:
            if self._line:
                self._start(self._line.popleft())
            self.resume_reading()

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`."""
        if self._reads and not self._transport.is_closing():
            self._reads = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reads and not self._transport.is_closing():
            self._reads = True
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything is written; requests in line are not answered."""
        self._deaf = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # --- called by uvicorn ---

    def shutdown(self) -> None:
        """Take no more requests, and close once those that came are answered."""
        if self._last is None or self._last.complete:
            self._transport.close()
        else:
            self._last.keep_alive = False

    # --- the rest ---

    def _start(self, exchange: Exchange) -> None:
        self._running = self._due = exchange
        if self.task is None:
            self.task = self.loop.create_task(self._answer())
        self._server_state.tasks.add(self.task)
        self._wake()

    async def _answer(self) -> None:
        """Answer one request after another, as long as the connection is open."""
        assert self.task is not None
        try:
            while not self._is_lost:
                if self._due is not None:
                    exchange, self._due = self._due, None
                    await exchange.run(self._app)
                    continue
                self._server_state.tasks.discard(self.task)  # nobody needs to wait for it
                self._waiter = self.loop.create_future()
                await self._waiter
        finally:
            self._server_state.tasks.discard(self.task)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _head_size(self) -> int:
        return len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _read_without_upgrade(self, rest: bytes) -> None:
        line = b"%b %b HTTP/%b" % (self._parser.get_method(), self._target, self._parser.get_http_version().encode())
        kept = (b"%b: %b" % header for header in self._headers if header[0] != b"upgrade")
        self._parser = _parser(self)
        self.data_received(b"\r\n".join((line, *kept, b"\r\n")) + rest)

    def _refuse(self, error: RequestError) -> None:
        """Read no more, and say why, unless an answer is under way: then that is the connection's last."""
        self._deaf = True
        self._line.clear()
        running = self._running
        if running is not None and not running.complete and not running.more_body:
            running.keep_alive = False
            return
        if running is None or not running.begun or running.complete:
            reply = render_error(error, "")
            lines = [STATUS_LINES[reply.status], *map(b": ".join, reply.headers), b"connection: close", b"", reply.body]
            self.write(b"\r\n".join(lines))
            logger.warning("Refused a connection's bytes: %s", error)
        self._transport.close()

    def _check_time(self) -> None:
        """Called from time to time while the connection is open, so that no request has to set a timer."""
        now, last = self.loop.time(), self._last
        wants_request = (last is None or (last.complete and not last.more_body)) and not self._taken
        answering = last is not None and not last.complete and not last.more_body
        idle = wants_request and last is not None
        if answering:
            self._waits_for = None
        elif self._waits_for is None or self._waits_for[:2] != (last, wants_request):
            self._waits_for = (last, wants_request, now)
        elif now - self._waits_for[2] >= (self._idle_seconds if idle else self._receive_seconds):
            if wants_request:
                self._transport.close()
            else:
                self._refuse(_too_slow(self._receive_seconds))
            return
        self._timer = self.loop.call_later(min(self._receive_seconds, self._idle_seconds) / _CHECKS, self._check_time)


def _parser(protocol: HttpProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(protocol)
    # What comes after a request with `connection: close` is no error, and is not answered either: see `replied`.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


@lru_cache(maxsize=64)
def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """The path, as it is meant and as it was sent, and the query."""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    return unquote(path) if "%" in path else path, url.path, url.query or b""


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None


def _not_http(error: Exception) -> RequestError:
    return RequestError(f"What came over this connection is no request of HTTP/1.1: {error}.", code="bad_http")


def _head_too_large() -> RequestError:
    return HeadTooLargeError(f"The request's line and headers are over {MAX_HEAD_BYTES:,} bytes.", code="headers_too_large")


def _too_slow(seconds: float) -> RequestError:
    return RequestTimeoutError(f"No whole request came in within {seconds:g} s.", code="request_timeout")
