"""The thread that brings what waits into the database, batch by batch, and goes on trying while the database is away."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, sleep

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from routellm.errors import LedgerError
from routellm.ledger.database import is_of_a_row, reason, where
from routellm.ledger.migrate import upgrade
from routellm.ledger.retention import Retention
from routellm.ledger.rows import Redact, Row, Terms, make_row
from routellm.ledger.schema import requests
from routellm.ledger.settings import LedgerSettings
from routellm.types import RequestRecord

logger = logging.getLogger("routellm.ledger")

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0  # seconds between two tries while the database can't be written
_WARN_SECONDS = 60.0

# The interpreter would let this thread work for 5 ms before the event loop has its turn; it breathes far more often by itself.
_ROWS_AT_ONCE, _BREATH_SECONDS = 25, 1e-4


@dataclass(slots=True)
class Waiting:
    """What the event loop hands to the writer, and how it stands. Each number is changed by one of the two threads only.

    By the event loop: `dropped` records (no room), `prompts_left_out`, `prompt_size_in` (characters handed over).
    By the writer: `in_hand` (taken, not written yet), `written`, `refused` by the database, `prompt_size_out`, `last_error`.
    """

    records: deque[tuple[RequestRecord, Terms]] = field(default_factory=deque)
    wake: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    dropped: int = 0
    prompts_left_out: int = 0
    prompt_size_in: int = 0
    in_hand: int = 0
    written: int = 0
    refused: int = 0
    prompt_size_out: int = 0
    last_error: str | None = None


class Writer:
    """See the module's docstring.

    A row has its number before it is first sent and keeps it, and the database ignores a number that it has already: so a
    batch whose commit may or may not have come through is sent again as it is.
    """

    def __init__(
        self, engine: Engine, settings: LedgerSettings, waiting: Waiting, redact: Redact, identity: int, *, ready: bool
    ) -> None:
        self.waiting = waiting
        self._engine, self._settings, self._redact, self._identity = engine, settings, redact, identity
        self._ready = ready  # whether the tables are up to date
        self._retention = Retention(engine, settings)
        self._insert = insert_statement(engine)
        self._rows: list[Row] = []
        self._next_number = 0
        self._failing_since: float | None = None
        self._delay, self._next_try = _FIRST_DELAY, 0.0
        self._next_warning, self._told = 0.0, 0
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="routellm-ledger", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Write what waits, for `timeout` seconds at the most, and end the thread."""
        self._stop_at = monotonic() + timeout
        self.waiting.wake.set()
        self._thread.join(timeout + 0.5)
        lost = len(self.waiting.records) + self.waiting.in_hand
        if lost:
            logger.error(
                "the ledger %s could not be written before the end: %d requests are lost (%s)",
                *(where(self._engine), lost, self.waiting.last_error or "it took too long"),
            )
        if not self._thread.is_alive():
            self._engine.dispose()

    def _run(self) -> None:
        while self._stop_at is None:
            self.waiting.wake.wait(self._settings.batch_seconds)
            self.waiting.wake.clear()
            if monotonic() >= self._next_try:
                self._write_waiting()
            self._warn_of_drops()
            if self._failing_since is None:
                self._retention.sweep_if_due()
        while (self._rows or self.waiting.records) and monotonic() < self._stop_at:
            if not self._write_waiting():
                sleep(_FIRST_DELAY)

    def _write_waiting(self) -> bool:
        """Write all that waits; False where the database can't be written."""
        while self._rows or self.waiting.records:
            if not self._rows:
                self._take()
            try:
                if not self._ready:
                    upgrade(self._engine)
                    self._ready = True
                self._write(self._rows)
            except (SQLAlchemyError, LedgerError) as error:
                self._failed(reason(error) if isinstance(error, SQLAlchemyError) else str(error))
                return False
            self._done()
        return True

    def _take(self) -> None:
        """The next batch, as rows."""
        waiting = self.waiting
        size = min(len(waiting.records), self._settings.batch_rows)
        waiting.in_hand = size  # before they leave the queue, so that nobody ever sees them in neither
        for taken in range(size):
            if taken % _ROWS_AT_ONCE == 0:
                sleep(_BREATH_SECONDS)
            record, terms = waiting.records.popleft()
            waiting.prompt_size_out += len(record.prompt or "")
            try:
                self._rows.append(make_row(self._identity, self._next_number, record, terms, self._redact))
            except (TypeError, ValueError, AttributeError) as error:  # one odd record does not end the thread
                waiting.refused += 1
                logger.error("no row can be made of request %s: %s", record.request_id, error)
            self._next_number += 1

    def _write(self, rows: list[Row]) -> None:
        try:
            with self._engine.begin() as connection:
                self._send(connection, rows)
        except Exception as error:
            if not is_of_a_row(error):
                raise
            if len(rows) == 1:
                self.waiting.refused += 1
                self._rows.remove(rows[0])
                logger.error("the ledger refuses the row of request %s: %s", rows[0][2], reason(error))
                return
            middle = len(rows) // 2
            self._write(rows[:middle])
            self._write(rows[middle:])

    def _send(self, connection: Connection, rows: list[Row]) -> None:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            sleep(_BREATH_SECONDS)
            connection.exec_driver_sql(self._insert, rows[start : start + _ROWS_AT_ONCE])

    def _done(self) -> None:
        waiting = self.waiting
        waiting.written += len(self._rows)
        self._rows = []
        with waiting.changed:
            waiting.in_hand = 0
            waiting.changed.notify_all()
        if self._failing_since is not None:
            logger.warning(
                "the ledger %s is written again, after %.0f s; %d requests were dropped",
                *(where(self._engine), monotonic() - self._failing_since, waiting.dropped),
            )
            self._told = waiting.dropped
            self._failing_since, waiting.last_error = None, None
            self._delay, self._next_try, self._next_warning = _FIRST_DELAY, 0.0, 0.0

    def _failed(self, why: str) -> None:
        now = monotonic()
        self.waiting.last_error = why
        if self._failing_since is None:
            self._failing_since = now
        self._next_try, self._delay = now + self._delay, min(2 * self._delay, _LONGEST_DELAY)
        if now >= self._next_warning:
            self._warn(f"can't be written: {why}")

    def _warn_of_drops(self) -> None:
        if self.waiting.dropped > self._told and monotonic() >= self._next_warning:
            self._warn("takes no more" if self._failing_since is not None else "is too slow for so many requests")

    def _warn(self, what: str) -> None:
        waiting = self.waiting
        logger.warning(
            "the ledger %s %s; %d requests wait, %d were dropped; serving goes on",
            *(where(self._engine), what, len(waiting.records) + waiting.in_hand, waiting.dropped),
        )
        self._told = waiting.dropped
        self._next_warning = monotonic() + _WARN_SECONDS


def insert_statement(engine: Engine) -> str:
    """The driver's own statement that inserts a row's values in the order of the columns, and passes over a row it has."""
    if engine.dialect.name == "postgresql":
        return str(
            postgresql.insert(requests).on_conflict_do_nothing().compile(dialect=postgresql.dialect(paramstyle="format"))  # type: ignore[no-untyped-call]
        )
    return str(sqlite.insert(requests).on_conflict_do_nothing().compile(dialect=sqlite.dialect()))
