"""How many requests are under way at once, and what becomes of those that come on top: they wait in line for a while, and are
then refused while there is still somebody to tell.

Each worker process counts its own. A server that is shutting down needs nothing of this: uvicorn closes its listener and the
idle connections, and each other connection as soon as its answer is complete; those in line are answered first.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from routellm.errors import OverloadedError


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one worker process takes on.

    Attributes:
        concurrent: requests under way at once, from their headers to the last byte of the answer.
        queued: requests in line for that; 0 refuses whatever can't begin at once.
        wait_seconds: for how long a request waits in line.
        receive_seconds: a request that has not come in whole after so long is refused, and its connection closed, as is one
            over which none comes. Read when the server starts.
    """

    concurrent: int = 1_000
    queued: int = 1_000
    wait_seconds: float = 10.0
    receive_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.concurrent < 1:
            raise ValueError(f"concurrent is {self.concurrent}; it must be at least 1")
        if self.queued < 0:
            raise ValueError(f"queued is {self.queued}; it must be at least 0")
        for name, largest in (("wait_seconds", 600.0), ("receive_seconds", 3600.0)):
            if not 0.0 < (seconds := getattr(self, name)) <= largest:
                raise ValueError(f"{name} is {seconds}; it must lie above 0 and up to {largest:g}")


class Admission:
    """Lets requests in, first come first served. One for a process, on one event loop; it outlives changes of the settings.

    >>> await admission.enter()
    >>> try:
    ...     ...
    ... finally:
    ...     admission.leave()
    """

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._under_way = 0
        self._line: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Return once the request may begin; each return is owed one `leave`.

        Raises:
            OverloadedError: the line is full, or the wait was too long.
        """
        if not self.enter_at_once():
            await self._wait_in_line()

    def enter_at_once(self) -> bool:
        """Let a request begin if it need not wait; whether it may, and then it is owed one `leave`."""
        if self._under_way < self._settings.concurrent and not self._line:
            self._under_way += 1
            return True
        return False

    def leave(self) -> None:
        """The request is over, in whatever way; the next in line begins."""
        self._under_way -= 1
        if self._line:
            self._let_in()

    def change(self, settings: AdmissionSettings) -> None:
        """Take other limits from now on. Nothing that is under way or in line is dropped."""
        self._settings = settings
        self._let_in()

    def depths(self) -> tuple[int, int]:
        """How many requests are under way, and how many in line."""
        return self._under_way, len(self._line)

    async def _wait_in_line(self) -> None:
        settings = self._settings
        if len(self._line) >= settings.queued:
            raise _refusal(settings, "the line is full")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._line.append(turn)
        timer = loop.call_later(settings.wait_seconds, self._give_up, turn, settings)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had come just before
                self.leave()
            elif turn in self._line:
                self._line.remove(turn)
            raise
        finally:
            timer.cancel()

    def _give_up(self, turn: asyncio.Future[None], settings: AdmissionSettings) -> None:
        if not turn.done():
            self._line.remove(turn)
            turn.set_exception(_refusal(settings, f"none of them ended within {settings.wait_seconds:g} seconds"))

    def _let_in(self) -> None:
        while self._line and self._under_way < self._settings.concurrent:
            turn = self._line.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)


def _refusal(settings: AdmissionSettings, why: str) -> OverloadedError:
    return OverloadedError(
        f"This server has {settings.concurrent:,} requests under way already, and {why}. Try again later.", retry_after=1
    )
