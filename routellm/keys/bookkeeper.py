"""The thread through which a worker process asks the database: for the keys, and what they have left.

Requests of the event loop wait for it while it takes all that wait at once, in one transaction; so its cost is shared, and the
loop itself never waits.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from routellm.errors import LedgerError, RequestError
from routellm.keys.limits import Grant, Take, Window
from routellm.keys.spent import SpentTable, UncertainError
from routellm.keys.store import Key, KeyStore, Version
from routellm.ledger.database import reason, where
from routellm.ledger.migrate import upgrade

logger = logging.getLogger("routellm.keys")

Asked: TypeAlias = tuple[Take, "asyncio.Future[Grant | RequestError | None]"]

_BATCH = 256
_GATHER_SECONDS, _QUIET_SECONDS = 0.002, 0.005  # requests are let gather for a batch, unless the last one is so long ago
_SETTLE_SECONDS = 0.05  # settlements wait so long for a batch to go along with
_RETRY_SECONDS = 1.0
_WARN_SECONDS = 60.0
_SWEEP_SECONDS = 600.0
_CLOCK_SECONDS = 600.0  # a clock that moved by more against the steady one has been set, rightly or not


class Bookkeeper:
    """Start it with `start`; `take` and `settle` are for one event loop, `load` for any other thread.

    Args:
        store: the keys' database.
        table: what they have spent, in the same.
        took_over: called in the thread with all keys whenever one has changed.
        refresh_seconds: how often it looks for that.
        ready: whether the tables are up to date.

    Attributes:
        last_error: why the database can't be asked; None while it can.
        lost: settlements of which nobody knows whether they were made, since a commit was not answered.
    """

    def __init__(
        self,
        store: KeyStore,
        table: SpentTable,
        took_over: Callable[[Sequence[Key]], None],
        refresh_seconds: float,
        *,
        ready: bool,
    ) -> None:
        self._store, self._table, self._took_over = store, table, took_over
        self._refresh_seconds, self._ready = refresh_seconds, ready
        self._queue: queue.SimpleQueue[Asked | Mapping[Window, int] | None] = queue.SimpleQueue()
        self._version: Version | None = None
        self._loading = threading.Lock()  # lest what one thread read earlier comes after what another read later
        self._settling: dict[Window, int] = {}
        self._settle_at: float | None = None
        self._refresh_at = self._next_try = 0.0
        self._next_warning = 0.0
        self._sweep_at = monotonic() + 60.0
        self._clock = time.time() - monotonic()
        self._late = self._stopping = False
        self._quiet_at = 0.0
        self._thread = threading.Thread(target=self._run, name="routellm-keys", daemon=True)
        self.last_error: str | None = None
        self.lost = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def take(self, take: Take, wait_seconds: float) -> Grant | RequestError | None:
        """The answer; None where the database gave none within `wait_seconds`, or is known to be away.

        While it is late with the answer to one request, others don't wait for it too.
        """
        if self.last_error is not None or self._late or self._stopping:
            return None
        future: asyncio.Future[Grant | RequestError | None] = asyncio.get_running_loop().create_future()
        self._queue.put((take, future))
        try:
            async with asyncio.timeout(wait_seconds):
                return await future
        except TimeoutError:
            self._late = True
            return None
        except asyncio.CancelledError:
            if not future.cancelled():  # the answer had come just before
                self._give_back(future.result())
            raise

    def settle(self, additions: Mapping[Window, int]) -> None:
        """Add amounts, negative ones too, within a fraction of a second. Returns at once."""
        self._queue.put(additions)

    def waiting(self) -> int:
        """What is in line for the thread."""
        return self._queue.qsize()

    def load(self) -> None:
        """Read the keys where they have changed. Blocks; raises LedgerError."""
        with self._loading:
            version = self._store.version()
            if version != self._version:
                self._took_over(self._store.all())
                self._version = version

    def close(self, timeout: float) -> None:
        """Make the settlements that wait, for `timeout` seconds at the most, and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout)
        if self._settling:
            logger.error(
                "what keys spent could not be booked before the end: %d sums (%s)", len(self._settling), self.last_error
            )
        if not self._thread.is_alive():
            self._store.close()

    def _run(self) -> None:
        while not self._stopping:
            asked = self._collect()
            if self.last_error is not None and monotonic() < self._next_try:
                _answer([(future, None) for _, future in asked], self._give_back)
                continue
            self._work(asked)
            self._quiet_at = monotonic() + _QUIET_SECONDS
        if self._settling:
            self._work([])

    def _work(self, asked: list[Asked]) -> None:
        self._late = False
        try:
            if not self._ready:
                upgrade(self._store.engine)
                self._ready = True
            if monotonic() >= self._refresh_at:
                self._refresh_at = monotonic() + self._refresh_seconds
                self.load()
            if asked or self._must_settle():
                self._apply(asked)
            self._sweep_if_due()
        except (SQLAlchemyError, LedgerError, UncertainError) as error:
            _answer([(future, None) for _, future in asked], self._give_back)
            self._failed(error)
            return
        self._late = False
        if self.last_error is not None:
            logger.warning("the keys' database %s answers again; limits are checked again", where(self._store.engine))
            self.last_error = None

    def _apply(self, asked: list[Asked]) -> None:
        settling = self._settling
        waited_for = [one for one in asked if not one[1].cancelled()]
        try:
            answers = self._table.apply([take for take, _ in waited_for], settling)
        except UncertainError:  # made twice they would be wrong by as much as made never
            self.lost += len(settling)
            self._settling, self._settle_at = {}, None
            raise
        self._settling, self._settle_at = {}, None
        _answer([(future, answer) for (_, future), answer in zip(waited_for, answers, strict=True)], self._give_back)

    def _collect(self) -> list[Asked]:
        """What waits, up to a batch; if need be, wait for it until something else is due."""
        asked: list[Asked] = []
        due = self._refresh_at if self._settle_at is None else min(self._refresh_at, self._settle_at)
        if self.last_error is not None:
            due = self._next_try
        try:
            item = self._queue.get(timeout=max(0.0, due - monotonic()))
            if monotonic() < self._quiet_at:
                time.sleep(_GATHER_SECONDS)
            while True:
                if item is None:
                    self._stopping = True
                elif isinstance(item, tuple):
                    asked.append(item)
                else:
                    self._keep(item)
                if len(asked) == _BATCH:
                    break
                item = self._queue.get_nowait()
        except queue.Empty:
            pass
        return asked

    def _keep(self, additions: Mapping[Window, int]) -> None:
        for window, amount in additions.items():
            self._settling[window] = self._settling.get(window, 0) + amount
        if additions and self._settle_at is None:
            self._settle_at = monotonic() + _SETTLE_SECONDS

    def _must_settle(self) -> bool:
        return self._settle_at is not None and (self._stopping or monotonic() >= self._settle_at)

    def _give_back(self, answer: Grant | RequestError | None) -> None:
        """What was granted to a request that is gone."""
        if isinstance(answer, Grant):
            self.settle({window: -amount for window, amount in answer.reserved.items()})

    def _sweep_if_due(self) -> None:
        if monotonic() < self._sweep_at:
            return
        self._sweep_at = monotonic() + _SWEEP_SECONDS
        clock = time.time() - monotonic()
        moved, self._clock = clock - self._clock, clock
        if abs(moved) < _CLOCK_SECONDS:  # what a wrong clock takes for old may be this month's
            self._table.sweep(time.time())

    def _failed(self, error: SQLAlchemyError | LedgerError | UncertainError) -> None:
        cause = error.cause if isinstance(error, UncertainError) else error
        now = monotonic()
        self._next_try = now + _RETRY_SECONDS
        self.last_error = reason(cause) if isinstance(cause, SQLAlchemyError) else str(cause)
        if now >= self._next_warning:
            self._next_warning = now + _WARN_SECONDS
            logger.warning(
                "the keys' database %s can't be asked: %s; keys go on as they were known",
                where(self._store.engine),
                self.last_error,
            )


def _answer(
    answers: list[tuple[asyncio.Future[Grant | RequestError | None], Grant | RequestError | None]],
    give_back: Callable[[Grant | RequestError | None], None],
) -> None:
    """Hand over what the event loop waits for."""

    def hand_over() -> None:
        for future, answer in answers:
            if future.done():  # given up or cancelled
                give_back(answer)
            else:
                future.set_result(answer)

    if answers:
        try:
            answers[0][0].get_loop().call_soon_threadsafe(hand_over)
        except RuntimeError:  # the loop is closed: nobody waits
            for _, answer in answers:
                give_back(answer)
