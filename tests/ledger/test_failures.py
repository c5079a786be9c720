"""Databases that are gone, full, or answer no more."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from routellm.ledger.ledger import Ledger
from tests.ledger.cutting import CuttingProxy
from tests.ledger.making import PATIENCE, made, opened, stored
from tests.ledger.postgres import PostgresServer

ROOT = Path(__file__).parent.parent.parent


def until_it_fails(ledger: Ledger) -> None:
    deadline = time.monotonic() + PATIENCE
    while ledger.status().last_error is None:
        assert time.monotonic() < deadline, "it never failed"
        time.sleep(0.01)


def test_postgresql_stopped_and_started_again(
    postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = opened(postgres_url, batch_rows=10, buffer_rows=50)
    for number in range(20):
        ledger.record(made(number))
    assert ledger.flush(PATIENCE)
    postgres.stop()
    try:
        ledger.record(made(20))
        until_it_fails(ledger)
        for number in range(21, 101):
            ledger.record(made(number))
        status = ledger.status()
        assert (status.buffered, status.written, status.dropped) == (50, 20, 31)
        assert not ledger.flush(0.05)
    finally:
        postgres.start()
    assert ledger.flush(PATIENCE)
    ledger.record(made(101))
    ledger.close()
    assert (ledger.status().written, ledger.status().last_error) == (71, None)
    rows = stored(postgres_url)
    assert [row["request_id"] for row in rows] == [f"request-{number}" for number in [*range(70), 101]]
    assert [row["number"] for row in rows] == list(range(71))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "can't be written" in caplog.messages[0]
    assert "is written again" in caplog.messages[1]


def test_a_postgresql_that_is_not_there_yet_is_waited_for(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.stop()
    try:
        ledger = opened(postgres_url)
        ledger.record(made(1))
        until_it_fails(ledger)
    finally:
        postgres.start()
    assert ledger.flush(PATIENCE)
    ledger.close()
    assert [row["request_id"] for row in stored(postgres_url)] == ["request-1"]


def test_a_commit_whose_answer_is_lost_counts_once(postgres: PostgresServer, postgres_url: str) -> None:
    with CuttingProxy(postgres.port) as proxy:
        ledger = opened(postgres.url_at(proxy.port), batch_seconds=0.1)
        proxy.cut_next_commit()
        for number in range(50):
            ledger.record(made(number))
        assert ledger.flush(PATIENCE)
        ledger.close()
        assert proxy.cuts == 1
    assert ledger.status().written == 50
    assert [row["request_id"] for row in stored(postgres_url)] == [f"request-{number}" for number in range(50)]


FULL = """
import resource, sys, time
from tests.ledger.making import made, opened
ledger = opened(sys.argv[1], buffer_rows=1000)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
number = 0
until = time.monotonic() + 15
while ledger.status().last_error is None and time.monotonic() < until:
    for _ in range(20):
        ledger.record(made(number)); number += 1
    time.sleep(0.02)
for _ in range(2000):
    ledger.record(made(number)); number += 1
full = ledger.status()
assert full.last_error is not None and full.buffered == 1000 and full.dropped > 0, full
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert ledger.flush(20)
ledger.close()
print(number, ledger.status().written, ledger.status().dropped)
"""


def test_a_new_file_that_another_process_writes_to_at_this_moment_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ledger.sqlite"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    soon = threading.Timer(0.2, other.execute, ("COMMIT",))
    soon.start()
    ledger = opened(str(file))
    assert caplog.messages == []
    ledger.record(made(0))
    assert ledger.flush(PATIENCE)
    ledger.close()
    soon.join()
    other.close()
    assert len(stored(str(file))) == 1


def test_a_full_disk_drops_what_finds_no_room_and_ends(sqlite_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), sqlite_url],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recorded, written, dropped = map(int, done.stdout.split())
    assert recorded == written + dropped
    rows = stored(sqlite_url)
    assert len(rows) == written
    assert [row["number"] for row in rows] == list(range(written))
    assert "can't be written: " in done.stderr
    assert "serving goes on" in done.stderr


def test_what_can_not_be_written_before_the_end_is_told(
    postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = opened(postgres_url)
    postgres.stop()
    try:
        for number in range(3):
            ledger.record(made(number))
        ledger.close(timeout=0.3)
    finally:
        postgres.start()
    assert "3 requests are lost" in caplog.text
    assert stored(postgres_url) == []
