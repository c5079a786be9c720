"""What tokens cost: list prices from the library `genai-prices`, which holds them offline, and a user's own in their place.

Money is counted in whole nano-dollars (a billionth of a dollar), so that sums are exact whatever their order. A request's
price is rounded once, to the nearest nano-dollar. A price that is not known is None, and never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from routellm.errors import ConfigError, MissingExtraError, did_you_mean
from routellm.types import Usage
from routellm.upstream.base import UPSTREAMS, ModelSpec
from routellm.upstream.providers import provider_of

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""

_PICO_PER_TOKEN = 1_000_000  # a dollar for a million tokens is so many pico-dollars a token

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


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's price in the configuration, in dollars for a million tokens.

    `cached_input_per_million` is that of the input that the provider had in its cache; None: as any other input.
    """

    input_per_million: float
    output_per_million: float
    cached_input_per_million: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1e6:
                raise ValueError(f"{name} is {value!r}; it must be from 0 to 1,000,000 dollars for a million tokens")


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-dollars a token, which is a millionth of what a million tokens cost, in dollars."""

    input: int
    output: int
    cached_input: int

    @classmethod
    def of(cls, input: Decimal, output: Decimal, cached_input: Decimal | None = None) -> Rates:
        """From dollars for a million tokens."""
        dollars = (input, output, input if cached_input is None else cached_input)
        return cls(*(round(value * _PICO_PER_TOKEN) for value in dollars))


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What a model's tokens cost.

    Attributes:
        rates: for a request of usual length.
        longer: (tokens of input, rates): with more input than that, all of a request's tokens have these rates. Ascending.
        per_request: nano-dollars for each request beside its tokens.
    """

    rates: Rates
    longer: tuple[tuple[int, Rates], ...] = ()
    per_request: int = 0

    def nanodollars(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> int:
        """The price of one request."""
        rates = self.rates
        for tokens, of_longer in self.longer:
            if input_tokens > tokens:
                rates = of_longer
        cached = min(cached_input_tokens, input_tokens)
        pico = (input_tokens - cached) * rates.input + cached * rates.cached_input + output_tokens * rates.output
        return (pico + 500) // 1000 + self.per_request


class PriceList:
    """The prices of the models that are served; a model that is not in it has no known price."""

    def __init__(self, prices: Mapping[str, ModelPrice]) -> None:
        self._prices = dict(prices)

    @classmethod
    def load(cls, specs: Iterable[ModelSpec], overrides: Mapping[str, PriceSettings]) -> PriceList:
        """The configured prices, and list prices, as of now, for the models that have none there. No network access.

        Raises:
            ConfigError: a price is configured for a model that is not served.
        """
        by_name = {spec.name: spec for spec in specs}
        prices = {name: price for name, spec in by_name.items() if name not in overrides and (price := find_price(spec))}
        for name, own in overrides.items():
            if name not in by_name:
                raise ConfigError(
                    f"A price is configured for {name!r}, which is not served{did_you_mean(name, by_name)}. "
                    f"Served: {', '.join(by_name)}."
                )
            prices[name] = own_price(own.input_per_million, own.output_per_million, own.cached_input_per_million)
        return cls(prices)

    def nanodollars(self, model: str | None, usage: Usage | None) -> int | None:
        """What a request cost; None where its tokens or its model's price are not known."""
        price = self._prices.get(model) if model is not None else None
        if price is None or usage is None:
            return None
        return price.nanodollars(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)


def own_price(input: float, output: float, cached_input: float | None = None) -> ModelPrice:
    """A price from dollars for a million tokens, taken as they are written: 0.1 is a tenth."""
    cached = None if cached_input is None else Decimal(str(cached_input))
    return ModelPrice(Rates.of(Decimal(str(input)), Decimal(str(output)), cached))


def find_price(spec: ModelSpec) -> ModelPrice | None:
    """The list price of a model at its provider; None where it is not known, or the library is not installed.

    At an endpoint of the user's own (`api_base`) no list price holds, nor for what no provider answers (`demo/NAME`).
    """
    if spec.api_base:
        return None
    full = spec.name.removeprefix("litellm/")
    prefix, name = full.split("/", 1) if "/" in full else provider_of(spec)
    if prefix in UPSTREAMS:
        return None
    try:
        return listed_price(name, _NAMES.get(prefix, prefix))
    except MissingExtraError:
        return None


def listed_price(name: str, provider: str | None = None) -> ModelPrice | None:
    """The list price, as of now, of the model that `provider` calls `name`; of the nearest provider where that is None.

    Raises:
        MissingExtraError: `genai-prices` is not installed.
    """
    try:
        from genai_prices import Usage as Counted
        from genai_prices import calc_price
    except ImportError as error:
        raise MissingExtraError("Prices", "eval") from error
    try:
        found = calc_price(Counted(input_tokens=1, output_tokens=1), name, provider_id=provider).model_price
    except LookupError:
        return None
    of_kinds = [found.input_mtok, found.output_mtok, found.cache_read_mtok]
    starts = sorted({tier.start for price in of_kinds for tier in getattr(price, "tiers", ())})
    rates, *longer = (_rates_from(of_kinds, start) for start in (0, *starts))
    per_request = round((_price_from(found.requests_kcount, 0) or Decimal(0)) * NANO / 1000)
    return ModelPrice(rates, tuple(zip(starts, longer, strict=True)), per_request)


def _rates_from(of_kinds: list[Any], start: int) -> Rates:
    """The rates for more than `start` tokens of input, out of prices that are Decimals, such in tiers, or None."""
    given, answered, cached = (_price_from(price, start) for price in of_kinds)
    return Rates.of(given or Decimal(0), answered or Decimal(0), cached)


def _price_from(price: Any, start: int) -> Decimal | None:
    reached = [tier.price for tier in getattr(price, "tiers", ()) if 0 < start >= tier.start]
    found: Decimal | None = reached[-1] if reached else getattr(price, "base", price)
    return found
