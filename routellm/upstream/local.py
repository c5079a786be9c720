"""What upstreams share that answer inside this process: official clients whose requests never reach a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from routellm.upstream.base import Format, UpstreamReply
from routellm.upstream.held import ClientHoldingUpstream

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


@dataclass(frozen=True, slots=True)
class BlockingReply:
    """The blocking twin of `UpstreamReply`: the same status, headers, and kinds of errors while its chunks are read."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class AsyncReply(UpstreamReply):
    """A reply made of an asynchronous generator; `close` lets go of what feeds it."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        chunks: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.status, self.headers = status, headers
        self._chunks, self._close = chunks, close

    def chunks(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        await self._chunks.aclose()
        if self._close is not None:
            await self._close()


class LocalUpstream(ClientHoldingUpstream):
    """An upstream with a blocking twin of `send`, from which both official clients follow. Takes chat completions only."""

    formats: frozenset[Format] = frozenset({"chat"})

    @abstractmethod
    def send_blocking(self, path: str, body: bytes) -> BlockingReply:
        """As `send`, without an event loop."""

    def _open_client(self) -> OpenAI:
        from routellm.upstream.clients import local_client

        return local_client(self.send_blocking)

    def _open_async_client(self) -> AsyncOpenAI:
        from routellm.upstream.clients import local_async_client

        return local_async_client(self.send)


async def once(body: bytes) -> AsyncGenerator[bytes, None]:
    """A body of one piece."""
    yield body
