"""What a key allows."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from routellm.config import check_range
from routellm.costs import NANO
from routellm.errors import KeyNotAllowedError
from routellm.types import Decision

_MOST_COUNTED = 1_000_000_000_000
_MOST_DOLLARS = 100_000_000.0


class KeyPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What its holder may do. None, everywhere: no bound.

    Attributes:
        routers: names of the routers that may be asked.
        models: own names of the models that may be asked for, past any router; an empty list allows none.
        threshold_min, threshold_max: the thresholds that may be asked for. A lower bound keeps a client from sending
            everything to the strong model.
        requests_per_minute, tokens_per_minute: in a minute of UTC; tokens of input and output together.
        dollars_per_day, dollars_per_month: in a day and a month of UTC.
        over_budget: what becomes of requests once the dollars are spent: "stop" refuses them, "weak" sends them to the weak
            model, whose price is counted on.
    """

    routers: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    threshold_min: float | None = None
    threshold_max: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    dollars_per_day: float | None = None
    dollars_per_month: float | None = None
    over_budget: Literal["stop", "weak"] = "stop"

    def __post_init__(self) -> None:
        for name in ("threshold_min", "threshold_max"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("requests_per_minute", "tokens_per_minute"):
            check_range(name, getattr(self, name), 1, _MOST_COUNTED)
        for name in ("dollars_per_day", "dollars_per_month"):
            check_range(name, getattr(self, name), 0.0, _MOST_DOLLARS)
        if self.threshold_min is not None and self.threshold_max is not None and self.threshold_min > self.threshold_max:
            raise ValueError(
                f"threshold_min is {self.threshold_min!r}, above threshold_max, which is {self.threshold_max!r}; "
                f"no threshold would be allowed"
            )

    def check(self, decision: Decision) -> None:
        """Whether what the request asked for is allowed: its router and threshold, or the model that it named.

        Raises:
            KeyNotAllowedError: it is not; nothing is ever changed to what would be.
        """
        if decision.router is None:
            if not self.allows_model(decision.model):
                raise _refused("model", decision.model, _listed(self.models))
            return
        if not self.allows_router(decision.router):
            raise _refused("router", decision.router, _listed(self.routers))
        low = 0.0 if self.threshold_min is None else self.threshold_min
        high = 1.0 if self.threshold_max is None else self.threshold_max
        if decision.threshold is not None and not low <= decision.threshold <= high:
            allowed = f"from {low:g} to {high:g}, as in router-{decision.router}-{low:g}"
            raise _refused("threshold", f"{decision.threshold:g}", allowed)

    def allows_model(self, name: str) -> bool:
        """Whether a request may name this model itself."""
        return self.models is None or name in self.models

    def allows_router(self, name: str) -> bool:
        """Whether a request may ask this router."""
        return self.routers is None or name in self.routers


def nanodollars(dollars: float) -> int:
    """As it is written: 0.1 is a tenth."""
    return round(Decimal(str(dollars)) * NANO)


def _refused(what: str, given: str, allowed: str) -> KeyNotAllowedError:
    text = f"This key does not allow the {what} {given!r}. Allowed: {allowed}."
    return KeyNotAllowedError(text, code=f"{what}_not_allowed")


def _listed(names: tuple[str, ...] | None) -> str:
    return ", ".join(names or ()) or "none"
