"""The fast path: any OpenAI-compatible endpoint over pooled aiohttp connections, bytes in and bytes out."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from routellm.errors import UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import ModelSpec, UpstreamReply
from routellm.upstream.endpoint import resolve_endpoint
from routellm.upstream.held import ClientHoldingUpstream
from routellm.upstream.loops import PerLoop

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

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
_NOT_RETURNED = _HOP_BY_HOP | {"set-cookie", "set-cookie2"}

_KEEP_ALIVE_SECONDS = 30.0
_DNS_CACHE_SECONDS = 60
_LARGE_BODY = 1 << 20
"""From this size on a body is written in pieces, so that it does not hold up the event loop."""


class HttpUpstream(ClientHoldingUpstream):
    """A model behind an OpenAI-compatible endpoint.

    Connections are pooled per event loop, without a limit: who calls decides how many requests are under way. A request is
    sent once, never again on our own account.
    """

    def __init__(self, spec: ModelSpec, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._name = spec.name
        self._timeouts = spec.timeouts
        self._endpoint = resolve_endpoint(spec, environ)
        self.model = self._endpoint.model
        self._own_headers = dict(self._endpoint.headers)
        if self._endpoint.key is not None:
            self._own_headers["authorization"] = f"Bearer {self._endpoint.key}"
        self._urls: dict[str, URL] = {}
        self._sessions = PerLoop(self._open_session)

    def check(self) -> None:
        self._endpoint.check(self._name)

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        self.check()
        sent = {name: value for name, value in headers.items() if name.lower() not in _NOT_SENT}
        if "content-type" not in sent and "Content-Type" not in sent:
            sent["content-type"] = "application/json"
        sent.update(self._own_headers)
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._endpoint.base_url + path)
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        try:
            response = await self._sessions.get().post(url, data=data, headers=sent, allow_redirects=False)
        except TimeoutError as error:
            raise self._timeout(error) from error
        except aiohttp.ClientHttpProxyError as error:  # whose own words may hold the proxy's password, hence no cause
            raise UpstreamError(
                f"The model {self._name!r} could not be reached at {self._endpoint.base_url}: the proxy that the environment "
                f"names answered {error.status} {error.message}."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(
                f"The model {self._name!r} could not be reached at {self._endpoint.base_url}: {_reason(error)}. "
                f"Check that the endpoint is up and the base URL right."
            ) from error
        return HttpReply(self._name, self._timeouts.read, response)

    async def aclose(self) -> None:
        await super().aclose()
        for session in self._sessions.take():
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_CACHE_SECONDS, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(connect=self._timeouts.connect, sock_read=self._timeouts.read),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            proxy=self._endpoint.proxy,
        )

    def _open_client(self) -> OpenAI:
        from routellm.upstream.clients import remote_client

        return remote_client(self._endpoint, self._timeouts)

    def _open_async_client(self) -> AsyncOpenAI:
        from routellm.upstream.clients import remote_async_client

        return remote_async_client(self._endpoint, self._timeouts)

    def _timeout(self, error: TimeoutError) -> UpstreamTimeoutError:
        connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
        waited = f"connect within {self._timeouts.connect:g} s" if connecting else f"answer within {self._timeouts.read:g} s"
        return UpstreamTimeoutError(f"The model {self._name!r} at {self._endpoint.base_url} did not {waited}.")


class HttpReply(UpstreamReply):
    """An aiohttp response, passed on as it comes in."""

    def __init__(self, name: str, read_timeout: float, response: aiohttp.ClientResponse) -> None:
        self._name = name
        self._read_timeout = read_timeout
        self._response = response
        self.status = response.status
        self.headers = _end_to_end(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        while True:
            try:
                chunk = await content.readany()
            except TimeoutError as error:
                raise UpstreamTimeoutError(
                    f"The model {self._name!r} fell silent for {self._read_timeout:g} s in the middle of its answer."
                ) from error
            except (aiohttp.ClientError, OSError) as error:
                raise UpstreamError(f"The model {self._name!r} broke off its answer: {_reason(error)}.") from error
            if not chunk:
                return
            yield chunk

    async def aclose(self) -> None:
        self._response.close()  # after the end of the body this leaves the pooled connection alone


def _end_to_end(response: aiohttp.ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        name = name.lower()
        if name not in _NOT_RETURNED:
            headers[name] = value if name not in headers else f"{headers[name]}, {value}"
    return headers


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
