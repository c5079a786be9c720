"""What limits say of a request: windows of time, what is left in them, and what is taken. Plain arithmetic, no database.

Windows are fixed: a minute, a day, a month of UTC. So up to twice a minute's limit can go through within a minute that
straddles two windows, and never more than one limit within each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import Literal, NamedTuple, TypeAlias

from routellm.costs import NANO
from routellm.errors import BudgetError, RateLimitError, RequestError
from routellm.keys.policy import KeyPolicy, nanodollars

Kind: TypeAlias = Literal["requests", "tokens", "day", "month"]
"""Requests and tokens of a minute; nano-dollars of a day and of a month."""

_MINUTE, _DAY = 60, 86_400
_COUNTED: tuple[Kind, ...] = ("requests", "tokens")
_PERIODS: tuple[Kind, ...] = ("day", "month")


class Window(NamedTuple):
    """Of one key: what is counted, and from which second of Unix time on."""

    key: str
    start: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Limits:
    """A key's, as whole numbers. `of` has an entry for each kind that is limited."""

    key: str
    name: str
    of: Mapping[Kind, int]
    weak_when_spent: bool = False

    @classmethod
    def made(cls, key: str, name: str, policy: KeyPolicy) -> Limits:
        """Those of a policy."""
        dollars = (policy.dollars_per_day, policy.dollars_per_month)
        given: dict[Kind, int | None] = {"requests": policy.requests_per_minute, "tokens": policy.tokens_per_minute}
        given |= {kind: None if value is None else nanodollars(value) for kind, value in zip(_PERIODS, dollars, strict=True)}
        known = {kind: value for kind, value in given.items() if value is not None}
        return cls(key, name, known, policy.over_budget == "weak")

    @property
    def has_budget(self) -> bool:
        """Whether dollars are limited."""
        return "day" in self.of or "month" in self.of

    def windows(self, now: float) -> dict[Kind, Window]:
        """Those of its limits that a request at `now` counts in."""
        starts = _starts(int(now) // _MINUTE)
        return {kind: Window(self.key, starts[kind], kind) for kind in self.of}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may come to: tokens of input and output, nano-dollars with the chosen and with the weak model.

    None where the model's price is not known. `model` and `weak` are their names.
    """

    tokens: int = 0
    nanodollars: int | None = 0
    weak_nanodollars: int | None = 0
    model: str = ""
    weak: str = ""

    def amount(self, kind: Kind, *, weak: bool) -> int:
        """What it takes of a limit."""
        if kind == "requests":
            return 1
        if kind == "tokens":
            return self.tokens
        return (self.weak_nanodollars if weak else self.nanodollars) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A request may go on.

    Attributes:
        windows: in which it counts.
        reserved: what it took of each.
        only_weak: the budget is spent, and the weak model is all that the key allows by now.
    """

    windows: Mapping[Kind, Window] = field(default_factory=dict[Kind, Window])
    reserved: Mapping[Window, int] = field(default_factory=dict[Window, int])
    only_weak: bool = False


@dataclass(frozen=True, slots=True)
class Take:
    """A request that asks whether it may go on, at a time of Unix seconds; `windows` are those of its limits at that time."""

    limits: Limits
    estimate: Estimate
    now: float
    windows: Mapping[Kind, Window]


def grant(take: Take, amounts: Mapping[Window, int]) -> Grant | RequestError:
    """Whether a request fits into what is left; the error to refuse it with where it doesn't.

    Args:
        amounts: what is taken of each window by now; of one that is missing, nothing.
    """
    limits, estimate, windows, now = take.limits, take.estimate, take.windows, take.now
    over: dict[Kind, int] = {}
    for kind, window in windows.items():
        taken, limit = amounts.get(window, 0), limits.of[kind]
        if taken + estimate.amount(kind, weak=False) > limit or (kind in _PERIODS and taken >= limit):
            over[kind] = taken
    for kind in _COUNTED:
        if kind in over:
            return _over_limit(limits, kind, estimate, over[kind], now)
    if over and not limits.weak_when_spent:
        kind = next(iter(over))
        return _over_budget(limits, kind, estimate, over[kind], now)
    weak = bool(over)
    reserved = {window: estimate.amount(kind, weak=weak) for kind, window in windows.items()}
    return Grant(windows=windows, reserved=reserved, only_weak=weak)


def _over_limit(limits: Limits, kind: Kind, estimate: Estimate, taken: int, now: float) -> RateLimitError:
    limit = limits.of[kind]
    asked = estimate.amount(kind, weak=False)
    holder = f"The key {limits.name!r} ({limits.key}) is limited to {limit:,} {kind} a minute"
    if asked > limit:
        text = (
            f"{holder}, and this request is estimated at {asked:,}. Send less, or bound its answer with a smaller max_tokens."
        )
        return RateLimitError(text, kind, None)
    wait = max(1, ceil(_end(kind, now) - now))
    left = f"{max(0, limit - taken):,} are left in this one, and this request is estimated at {asked:,}"
    used = "those of this one are used up" if kind == "requests" else left
    return RateLimitError(f"{holder}; {used}. The next minute begins in {wait} s.", kind, wait)


def _over_budget(limits: Limits, kind: Kind, estimate: Estimate, taken: int, now: float) -> BudgetError:
    asked = estimate.amount(kind, weak=False)
    ends = datetime.fromtimestamp(_end(kind, now), UTC).strftime("%Y-%m-%d %H:%M UTC")
    return BudgetError(
        f"The key {limits.name!r} ({limits.key}) has a budget of {_dollars(limits.of[kind])} a {kind}, of which "
        f"{_dollars(taken)} are spent or reserved; this request is estimated at up to {_dollars(asked)}. The next {kind} "
        f"begins at {ends}."
    )


@lru_cache(maxsize=64)
def _starts(minute: int) -> Mapping[Kind, int]:
    """The first seconds of the windows that a minute of Unix time lies in."""
    second = minute * _MINUTE
    month = datetime.fromtimestamp(second, UTC).replace(day=1, hour=0, minute=0)
    return {"requests": second, "tokens": second, "day": second - second % _DAY, "month": int(month.timestamp())}


def _end(kind: Kind, now: float) -> int:
    """The first second of the window after the one that `now` lies in."""
    start = _starts(int(now) // _MINUTE)[kind]
    if kind != "month":
        return start + (_DAY if kind == "day" else _MINUTE)
    return _starts((start + 32 * _DAY) // _MINUTE)[kind]


def _dollars(amount: int) -> str:
    """Cents, and more digits where those would say nothing."""
    value = amount / NANO
    return f"${value:,.2f}" if value >= 0.1 or not amount else f"${value:.2g}"
