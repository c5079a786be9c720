"""The table of what keys have spent. Whole batches of requests go through it in one transaction each.

A transaction first takes the locks of all keys of its batch, in their order, so that batches of several workers or machines
never hold one another up in a circle; then it reads, decides, and adds. SQLite has a single lock, and takes it at the start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete
from sqlalchemy.exc import SQLAlchemyError

from routellm.errors import RequestError
from routellm.keys.limits import Grant, Kind, Take, Window, grant
from routellm.ledger.schema import spent

_LOCK = "SELECT 1 FROM keys WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_READ = "SELECT key, window_start, kind, amount FROM spent WHERE key {0} AND window_start {0}"
_ONE_OF = {"postgresql": "= ANY(%s)", "sqlite": "IN (SELECT value FROM json_each(?))"}
_ADD = (
    "INSERT INTO spent (key, window_start, kind, amount) VALUES ({0}, {0}, {0}, {0}) "
    "ON CONFLICT (key, window_start, kind) DO UPDATE SET amount = spent.amount + excluded.amount"
)
_KEPT_SECONDS: dict[Kind, int] = {"requests": 3600, "tokens": 3600, "day": 70 * 86_400, "month": 800 * 86_400}


class UncertainError(Exception):
    """The commit failed, so that nobody knows whether the batch is in the table. `cause` is the database's error."""

    def __init__(self, cause: SQLAlchemyError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class SpentTable:
    """The table in the ledger's database. Its methods block, and raise SQLAlchemy's errors.

    Args:
        engine: one that writes.
    """

    def __init__(self, engine: Engine) -> None:
        self._on_postgresql = engine.dialect.name == "postgresql"
        if self._on_postgresql:  # else what is read after the lock might be what was there before it
            engine = engine.execution_options(isolation_level="READ COMMITTED")
        self._engine = engine
        self._read = _READ.format(_ONE_OF[engine.dialect.name])
        self._add = _ADD.format("%s" if self._on_postgresql else "?")

    def apply(self, takes: Sequence[Take], additions: Mapping[Window, int]) -> list[Grant | RequestError]:
        """Make `additions`, then answer `takes` one after another, and keep what they were granted.

        Raises:
            UncertainError: see there. After any other error nothing of the batch is in the table.
        """
        windows = {window for take in takes for window in take.windows.values()}
        with self._engine.connect() as connection:
            transaction = connection.begin()  # rolled back where it is left without a commit
            amounts = self._amounts(connection, windows | additions.keys())
            changes: dict[Window, int] = {}
            _add(additions, amounts, changes)
            answers = [_answer(take, amounts, changes) for take in takes]
            rows = [(*window, amount) for window, amount in changes.items() if amount]
            if rows:
                connection.exec_driver_sql(self._add, rows)
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                raise UncertainError(error) from error
        return answers

    def sweep(self, now: float) -> None:
        """Delete windows that ended long before `now`."""
        with self._engine.begin() as connection:
            for kind, seconds in _KEPT_SECONDS.items():
                connection.execute(delete(spent).where(spent.c.kind == kind, spent.c.window_start < int(now) - seconds))

    def _amounts(self, connection: Connection, windows: Iterable[Window]) -> dict[Window, int]:
        """What is taken by now, and by nobody else until this transaction ends."""
        keys = sorted({window.key for window in windows})
        starts = sorted({window.start for window in windows})
        if self._on_postgresql:
            connection.exec_driver_sql(_LOCK, (keys,))
        values: tuple[Any, ...] = (keys, starts) if self._on_postgresql else (json.dumps(keys), json.dumps(starts))
        rows = connection.exec_driver_sql(self._read, values)
        return {Window(key, start, kind): amount for key, start, kind, amount in rows}


def _answer(take: Take, amounts: dict[Window, int], changes: dict[Window, int]) -> Grant | RequestError:
    answer = grant(take, amounts)
    if isinstance(answer, Grant):
        _add(answer.reserved, amounts, changes)
    return answer


def _add(additions: Mapping[Window, int], *sums: dict[Window, int]) -> None:
    for each in sums:
        for window, amount in additions.items():
            each[window] = each.get(window, 0) + amount
