"""Deleting what is older than it may become."""

from __future__ import annotations

import logging
import time

from sqlalchemy import CursorResult, Delete, Engine, Update, delete, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement

from routellm.ledger.database import reason, where
from routellm.ledger.schema import requests
from routellm.ledger.settings import LedgerSettings

logger = logging.getLogger("routellm.ledger")

_EVERY_SECONDS = 3600.0
_FIRST_AFTER_SECONDS = 60.0
_CHUNK = 1000  # rows of one transaction, so that writers never wait long
_CLOCK_SECONDS = 600.0  # a clock that moved by more against the steady one has been set, rightly or not


class Retention:
    """Sweeps once an hour. A clock that was set since the last look puts the sweep off by an hour: whoever set it wrongly has
    that time to notice before anything is deleted."""

    def __init__(self, engine: Engine, settings: LedgerSettings) -> None:
        self._engine = engine
        self._days = (settings.retention_days, settings.prompt_retention_days)
        self._due = time.monotonic() + _FIRST_AFTER_SECONDS
        self._offset = time.time() - time.monotonic()

    def sweep_if_due(self) -> None:
        """Delete what is too old, where it is time. Never raises."""
        if time.monotonic() < self._due or self._days == (None, None):
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        offset = time.time() - time.monotonic()
        moved, self._offset = offset - self._offset, offset
        if abs(moved) > _CLOCK_SECONDS:
            logger.warning("the clock was set by %+.0f s; the ledger deletes nothing for an hour", moved)
            return
        try:
            sweep(self._engine, time.time(), *self._days)
        except SQLAlchemyError as error:
            logger.warning("old rows of the ledger %s can't be deleted: %s", where(self._engine), reason(error))


def sweep(engine: Engine, now: float, row_days: float | None, prompt_days: float | None) -> None:
    """Delete rows, and prompts of rows, that came so many days before `now` (seconds of Unix time) or earlier."""
    identity = tuple_(requests.c.writer, requests.c.number)

    def oldest(condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return identity.in_(select(requests.c.writer, requests.c.number).where(condition).limit(_CHUNK))

    statements: list[Delete | Update] = []
    if row_days is not None:
        statements.append(delete(requests).where(oldest(requests.c.at <= _before(now, row_days))))
    if prompt_days is not None:
        aged = (requests.c.at <= _before(now, prompt_days)) & requests.c.prompt.is_not(None)
        statements.append(update(requests).where(oldest(aged)).values(prompt=None))
    for statement in statements:
        changed = _CHUNK
        while changed == _CHUNK:
            with engine.begin() as connection:
                result = connection.execute(statement)
                assert isinstance(result, CursorResult)
                changed = result.rowcount


def _before(now: float, days: float) -> int:
    return round((now - days * 86_400) * 1e6)
