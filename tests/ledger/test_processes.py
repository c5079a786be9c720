"""Several processes, and processes that end in every way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from routellm.ledger.database import open_engine
from routellm.ledger.migrate import open_reader
from routellm.ledger.queries import Selection, sums, total
from tests.ledger.making import PATIENCE, count, made, opened, stored

ROOT = Path(__file__).parent.parent.parent
PRICE = 1000 * 150 + 100 * 600  # nano-dollars of each row


@contextmanager
def writing(url: str, records: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process of `tests.ledger.writing`."""
    command = [sys.executable, "-m", "tests.ledger.writing", url, str(records)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], enough: int) -> list[tuple[int, int]]:
    """What it says until it has recorded `enough`: pairs of recorded and written."""
    assert process.stdout is not None
    found: list[tuple[int, int]] = []
    while not found or found[-1][0] < enough:
        recorded, written = process.stdout.readline().split()
        found.append((int(recorded), int(written)))
    return found


def rest(process: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """What it said until its end, up to its last whole line."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert errors == ""
    whole = output[: output.rfind("\n") + 1].splitlines()
    return [(int(recorded), int(written)) for recorded, written in (line.split() for line in whole)]


def test_processes_share_one_database_from_the_making_of_its_tables_on(url: str) -> None:
    with writing(url, 600) as first, writing(url, 600) as second:
        for process in (first, second):
            assert rest(process)[-1] == (600, 600)
    engine = open_reader(url)
    whole = total(sums(engine, Selection(), "model"))
    engine.dispose()
    assert (whole.requests, whole.nanodollars) == (1200, 1200 * PRICE)
    rows = stored(url)
    assert len({row["writer"] for row in rows}) == 2
    assert len({(row["writer"], row["request_id"]) for row in rows}) == 1200


ELSEWHERE = (
    "import sqlite3, sys; one = sqlite3.connect(sys.argv[1]); one.execute('SELECT count(*) FROM requests'); one.close()"
)


def test_a_second_engine_of_a_process_leaves_the_locks_of_the_first(sqlite_url: str) -> None:
    """A process that closes a file gives up all of its locks on it. Another one that closes the database would then think that
    it is the last, and take away the write-ahead log that the first still writes to."""
    ledger = opened(sqlite_url)
    ledger.record(made())
    assert ledger.flush()
    log = Path(f"{sqlite_url}-wal")
    assert log.exists()
    made_of = log.stat().st_ino
    keys = open_engine(sqlite_url, writes=True)
    subprocess.run([sys.executable, "-c", ELSEWHERE, sqlite_url], check=True)
    assert log.exists()
    assert log.stat().st_ino == made_of
    keys.dispose()
    ledger.close()


def test_sigterm_loses_nothing(sqlite_url: str) -> None:
    with writing(sqlite_url) as process:
        lines_until(process, 300)
        process.send_signal(signal.SIGTERM)
        recorded, written = rest(process)[-1]
        assert process.returncode == 0
    assert recorded == written == count(sqlite_url)


def test_sigkill_loses_the_last_second_at_the_most(url: str) -> None:
    with writing(url) as process:
        before = lines_until(process, 1000)
        time.sleep(1.0)  # all that was recorded until now must be there; what comes later may be lost
        process.kill()
        after = rest(process)
    rows = stored(url)
    recorded, written = (after or before)[-1]
    assert len(rows) >= max(before[-1][0], written), "what it had been told is written is lost"
    assert len(rows) <= recorded + 20, "rows that it never recorded"
    assert [row["number"] for row in rows] == list(range(len(rows))), "a hole, or a row twice"
    assert [row["request_id"] for row in rows] == [f"request-{number}" for number in range(len(rows))]
    engine = open_reader(url)
    assert total(sums(engine, Selection(), "day")).nanodollars == len(rows) * PRICE
    engine.dispose()
    with writing(url, 20) as process:  # and the next server opens what was left
        assert rest(process)[-1] == (20, 20)
