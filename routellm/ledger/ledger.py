"""The ledger as the server sees it: `record` on the event loop, everything else in a thread of its own."""

from __future__ import annotations

import atexit
import logging
import secrets
from dataclasses import dataclass
from time import monotonic

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from routellm.errors import LedgerError
from routellm.ledger.database import may_pass, open_engine, reason, where
from routellm.ledger.migrate import upgrade
from routellm.ledger.redaction import load_redaction
from routellm.ledger.rows import Terms
from routellm.ledger.settings import LedgerSettings
from routellm.ledger.writer import Waiting, Writer
from routellm.types import RequestRecord

logger = logging.getLogger("routellm.ledger")


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """How it stands, counted since the ledger was opened by this process.

    Attributes:
        buffered: records that wait to be written.
        written: rows that the database has.
        dropped: records that are lost, since the buffer was full or the database refused what they hold.
        prompts_left_out: records kept without their prompt, since too much text waited.
        last_error: why the database could not be written, None while it can.
    """

    buffered: int
    written: int
    dropped: int
    prompts_left_out: int
    last_error: str | None


class Ledger:
    """Rows of finished requests, written in batches by a thread.

    `record` may be called from one thread at a time, which is the event loop's. Several processes may write to one database.
    """

    def __init__(self, writer: Writer, settings: LedgerSettings, terms: Terms) -> None:
        self._writer, self._waiting = writer, writer.waiting
        self._records = writer.waiting.records
        self._limit = settings.buffer_rows
        self._batch = settings.batch_rows
        self._prompt_limit = int(settings.buffer_prompt_megabytes * 1e6)
        self._keeps_prompts = settings.prompts
        self._terms = terms
        writer.start()
        atexit.register(self.close)  # for a process that ends without its shutdown

    @classmethod
    def open(cls, url: str, settings: LedgerSettings, terms: Terms) -> Ledger:
        """Open the database at `url` (see `ledger_url`), bring its tables up to date, and start the thread that writes.

        A database that can't be reached or written now does not hold up a server: records wait for it, and a warning says so.

        Raises:
            ConfigError: `url` or the redaction is wrong, or an SQLite file can't be made there.
            MissingExtraError: PostgreSQL's driver is not installed.
            LedgerError: the tables are of a newer version of this package or can't be made by this user, or the file is no
                SQLite database.
        """
        redact = load_redaction(settings.redact)
        engine = open_engine(url, writes=True)
        ready = True
        try:
            upgrade(engine)
        except LedgerError:
            engine.dispose()
            raise
        except SQLAlchemyError as error:
            engine.dispose()
            if not may_pass(error):
                raise LedgerError(f"The ledger {where(engine)} can't be opened: {reason(error)}.") from None
            ready = False
            logger.warning("the ledger %s can't be opened yet: %s; requests wait in memory", where(engine), reason(error))
        identity = secrets.randbits(62)  # each process its own, so that no two rows have one number
        return cls(Writer(engine, settings, Waiting(), redact, identity, ready=ready), settings, terms)

    def renew(self, terms: Terms) -> None:
        """Other models or prices from the next record on."""
        self._terms = terms

    def record(self, record: RequestRecord) -> None:
        """Take note of a finished request. Never blocks and never fails; what finds no room is counted as dropped."""
        waiting = self._waiting
        if len(self._records) + waiting.in_hand >= self._limit:
            waiting.dropped += 1
            return
        if record.prompt is not None:
            record = self._with_room(record, record.prompt)
        self._records.append((record, self._terms))
        if len(self._records) == self._batch:
            waiting.wake.set()

    def status(self) -> LedgerStatus:
        """See `LedgerStatus`. Cheap, and from any thread."""
        waiting = self._waiting
        return LedgerStatus(
            len(self._records) + waiting.in_hand,
            waiting.written,
            waiting.dropped + waiting.refused,
            waiting.prompts_left_out,
            waiting.last_error,
        )

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was recorded before is written; False where that takes over `timeout` seconds."""
        until = monotonic() + timeout
        with self._waiting.changed:
            while self._records or self._waiting.in_hand:
                if monotonic() >= until:
                    return False
                self._waiting.wake.set()
                self._waiting.changed.wait(0.05)
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits, and end the thread. Blocks for `timeout` seconds at the most; what then still waits is lost, and
        an error in the log says how much. Call it from a thread where the event loop still has work."""
        atexit.unregister(self.close)
        self._writer.stop(timeout)

    def _with_room(self, record: RequestRecord, prompt: str) -> RequestRecord:
        waiting = self._waiting
        if self._keeps_prompts and waiting.prompt_size_in - waiting.prompt_size_out + len(prompt) <= self._prompt_limit:
            waiting.prompt_size_in += len(prompt)
            return record
        waiting.prompts_left_out += self._keeps_prompts
        return msgspec.structs.replace(record, prompt=None)
