"""Official OpenAI clients set up for an upstream: over the network, or answered inside this process.

Imports `openai`, so it is itself imported only where a client is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI, Timeout, omit

from routellm.errors import UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import Timeouts, UpstreamReply
from routellm.upstream.endpoint import Endpoint
from routellm.upstream.local import BlockingReply

_NO_KEY = "no-key"
"""The clients refuse to be constructed without a key. `_drop_key` sees to it that this one is never sent."""

LOCAL_BASE_URL = "http://routellm.local/v1"
"""What clients of an upstream inside this process are told; nothing ever connects to it."""


SyncSend = Callable[[str, bytes], BlockingReply]


class AsyncSend(Protocol):
    """`Upstream.send`."""

    async def __call__(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply: ...


def remote_client(endpoint: Endpoint, timeouts: Timeouts) -> OpenAI:
    """A client for `endpoint`."""
    keyless = None if endpoint.key else DefaultHttpxClient(event_hooks={"request": [_drop_key]})
    return OpenAI(**_settings(endpoint, timeouts), http_client=keyless)


def remote_async_client(endpoint: Endpoint, timeouts: Timeouts) -> AsyncOpenAI:
    """A client for `endpoint`, asynchronous."""
    keyless = None if endpoint.key else DefaultAsyncHttpxClient(event_hooks={"request": [_drop_key_async]})
    return AsyncOpenAI(**_settings(endpoint, timeouts), http_client=keyless)


def local_client(send: SyncSend) -> OpenAI:
    """A client whose requests `send` answers."""
    return OpenAI(api_key=_NO_KEY, base_url=LOCAL_BASE_URL, http_client=httpx2.Client(transport=_Transport(send)))


def local_async_client(send: AsyncSend) -> AsyncOpenAI:
    """A client whose requests `send` answers, asynchronous."""
    client = httpx2.AsyncClient(transport=_AsyncTransport(send))
    return AsyncOpenAI(api_key=_NO_KEY, base_url=LOCAL_BASE_URL, http_client=client)


def _settings(endpoint: Endpoint, timeouts: Timeouts) -> dict[str, Any]:
    # The clients read an organisation and a project from the environment for any base URL; they belong to OpenAI's alone.
    own = {name: endpoint.headers.get(name, omit) for name in ("openai-organization", "openai-project")}
    return {
        "api_key": endpoint.key or _NO_KEY,
        "base_url": endpoint.base_url,
        "timeout": Timeout(timeouts.read, connect=timeouts.connect),
        "default_headers": {"OpenAI-Organization": own["openai-organization"], "OpenAI-Project": own["openai-project"]},
    }


def _drop_key(request: httpx2.Request) -> None:
    request.headers.pop("authorization", None)


async def _drop_key_async(request: httpx2.Request) -> None:
    _drop_key(request)


class _Transport(httpx2.BaseTransport):
    def __init__(self, send: SyncSend) -> None:
        self._send = send

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            reply = self._send(_path(request), request.read())
        except UpstreamError as error:
            raise _unreachable(error, request) from error
        return httpx2.Response(reply.status, headers=dict(reply.headers), stream=_Stream(reply, request))


class _Stream(httpx2.SyncByteStream):
    def __init__(self, reply: BlockingReply, request: httpx2.Request) -> None:
        self._reply, self._request = reply, request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._reply.chunks
        except UpstreamError as error:
            raise _broken_off(error, self._request) from error

    def close(self) -> None:
        close = getattr(self._reply.chunks, "close", None)
        if close is not None:
            close()


class _AsyncTransport(httpx2.AsyncBaseTransport):
    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            reply = await self._send(_path(request), await request.aread(), {})
        except UpstreamError as error:
            raise _unreachable(error, request) from error
        return httpx2.Response(reply.status, headers=dict(reply.headers), stream=_AsyncStream(reply, request))


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, reply: UpstreamReply, request: httpx2.Request) -> None:
        self._reply, self._request = reply, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._reply.chunks():
                yield chunk
        except UpstreamError as error:
            raise _broken_off(error, self._request) from error

    async def aclose(self) -> None:
        await self._reply.aclose()


def _path(request: httpx2.Request) -> str:
    return request.url.path.removeprefix(httpx2.URL(LOCAL_BASE_URL).path)


def _unreachable(error: UpstreamError, request: httpx2.Request) -> httpx2.TransportError:
    if isinstance(error, UpstreamTimeoutError):
        return httpx2.ReadTimeout(str(error), request=request)
    return httpx2.ConnectError(str(error), request=request)


def _broken_off(error: UpstreamError, request: httpx2.Request) -> httpx2.TransportError:
    if isinstance(error, UpstreamTimeoutError):
        return httpx2.ReadTimeout(str(error), request=request)
    return httpx2.RemoteProtocolError(str(error), request=request)
