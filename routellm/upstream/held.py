"""Upstreams that hold on to their official clients: one blocking, and one for each event loop, opened when first asked for."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from routellm.upstream.base import Upstream
from routellm.upstream.loops import PerLoop

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


class ClientHoldingUpstream(Upstream):
    """An upstream whose clients are made by two short methods and closed here."""

    def __init__(self) -> None:
        self._client: OpenAI | None = None
        self._async_clients = PerLoop(self._open_async_client)

    @abstractmethod
    def _open_client(self) -> OpenAI:
        """Make a blocking client."""

    @abstractmethod
    def _open_async_client(self) -> AsyncOpenAI:
        """Make an asynchronous client."""

    def client(self) -> OpenAI:
        if self._client is None:
            self._client = self._open_client()
        return self._client

    def async_client(self) -> AsyncOpenAI:
        return self._async_clients.get()

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        self.close()
        for client in self._async_clients.take():
            await client.close()
