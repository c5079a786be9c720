"""The database behind the ledger: from a path or a URL to an engine, and its errors in this package's words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)

from routellm.errors import ConfigError, LedgerError, MissingExtraError
from routellm.ledger.settings import hide_password

_BUSY_SECONDS = 5.0  # how long SQLite waits for another process's transaction
_POSTGRESQL = {
    "connect_timeout": 5,
    "application_name": "routellm",
    # A network that has gone silent is noticed within seconds, not within TCP's quarter of an hour.
    "keepalives_idle": 15,
    "tcp_user_timeout": 15_000,
}


def open_engine(url: str, *, writes: bool) -> Engine:
    """An engine for a path of an SQLite file, or a URL of SQLite or PostgreSQL. Opens no connection.

    Args:
        url: see `LedgerSettings.url`, but not empty.
        writes: whether its transactions write; those of SQLite then take their turn at the start. The file is made if need be.

    Raises:
        ConfigError: `url` is of no known kind, or an SQLite file's folder can't be made.
        MissingExtraError: PostgreSQL's driver is not installed.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("A ledger in PostgreSQL", "postgres") from error
        return create_engine(parsed, connect_args=_POSTGRESQL, pool_size=1, max_overflow=1)
    _check_file(Path(str(parsed.database)), url, create=writes)
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None}, pool_size=1)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"  # of the driver's own ways to begin none takes its turn at once
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


@contextmanager
def told(engine: Engine, doing: str) -> Iterator[None]:
    """Turns what the database raises within into LedgerError; `doing` is what could not be done ("read")."""
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerError(f"The ledger {where(engine)} can't be {doing}: {reason(error)}.") from None


def where(engine: Engine) -> str:
    """The database's place, without its password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return repr(url.database)
    return repr(hide_password(url.set(drivername="postgresql").render_as_string(hide_password=True)))


def reason(error: Exception) -> str:
    """The driver's own words on one line; no statement, no values, no password."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return hide_password(text).rstrip(".")[:300]


def is_of_a_row(error: Exception) -> bool:
    """Whether the database or its driver refused what a row holds, so that another try can't help."""
    if not isinstance(error, SQLAlchemyError):
        return True  # what a driver raises where it can't encode a value
    return isinstance(error, DataError | IntegrityError) and not error.connection_invalidated


def may_pass(error: SQLAlchemyError) -> bool:
    """Whether the database may be there later: away, locked or full, rather than of another kind or not ours to change."""
    return isinstance(error, OperationalError | InterfaceError | TimeoutError)


def _parse(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        parsed, backend = None, ""
    if parsed is not None and backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed is not None and backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite")
    raise ConfigError(
        f"The ledger's database is {hide_password(url)!r}; it must be the path of an SQLite file, or a URL such as "
        f"postgresql://USER:PASSWORD@HOST/NAME or sqlite:////absolute/path.sqlite."
    )


def _check_file(path: Path, url: str, *, create: bool) -> None:
    if not create:
        if not path.is_file():
            raise ConfigError(
                f"There is no ledger at {str(path)!r}. A server writes it; name another with --ledger PATH|URL, or a server's "
                f"configuration with --config FILE."
            )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_file(path)
    except OSError as error:
        raise ConfigError(
            f"The ledger can't be kept at {str(path)!r}: {error.strerror or error}. Give another place with --ledger, as "
            f"url: under gateway: ledger: in the configuration, or as ROUTELLM_LEDGER_URL."
        ) from error


def _make_file(path: Path) -> None:
    """Make the file if there is none, for its owner alone: what it holds concerns nobody else on the machine.

    One that is there is not opened. A process that closes a file gives up all locks that it has on it, SQLite's too: whoever
    closes the database next would think that nobody else has it open, and take the write-ahead log away from this process.
    """
    try:
        # Where a link leads nowhere yet, the file that it names is made.
        os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Have readers and the writer not wait for each other.

    Where another process has begun to write, as one does that opens a new file at the same moment, SQLite refuses this at
    once, whatever its own patience.
    """
    until = monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(0.01)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing; a power cut the last moments
    finally:
        cursor.close()
