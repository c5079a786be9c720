"""A server on loopback that sends any bytes at any pace, for what no HTTP library would send; it counts its connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias

from tests.live import PATIENCE

Act: TypeAlias = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request that has come in whole, to be answered."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send these bytes now."""
        self._writer.write(data)
        await self._writer.drain()

    async def drip(self, data: bytes, seconds: float = 0.02) -> None:
        """Send a byte at a time."""
        for byte in data:
            await self.send(bytes([byte]))
            await asyncio.sleep(seconds)

    async def stall(self) -> None:
        """Say nothing more until the client goes away."""
        await asyncio.Event().wait()

    async def reset(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()


class RawServer:
    """An asynchronous context manager in the test's own event loop. Requests get `acts` in order; the last one repeats.

    Without `reads_bodies` an act begins as soon as a request's headers are in, and a connection takes one request.
    """

    def __init__(self, *acts: Act, reads_bodies: bool = True) -> None:
        self.acts = list(acts)
        self._reads_bodies = reads_bodies
        self.requests = 0
        self.connections = 0
        """Opened so far."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    async def all_closed(self) -> None:
        """Wait until no connection is open."""
        async with asyncio.timeout(PATIENCE):
            while self._tasks:
                await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                if self._reads_bodies:
                    await reader.readexactly(int(length.split(b":")[1]))
                act = self.acts[min(self.requests, len(self.acts) - 1)]
                self.requests += 1
                answering = asyncio.ensure_future(act(Exchange(writer)))
                gone = asyncio.ensure_future(_until_gone(reader, writer))
                try:
                    await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    gone.cancel()
                    answering.cancel()
                await asyncio.gather(answering, gone, return_exceptions=True)
                if writer.is_closing() or reader.at_eof() or not self._reads_bodies:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof() and not writer.is_closing() and reader.exception() is None:
        await asyncio.sleep(0.005)


def head(status: str = "200 OK", kind: str = "application/json", **headers: str) -> bytes:
    """A status line and headers; `retry_after="2"` gives `retry-after: 2`."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", *(f"{key.replace('_', '-')}: {headers[key]}" for key in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def reply(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> Act:
    """A whole reply."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(head(status, content_length=str(len(body)), **headers) + body)

    return act


def stream(*pieces: bytes, then: Callable[[Exchange], Awaitable[None]] | None = None) -> Act:
    """An event stream in chunks, which ends well unless `then` sees to its end."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(head(kind="text/event-stream", transfer_encoding="chunked"))
        for piece in pieces:
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if then is None:
            await exchange.send(b"0\r\n\r\n")
        else:
            await then(exchange)

    return act
