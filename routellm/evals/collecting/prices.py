"""What calls cost, and the limit that they must not pass. Prices come with the library `genai-prices`, or from the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeAlias

from routellm.evals.collecting.journal import Usage
from routellm.upstream.base import ModelSpec
from routellm.upstream.providers import provider_of

Price: TypeAlias = Callable[[Usage], float]
"""Dollars for a call."""

_NAMES = {  # this package's prefix -> the library's name of the provider, where they differ
    "bedrock": "aws",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "x-ai",
}


def fixed_price(dollars_in: float, dollars_out: float) -> Price:
    """A price in dollars for a million tokens of prompt and of answer."""
    return lambda usage: (usage.prompt_tokens * dollars_in + usage.completion_tokens * dollars_out) / 1e6


def find_price(spec: ModelSpec) -> Price | None:
    """The list price of a model at its provider; None where it is not known.

    At an endpoint of the user's own (`api_base`) no list price holds.
    """
    if spec.api_base or find_spec("genai_prices") is None:
        return None
    from genai_prices import Usage as Counted
    from genai_prices import calc_price

    full = spec.name.removeprefix("litellm/")
    prefix, name = full.split("/", 1) if "/" in full else provider_of(spec)
    provider = _NAMES.get(prefix, prefix)

    def price(usage: Usage) -> float:
        counted = Counted(
            input_tokens=usage.prompt_tokens, cache_read_tokens=usage.cached, output_tokens=usage.completion_tokens
        )
        return float(calc_price(counted, name, provider_id=provider).total_price)

    try:
        price(Usage(1, 1))
    except LookupError:
        return None
    return price


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
