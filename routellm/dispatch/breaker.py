"""A circuit breaker: what has failed several times in a row is left alone for a while, then tried with one request."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal, TypeAlias

from routellm.dispatch.settings import BreakerSettings

BreakerState: TypeAlias = Literal["closed", "open", "half-open"]
"""Requests pass; none does; or none but one does, by which it is decided whether to close."""


class Breaker:
    """Counts failures in a row, by which a dead endpoint is known after as many requests however many there are.

    A share of failures over a window would open it for an endpoint that answers half of its requests, and take that half away
    as well. Calls that began before it last opened tell nothing of the endpoint since, and are not counted: `enter` gives out
    a token that says when a call began.
    """

    __slots__ = ("_clock", "_failures_to_open", "_generation", "_open_until", "_probing", "_seconds", "_settings", "failures")

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._failures_to_open = settings.failures or inf
        self._seconds = settings.open_seconds
        self._generation = 0
        self._open_until: float | None = None
        self._probing = False
        self.failures = 0
        """Failures in a row."""

    @property
    def state(self) -> BreakerState:
        """Half-open from the moment that a probe may pass."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._open_until else "open"

    def admits(self) -> bool:
        """Whether a call may begin now."""
        return self._open_until is None or (not self._probing and self._clock() >= self._open_until)

    def seconds_left(self) -> float:
        """Until it may close or lets a probe pass; 0 where it is closed."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def enter(self) -> int:
        """Begin a call that it admits. Each is followed by `failed`, by `left`, or by `replied` and then one of the three."""
        if self._open_until is not None:
            self._probing = True
        return self._generation

    def replied(self, token: int) -> bool:
        """A good reply has begun: where the call was a probe, requests pass again. Whether this closed it.

        One more failure opens it again until a reply came whole, lest an endpoint that breaks off all of its replies gets as
        many requests as one that does not.
        """
        if token != self._generation or self._open_until is None:
            return False
        self._open_until = None
        self._probing = False
        self.failures = self._settings.failures - 1
        return True

    def succeeded(self, token: int) -> None:
        """A reply came whole."""
        if token == self._generation:
            self.failures = 0
            self._seconds = self._settings.open_seconds

    def failed(self, token: int) -> bool:
        """A call failed. Whether this opened it, or kept it open after a probe."""
        if token != self._generation:
            return False
        self.failures += 1
        if self._open_until is None and self.failures < self._failures_to_open:
            return False
        self._open_until = self._clock() + self._seconds
        self._seconds = min(2 * self._seconds, self._settings.longest_open_seconds)
        self._generation += 1
        self._probing = False
        return True

    def left(self, token: int) -> None:
        """A call ended without telling anything, as when the client went away: another one may probe."""
        if token == self._generation:
            self._probing = False
