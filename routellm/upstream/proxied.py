"""Requests that go through a proxy of the environment's: aiohttp knows how, and answers as `wire.py` does."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping

import aiohttp
from yarl import URL

from routellm.upstream.base import joined
from routellm.upstream.wire import ConnectTimeoutError, NoAnswerError, WireError

_LARGE_BODY = 1 << 20
"""From this size on a body is written in pieces, so that it does not hold up the event loop."""


class ProxiedPool:
    """What `wire.Pool` is, through a proxy.

    Args:
        base: scheme, host and port of the endpoint.
        proxy: the proxy's URL. No error shows it: a password may be in it.
        connect_timeout, keep_alive: seconds, as in `wire.Pool`.
    """

    def __init__(self, base: URL, proxy: str, *, connect_timeout: float, keep_alive: float) -> None:
        self._base = base
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive),
            timeout=aiohttp.ClientTimeout(connect=connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            proxy=proxy,
        )

    async def post(self, target: str, headers: Mapping[str, str], body: bytes, deadline: float) -> ProxiedAnswer:
        """Send a request; raises as `wire.Pool.post` does."""
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        url = self._base.join(URL(target, encoded=True))
        try:
            async with asyncio.timeout_at(deadline):
                return ProxiedAnswer(await self._session.post(url, data=data, headers=headers, allow_redirects=False))
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimeoutError("no connection in time") from error
        except TimeoutError as error:
            raise NoAnswerError("no answer in time") from error
        except aiohttp.ClientHttpProxyError as error:  # its own words may hold the proxy's password, hence no cause
            raise WireError(f"the proxy that the environment names answered {error.status} {error.message}") from None
        except aiohttp.ClientConnectorError as error:
            raise WireError(f"cannot connect to {error.host}, port {error.port}: {error.os_error}", repeatable=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise WireError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


class ProxiedAnswer:
    """What `wire.Answer` is, through a proxy."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = joined([(name.lower(), value) for name, value in response.raw_headers])

    @property
    def is_complete(self) -> bool:
        """See `wire.Answer`."""
        return self._response.content.is_eof()

    def whole(self) -> bytes | None:
        """See `wire.Answer`; here the body is always read piece by piece."""
        return None

    async def read(self) -> bytes:
        """See `wire.Answer`."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise WireError(str(error) or type(error).__name__) from error

    def fail(self, error: Exception) -> None:
        """See `wire.Answer`."""
        self._response.content.set_exception(error)

    def close(self) -> None:
        """See `wire.Answer`."""
        self._response.close()
