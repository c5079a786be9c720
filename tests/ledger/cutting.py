"""A way to PostgreSQL that breaks at the worst moment: after a commit came through, before its answer is back."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

PATIENCE = 20.0


class CuttingProxy:
    """A context manager. After `cut_next_commit()` the next COMMIT reaches the server, and its answer is lost with the
    connection. `cuts` counts."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._armed = False
        self.cuts = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def cut_next_commit(self) -> None:
        self._armed = True

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close on the loop's next round

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        to, back = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            up = asyncio.ensure_future(self._copy(reader, back, cut=False))
            down = asyncio.ensure_future(self._copy(to, writer, cut=True))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for one in (up, down):
                one.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            back.transport.abort()
            writer.transport.abort()
            self._tasks.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cut: bool) -> None:
        while data := await reader.read(65_536):
            if cut and self._armed and b"COMMIT\0" in data:  # the command's tag, in the server's answer
                self._armed = False
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()
