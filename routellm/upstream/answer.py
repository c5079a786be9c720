"""A reply on a connection of `wire.py`: its head, and its body as it comes in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from routellm.upstream.base import NO_BODY

if TYPE_CHECKING:
    from routellm.upstream.wire import Connection

_HIGH_WATER = 256 * 1024  # bytes of a body that wait for their reader; then no more is read from the connection
_LENGTHS = (b"content-length", b"transfer-encoding")


class Answer:
    """A reply. `status` and `headers` (names in lower case, one value a name) hold once `head` is done."""

    __slots__ = (
        "_connection",
        "_ended",
        "_error",
        "_loop",
        "_paused",
        "_pieces",
        "_size",
        "_waiter",
        "head",
        "headers",
        "status",
    )

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head: asyncio.Future[None] = loop.create_future()
        self._connection, self._loop = connection, loop
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the connection's end tells where the body ends."""
        return self.status not in NO_BODY and not any(name in self.headers for name in _LENGTHS)

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has come, or it broke off; what has come may still wait to be read."""
        return self._ended

    def whole(self) -> bytes | None:
        """The body, where all of it has come and none was read; else None."""
        if not self._ended or self._error is not None or self._paused:
            return None
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self) -> bytes:
        """What has come since the last call, or what comes next; nothing at the end.

        Raises:
            WireError: the body broke off; also whatever `fail` was given.
        """
        if not self._pieces and not self._ended:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if not self._pieces:
            if self._error is not None:
                raise self._error
            return b""
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._paused:
            self._paused = False
            self._connection.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Let go of the reply: what is still to come is not wanted, and the call is cancelled."""
        self._connection.let_go(self)

    def feed(self, piece: bytes) -> None:
        """A piece has come."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._connection.pause()
        self._wake()

    def end(self) -> None:
        """All has come."""
        self._ended = True
        if self._paused:
            self._paused = False
            self._connection.resume()
        self._wake()

    def fail(self, error: Exception) -> None:
        """No more will come; whoever reads learns why."""
        self._error, self._ended = error, True
        if not self.head.done():
            self.head.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
