"""A real HTTP server on loopback that plays an upstream model: it records each request byte for byte and answers as told.

>>> with LiveServer() as server:
...     server.replies = [Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "2"})]
...     ...  # a client calls server.base_url + "/chat/completions"
...     server.wait_for_request().body

`replies` are given out in order and the last one repeats; without any, a request gets what `answer` makes of it: by default
`answer_chat`'s chat completion, as JSON or as a stream. A reply is a list of steps, so that a test decides when each piece
goes out, and how it ends:

- bytes: written at once (the status and headers go out before the first bytes, or at the end)
- a `Gate`: the server waits until the test calls `gate.open()`
- `STALL`: the server falls silent until the client goes away or the server stops
- `DIE`: the connection is cut

The server runs in a thread of its own, so that it serves synchronous and asynchronous clients alike.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from aiohttp import web

PATIENCE = 20.0
"""Seconds after which a wait in a test fails rather than hangs."""


class Gate:
    """Holds a reply back until the test opens it."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()

    def open(self) -> None:
        """Let the reply go on. May be called from any thread."""
        self._opened.set_result(None)

    async def wait(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._opened))


class End(Enum):
    """How a reply can end badly; see the module's docstring."""

    STALL = "stall"
    DIE = "die"


STALL, DIE = End.STALL, End.DIE
Step = bytes | Gate | End


@dataclass(frozen=True)
class Reply:
    """What to answer. `whole` sends one body with a Content-Length instead of a chunked stream of the steps."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        """A JSON body with a Content-Length."""
        body = json.dumps(value).encode()
        return cls([body], status, {"content-type": "application/json", **(headers or {})}, whole=True)

    @classmethod
    def sse(cls, *steps: Step, headers: Mapping[str, str] | None = None) -> Reply:
        """A stream of server-sent events; the bytes are sent as given, so see `event`."""
        return cls(steps, headers={"content-type": "text/event-stream; charset=utf-8", **(headers or {})})


def event(value: Any) -> bytes:
    """One server-sent event holding `value` as JSON; a string is sent as it is ("[DONE]")."""
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"


@dataclass(frozen=True)
class Recorded:
    """One request as it reached the server.

    `raw_headers` keeps order, case and repeats; `headers` has lower-case names. `target` is the request line's, as sent, and
    `connection` is equal for requests that came over one connection. `gone` is set when the client goes away before it has
    the whole answer; `done` when the server has written it all.
    """

    method: str
    path: str
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: object = None
    target: str = ""
    gone: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode("latin-1") for name, value in self.raw_headers}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LiveServer:
    """See the module's docstring. A context manager; `url` is the server's root, `base_url` has the customary `/v1`."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.replies: list[Reply] = []
        self.answer: Callable[[Recorded], Reply] = answer_chat
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="live-server", daemon=True)
        self._runner: web.AppRunner
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    @property
    def base_url(self) -> str:
        return self.url + "/v1"

    def wait_for_request(self, number: int = 0) -> Recorded:
        """The request of this number, counted from 0, as soon as it has come in whole."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) > number, PATIENCE):
                raise AssertionError(f"request {number} did not come in; there were {len(self.requests)}")
            return self.requests[number]

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        recorded = Recorded(
            request.method, request.path_qs, list(request.raw_headers), await request.read(), peer, request.raw_path
        )
        with self._arrived:
            number = len(self.requests)
            self.requests.append(recorded)
            self._arrived.notify_all()
        reply = self.replies[min(number, len(self.replies) - 1)] if self.replies else self.answer(recorded)
        try:
            response = await _send(request, reply)
        except (asyncio.CancelledError, ConnectionError):
            recorded.gone.set()
            raise
        recorded.done.set()
        return response


async def _send(request: web.Request, reply: Reply) -> web.StreamResponse:
    if reply.whole:
        body = b"".join(step for step in reply.steps if isinstance(step, bytes))
        return web.Response(status=reply.status, headers=reply.headers, body=body)
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    for step in reply.steps:
        if isinstance(step, bytes):
            if not response.prepared:
                await response.prepare(request)
            await response.write(step)
        elif isinstance(step, Gate):
            await step.wait()
        elif step is STALL:
            await asyncio.Event().wait()
        elif request.transport is not None:
            request.transport.abort()
            return response
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


def answer_chat(request: Recorded) -> Reply:
    """A small valid chat completion ("Hello."), streamed where the request asks for a stream; `model` is the request's."""
    try:
        asked = request.json
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        return Reply.json({"error": {"message": "no JSON object", "type": "invalid_request_error"}}, status=400)
    base = {"id": "chatcmpl-live", "created": 1_700_000_000, "model": asked.get("model")}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        return Reply.json({**base, "object": "chat.completion", "choices": [choice], "usage": usage})
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hel"}, None),
        ({"content": "lo."}, None),
        ({}, "stop"),
    ]
    chunks = [
        {**base, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    return Reply.sse(*(event(chunk) for chunk in chunks), event("[DONE]"))


def closed_port_url() -> str:
    """A loopback URL at which nothing listens: connections are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
