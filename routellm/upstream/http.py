"""The fast path: any OpenAI-compatible endpoint over pooled connections, bytes in and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from yarl import URL

from routellm.errors import MissingExtraError, UpstreamBrokeOffError, UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import NO_BODY, ModelSpec, Timeouts, UpstreamReply
from routellm.upstream.endpoint import resolve_endpoint
from routellm.upstream.held import ClientHoldingUpstream
from routellm.upstream.loops import PerLoop
from routellm.upstream.masked import without_key

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    from routellm.upstream.answer import Answer
    from routellm.upstream.proxied import ProxiedAnswer, ProxiedPool
    from routellm.upstream.wire import Pool

    AnyAnswer: TypeAlias = Answer | ProxiedAnswer

_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "trailers", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NOT_SENT = _HOP_BY_HOP | {
    # written anew for this connection
    *("host", "content-length", "expect"),
    # the caller's credentials are for us, not for the upstream
    *("authorization", "api-key", "x-api-key", "cookie", "cookie2"),
}
_NOT_RETURNED = frozenset(name.encode() for name in _HOP_BY_HOP | {"set-cookie", "set-cookie2"})

_KEEP_ALIVE_SECONDS = 30.0
ANTHROPIC_VERSION = "2023-06-01"
"""The version of the messages API that a request asks for where its client names none."""


class HttpUpstream(ClientHoldingUpstream):
    """A model behind an OpenAI-compatible endpoint.

    Connections are pooled per event loop, without a limit: who calls decides how many requests are under way. A request is
    sent once, never again on our own account.
    """

    def __init__(self, spec: ModelSpec, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._name = spec.name
        self._timeouts = spec.timeouts
        self._until_first_byte = spec.timeouts.until_first_byte
        self._endpoint = resolve_endpoint(spec, environ)
        self.model = self._endpoint.model
        self.endpoint = self._endpoint.base_url
        self.formats = self._endpoint.formats
        self._base = URL(self._endpoint.base_url)
        self._targets: dict[str, tuple[str, dict[str, str]]] = {}
        self._pools = PerLoop(self._open_pool)

    def check(self) -> None:
        self._endpoint.check(self._name)

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        if self._endpoint.missing_key:
            self.check()
        path, mark, query = path.partition("?")
        target, own_headers = self._targets.get(path) or self._read_target(path)
        if mark:
            target = f"{target}?{query}"
        sent = {"content-type": "application/json", **headers}
        for name in _NOT_SENT.intersection(sent):
            del sent[name]
        sent.update(own_headers)
        if path.startswith("/messages"):
            sent.setdefault("anthropic-version", ANTHROPIC_VERSION)
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + self._until_first_byte
        try:
            answer = await self._pools.get().post(target, sent, body, deadline)
            if not 200 <= answer.status <= 599:
                answer.close()
                raise UpstreamError(f"The model {self._name!r} answered with {answer.status}, which is no status of HTTP.")
            reply = HttpReply(self._name, self._timeouts, started, answer, loop)
            if answer.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                async with asyncio.timeout_at(deadline):
                    await reply.read_first()
            return reply if reply.status < 400 else without_key(reply, self._endpoint.key)
        except TimeoutError as error:
            raise self._timeout(error) from error
        except OSError as error:
            raise UpstreamError(
                f"The model {self._name!r} could not be reached at {self._endpoint.base_url}: {_reason(error)}. "
                f"Check that the endpoint is up and the base URL right.",
                repeatable=getattr(error, "repeatable", False),
            ) from error

    async def aclose(self) -> None:
        await super().aclose()
        for pool in self._pools.take():
            await pool.close()

    def _read_target(self, path: str) -> tuple[str, dict[str, str]]:
        """The request's path on the host, and the headers that are the same for every request to it."""
        url = URL(self._endpoint.base_url + path)
        found = self._targets[path] = (
            url.raw_path,
            {"host": url.host_port_subcomponent or "", **self._endpoint.headers_for(path)},
        )
        return found

    def _open_pool(self) -> Pool | ProxiedPool:
        try:
            from routellm.upstream.wire import Pool
        except ImportError as error:
            raise MissingExtraError("Passing requests on", "serve") from error
        connect = self._timeouts.connect
        if self._endpoint.proxy is not None:
            from routellm.upstream.proxied import ProxiedPool

            return ProxiedPool(self._base, self._endpoint.proxy, connect_timeout=connect, keep_alive=_KEEP_ALIVE_SECONDS)
        host, port, secure = self._base.host or "", self._base.port or 80, self._base.scheme == "https"
        return Pool(host, port, secure=secure, connect_timeout=connect, keep_alive=_KEEP_ALIVE_SECONDS)

    def _open_client(self) -> OpenAI:
        from routellm.upstream.clients import remote_client

        return remote_client(self._endpoint, self._timeouts)

    def _open_async_client(self) -> AsyncOpenAI:
        from routellm.upstream.clients import remote_async_client

        return remote_async_client(self._endpoint, self._timeouts)

    def _timeout(self, error: TimeoutError) -> UpstreamTimeoutError:
        from routellm.upstream.wire import ConnectTimeoutError

        connecting = isinstance(error, ConnectTimeoutError)
        within = self._timeouts.connect if connecting else self._timeouts.until_first_byte
        return UpstreamTimeoutError(
            f"The model {self._name!r} at {self._endpoint.base_url} did not {'connect' if connecting else 'answer'} within "
            f"{within:g} s.",
            repeatable=connecting,
        )


