"""Vectors kept on disk, so that a text is sent to a paid endpoint once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from routellm.embeddings.base import Vector
from routellm.errors import ConfigError

log = logging.getLogger(__name__)

FORMAT_VERSION = 1


class VectorCache(Protocol):
    """What an embedder asks of a cache. Keys are hashes; a cache never sees a prompt."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """The vectors of those keys that are known."""

    def put_many(self, vectors: Mapping[bytes, Vector]) -> None:
        """Remember vectors. What is already known is replaced."""


class SqliteVectorCache:
    """A cache in one SQLite file, safe to share between threads and processes.

    A read or a write that fails later on (a full disk, say) is logged and costs the entry, not the call.

    Args:
        path: the file, made where it is missing; None for `embeddings.sqlite3` in the user's cache folder.
        max_entries: when there are more, the oldest are dropped. An entry of 1,536 dimensions takes about 8 kB.

    Raises:
        ConfigError: the file can't be opened, or is something else.
    """

    def __init__(self, path: str | Path | None = None, *, max_entries: int = 200_000) -> None:
        self.path = _default_path() if path is None else Path(path).expanduser()
        self._max_entries = max_entries
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._connection() as connection:
                self._prepare(connection)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"The embedding cache {str(self.path)!r} can't be used: {error}. Give another path, or delete the file."
            ) from error

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        found: dict[bytes, Vector] = {}
        try:
            with self._connection() as connection:
                for key in keys:
                    row = connection.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = np.frombuffer(row[0], dtype="<f4").astype(np.float32)
        except (sqlite3.Error, TypeError, ValueError) as error:  # the last two: a value that is no list of floats
            log.warning("The embedding cache %s can't be read: %s", self.path, error)
        return found

    def put_many(self, vectors: Mapping[bytes, Vector]) -> None:
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        try:
            with self._connection() as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO vectors (key, vector) VALUES (?, ?)", rows)
                # New rows have the highest ids, so the oldest are those furthest below.
                connection.execute("DELETE FROM vectors WHERE id <= (SELECT MAX(id) FROM vectors) - ?", (self._max_entries,))
        except sqlite3.Error as error:
            log.warning("The embedding cache %s can't be written: %s", self.path, error)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # A connection of its own for each call: nothing to share between threads or to carry over a fork.
        with closing(sqlite3.connect(self.path, timeout=30.0)) as connection:
            yield connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT_VERSION):
            raise ConfigError(
                f"The embedding cache {str(self.path)!r} has format version {version}; this routellm reads version "
                f"{FORMAT_VERSION}. Give another path, or delete the file."
            )
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL)"
            )
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _default_path() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("routellm") / "embeddings.sqlite3"
