"""When the next call may go out: limits a minute, and pauses between the tries of one call."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds, and how to let them pass. Tests bring their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


class Pace:
    """Lets out so much a minute, evenly: after an amount, the next waits until the minute's share of it has passed.

    So any minute sees no more than the limit, and one amount that is larger waits its longer time alone.

    Args:
        per_minute: how much; None for no limit.
        clock: what time it is.
    """

    _LONGEST_NAP = 1.0  # a wait can become shorter while it lasts: see `correct`

    def __init__(self, per_minute: float | None, clock: Clock | None = None) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock or Clock()
        self._free_at = self._clock.now()
        self._turn = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> None:
        """Wait until `amount` may go out; first come, first served."""
        async with self._turn:
            while (wait := self._free_at - self._clock.now()) > 0.0:
                await self._clock.sleep(min(wait, self._LONGEST_NAP))
            self._free_at = self._clock.now() + amount * self._seconds_each

    def correct(self, amount: float) -> None:
        """An amount that went out was larger than said, by this much; negative for smaller."""
        base = self._free_at if amount < 0.0 else max(self._free_at, self._clock.now())
        self._free_at = base + amount * self._seconds_each

    def hold(self, seconds: float) -> None:
        """Let nothing out for so long: the endpoint asked for a pause."""
        self._free_at = max(self._free_at, self._clock.now() + seconds)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried, and how long it waits in between.

    The n-th pause is `first * 2**(n-1)` seconds, at most `longest`, times a random factor from 0.5 to 1, so that calls which
    failed together don't come back together. Where the endpoint says how long to wait, that is kept, and up to a quarter
    of it more.

    Attributes:
        tries: at most so many, the first one included.
        first, longest: seconds.
        patience: seconds; an endpoint that asks for a longer pause than this is not waited for.
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 60.0
    patience: float = 300.0
    random: random.Random = field(default_factory=random.Random)

    def pause(self, number: int, asked: float | None = None) -> float | None:
        """Seconds to wait after try `number` (from 1), None where it was the last; `asked` is what the endpoint asks for."""
        if number >= self.tries or (asked or 0.0) > self.patience:
            return None
        if asked:
            return asked * self.random.uniform(1.0, 1.25)
        return min(self.first * 2.0 ** (number - 1), self.longest) * self.random.uniform(0.5, 1.0)
