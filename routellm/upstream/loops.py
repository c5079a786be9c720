"""Values that belong to an event loop: pooled connections can only be used on the loop that opened them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value for each event loop, made when it is first asked for.

    A value that is asked for where no loop runs is kept apart: it belongs to whichever loop uses it first.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        self._outside: list[T] = []

    def get(self) -> T:
        """The running loop's value."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if not self._outside:
                self._outside.append(self._make())
            return self._outside[0]
        value = self._values.get(loop)
        if value is None:
            value = self._values[loop] = self._make()
        return value

    def take(self) -> list[T]:
        """Forget, and return, what the running loop may close: its own value, and one made outside of any loop."""
        own = self._values.pop(asyncio.get_running_loop(), None)
        outside, self._outside = self._outside, []
        return outside if own is None else [own, *outside]
