"""What calls cost, and the limit that they must not pass. Prices come with the library `genai-prices`, or from the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from routellm import costs
from routellm.evals.collecting.journal import Usage
from routellm.upstream.base import ModelSpec

Price: TypeAlias = Callable[[Usage], float]
"""Dollars for a call."""


def fixed_price(dollars_in: float, dollars_out: float) -> Price:
    """A price in dollars for a million tokens of prompt and of answer."""
    return lambda usage: (usage.prompt_tokens * dollars_in + usage.completion_tokens * dollars_out) / 1e6


def find_price(spec: ModelSpec) -> Price | None:
    """The list price of a model at its provider; None where it is not known.

    At an endpoint of the user's own (`api_base`) no list price holds.
    """
    listed = costs.find_price(spec)
    if listed is None:
        return None
    return lambda usage: listed.nanodollars(usage.prompt_tokens, usage.completion_tokens, usage.cached) / costs.NANO


class Budget:
    """Dollars spent, dollars that calls under way may yet cost, and the limit that the two together never pass.

    A call is reserved at the most that it can cost. Where that does not fit, it waits for those under way, most of which turn
    out cheaper; where none is under way it can't be made.
    """

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        self.limit, self.spent = limit, spent
        self._reserved = 0.0
        self._under_way = 0
        self._changed = asyncio.Event()

    async def reserve(self, most: float) -> bool:
        """Set `most` dollars aside; False where the limit has no room for them."""
        while self.limit is not None and self.spent + self._reserved + most > self.limit:
            if not self._under_way:
                return False
            self._changed.clear()
            await self._changed.wait()
        self._reserved += most
        self._under_way += 1
        return True

    def settle(self, most: float, cost: float) -> None:
        """Give back what `reserve` set aside, of which `cost` was spent."""
        self._under_way -= 1
        self._reserved = self._reserved - most if self._under_way else 0.0  # no rounding error outlives the calls
        self.spent += cost
        self._changed.set()