class HttpReply(UpstreamReply):
    """A reply, passed on as it comes in.

    One timer watches over a whole body, however many pieces it has: it is set anew only when it fires, and counts a silence
    from when a piece was last waited for, so that a slow reader is no silence of the upstream's.
    """

    def __init__(
        self, name: str, timeouts: Timeouts, started: float, answer: AnyAnswer, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._name = name
        self._timeouts = timeouts
        self._ends = started + timeouts.total
        self._answer = answer
        self._loop = loop
        self._first: bytes | None = None
        self._waiting_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.status = answer.status
        self._fields = answer.headers.copy()
        for dropped in _NOT_RETURNED.intersection(self._fields):
            del self._fields[dropped]
        if answer.status in NO_BODY:
            self._fields.pop(b"content-length", None)  # of a body that does not come

    @cached_property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        return {_text(name): _text(value) for name, value in self._fields.items()}

    @property
    def content_type(self) -> str:
        return _text(self._fields.get(b"content-type", b""))

    @property
    def content_encoding(self) -> str:
        return _text(self._fields.get(b"content-encoding", b""))

    def fields(self) -> dict[bytes, bytes]:
        return self._fields.copy()

    async def read_first(self) -> None:
        """Wait for the body's first piece, which `chunks` then begins with; how long is the caller's business.

        Raises:
            UpstreamError: the upstream broke off.
        """
        try:
            self._first = await self._read()
        except BaseException:
            self._answer.close()
            raise

    def whole(self) -> bytes | None:
        return self._answer.whole() if self._first is None else None

    async def chunks(self) -> AsyncIterator[bytes]:
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = await self._piece()
        while chunk:
            yield chunk
            chunk = await self._piece()

    async def aclose(self) -> None:
        self._stop_watching()
        self._answer.close()  # after the end of the body this leaves the pooled connection alone

    async def _piece(self) -> bytes:
        if self._answer.is_complete:  # all of it has come, or it broke off
            self._stop_watching()
            return await self._read()
        now = self._waiting_since = self._loop.time()
        if self._timer is None:
            due = min(now + self._timeouts.between_pieces, self._ends)
            self._timer = self._loop.call_at(due, self._check_time)
        chunk = await self._read()
        self._waiting_since = None
        return chunk

    async def _read(self) -> bytes:
        try:
            return await self._answer.read()
        except OSError as error:
            raise UpstreamBrokeOffError(f"The model {self._name!r} broke off its answer: {_reason(error)}.") from error

    def _check_time(self) -> None:
        now = self._loop.time()
        since = now if self._waiting_since is None else self._waiting_since
        idle = self._timeouts.between_pieces
        due = min(since + idle, self._ends)
        if now < due:
            self._timer = self._loop.call_at(due, self._check_time)
            return
        self._timer = None
        told = (
            f"did not end its answer within {self._timeouts.total:g} s"
            if due == self._ends
            else f"fell silent for {idle:g} s in the middle of its answer"
        )
        self._answer.fail(UpstreamTimeoutError(f"The model {self._name!r} {told}."))

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
