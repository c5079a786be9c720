"""The cache on disk, also between processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.cache import SqliteVectorCache
from routellm.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "vectors.sqlite3"


def key(number: int) -> bytes:
    return number.to_bytes(32)


def vector(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(number).standard_normal(5).astype(np.float32)


def test_vectors_come_back_bit_for_bit_from_another_instance(path: Path) -> None:
    SqliteVectorCache(path).put_many({key(number): vector(number) for number in range(3)})
    found = SqliteVectorCache(path).get_many([key(2), key(7), key(0)])
    assert set(found) == {key(0), key(2)}
    assert found[key(2)].dtype == np.float32
    np.testing.assert_array_equal(found[key(2)], vector(2))


def test_a_second_vector_replaces_the_first(path: Path) -> None:
    cache = SqliteVectorCache(path)
    cache.put_many({key(0): vector(0)})
    cache.put_many({key(0): vector(1)})
    np.testing.assert_array_equal(cache.get_many([key(0)])[key(0)], vector(1))


def test_the_oldest_are_dropped(path: Path) -> None:
    cache = SqliteVectorCache(path, max_entries=3)
    for number in range(5):
        cache.put_many({key(number): vector(number)})
    assert set(cache.get_many([key(number) for number in range(5)])) == {key(2), key(3), key(4)}


def test_a_value_that_is_no_list_of_floats_is_as_good_as_missing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = SqliteVectorCache(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO vectors (key, vector) VALUES (?, ?)", (key(0), b"odd"))
    assert cache.get_many([key(0)]) == {}
    assert "can't be read" in caplog.text


def test_threads_share_one_instance(path: Path) -> None:
    cache = SqliteVectorCache(path)

    def work(start: int) -> None:
        for number in range(start, start + 10):
            cache.put_many({key(number): vector(number)})
            np.testing.assert_array_equal(cache.get_many([key(number)])[key(number)], vector(number))

    threads = [threading.Thread(target=work, args=(10 * number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.get_many([key(number) for number in range(60)])) == 60


WRITER = """
import sys
import numpy as np
from routellm.embeddings.cache import SqliteVectorCache

cache = SqliteVectorCache(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 50):
    cache.put_many({number.to_bytes(32): np.full(5, number, np.float32)})
"""


def test_two_processes_write_at_once(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start)]) for start in (0, 50)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = SqliteVectorCache(path).get_many([key(number) for number in range(100)])
    assert sorted(int(values[0]) for values in found.values()) == list(range(100))


def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 1000)
    with pytest.raises(ConfigError, match="delete the file"):
        SqliteVectorCache(path)
    assert path.read_text() == "my notes " * 1000


def test_a_newer_format_is_refused(path: Path) -> None:
    SqliteVectorCache(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigError, match="format version 2"):
        SqliteVectorCache(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be used"):
        SqliteVectorCache(tmp_path / "file" / "vectors.sqlite3")
