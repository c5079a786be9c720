"""Questions to the ledger: sums by group, and rows one by one. They read the same on SQLite and PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

from sqlalchemy import ColumnElement, Engine, and_, case, func, literal_column, select, true

from routellm.errors import ConfigError
from routellm.ledger.database import told
from routellm.ledger.schema import requests

By: TypeAlias = Literal["day", "model", "key", "router", "reason"]
BY: tuple[By, ...] = get_args(By)

_DAY = 86_400_000_000  # microseconds
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_READ_AT_ONCE = 5000
_columns = requests.c


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests: from `since` on (an aware time), of one virtual key, decided by one router. None: all."""

    since: datetime | None = None
    key: str | None = None
    router: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """As SQL."""
        wanted: list[ColumnElement[bool]] = [true()]
        if self.since is not None:
            wanted.append(_columns.at >= round(self.since.timestamp() * 1e6))
        if self.key is not None:
            wanted.append(_columns.key == self.key)
        if self.router is not None:
            wanted.append(_columns.router == self.router)
        return and_(*wanted)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a group of requests. Counts of requests, where nothing else is said.

    Attributes:
        group: the day in UTC ("2026-01-31"), model, key, router or reason; None where requests have none.
        failed: those that were answered with an error status, refused, broken off, or left by their client.
        strong, weak: answered by the strong, by the weak model of the pair.
        estimated: whose tokens the upstream did not tell.
        nanodollars: of all whose price is known.
        unpriced: with tokens, but without a known price; in no sum of dollars.
        compared: routed ones for which the price with either model is known; the next three are theirs.
        compared_nanodollars, strong_nanodollars, weak_nanodollars: what they cost, and by the tokens that they took would
            have cost with the strong and with the weak model alone.
        strong_output, weak_output: tokens of all answers of the one and of the other model.
    """

    group: str | None
    requests: int
    failed: int
    strong: int
    weak: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    estimated: int
    nanodollars: int
    unpriced: int
    compared: int
    compared_nanodollars: int
    strong_nanodollars: int
    weak_nanodollars: int
    strong_output: int
    weak_output: int

    @property
    def strong_share(self) -> float | None:
        """Of the requests that one of the pair answered, the share that the strong one did; None where there are none."""
        answered = self.strong + self.weak
        return self.strong / answered if answered else None

    @property
    def saved_nanodollars(self) -> int:
        """Against the strong model alone, by the tokens that were taken."""
        return self.strong_nanodollars - self.compared_nanodollars


def sums(engine: Engine, selection: Selection, by: By) -> list[Sums]:
    """Sums by group, in the groups' order; empty where nothing is selected.

    Raises:
        LedgerError: the ledger can't be read.
    """
    # The number stands in the text, since PostgreSQL would take two expressions with a parameter for different ones.
    group = _columns.at.op("/")(literal_column(str(_DAY))) if by == "day" else _columns[by]
    statement = (
        select(group.label("label"), *_sums()).where(selection.condition()).group_by(group).order_by(group.nulls_last())
    )
    with told(engine, "read"), engine.connect() as connection:
        rows = connection.execute(statement).all()
    return [Sums(_label(by, label), *(int(value or 0) for value in values)) for label, *values in rows]


def total(of: list[Sums]) -> Sums:
    """The sum over groups."""
    names = [field.name for field in fields(Sums)][1:]
    return Sums(None, *(sum(getattr(one, name) for one in of) for name in names))


def rows(engine: Engine, selection: Selection, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Values of `columns`, request by request in the order in which they came.

    Raises:
        LedgerError: the ledger can't be read.
    """
    statement = (
        select(*(_columns[name] for name in columns))
        .where(selection.condition())
        .order_by(_columns.at, _columns.writer, _columns.number)
    )
    with told(engine, "read"), engine.connect() as connection:
        for row in connection.execution_options(yield_per=_READ_AT_ONCE).execute(statement):
            yield tuple(row)


def win_rates(engine: Engine, router: str) -> list[float]:
    """All win rates that `router` gave to requests of the ledger.

    Raises:
        LedgerError: the ledger can't be read.
    """
    statement = select(_columns.win_rate).where(_columns.router == router, _columns.win_rate.is_not(None))
    with told(engine, "read"), engine.connect() as connection:
        return list(connection.execute(statement).scalars())


def since(text: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> datetime | None:
    """The time that "7d", "24h", a date or a time (UTC, where it does not say) stands for; None for "all".

    Raises:
        ConfigError: it is none of these.
    """
    if text == "all":
        return None
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    try:
        if ago:
            return now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"{text!r} is no time; give an age such as 7d or 24h, a date such as 2026-01-31, or all.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _sums() -> list[ColumnElement[Any]]:
    """In the order of the fields of `Sums`."""

    def count(condition: ColumnElement[bool]) -> ColumnElement[Any]:
        return func.sum(case((condition, 1), else_=0))

    prices = (_columns.nanodollars, _columns.strong_nanodollars, _columns.weak_nanodollars)
    is_compared = and_(_columns.router.is_not(None), *(price.is_not(None) for price in prices))
    is_strong, is_weak = _columns.role == "strong", _columns.role == "weak"
    return [
        func.count(),
        count((_columns.outcome != "answered") | (_columns.status >= 400)),
        count(is_strong),
        count(is_weak),
        *(func.sum(column) for column in (_columns.input_tokens, _columns.output_tokens, _columns.cached_input_tokens)),
        count(_columns.estimated.is_(True)),
        func.sum(_columns.nanodollars),
        count(_columns.input_tokens.is_not(None) & _columns.nanodollars.is_(None)),
        count(is_compared),
        *(func.sum(case((is_compared, price), else_=0)) for price in prices),
        *(func.sum(case((which, _columns.output_tokens), else_=0)) for which in (is_strong, is_weak)),
    ]


def _label(by: By, value: Any) -> str | None:
    if by == "day":
        return str((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(value))).date())
    return None if value is None else str(value)
