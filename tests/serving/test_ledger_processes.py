"""The ledger and the counts of a server that ends, is killed, or finds the disk full, under load."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import re
import resource
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ledger.making import count, stored
from tests.live import PATIENCE, LiveServer
from tests.serving.test_process import BODY, started, stop, workers_of
from tests.serving.test_reload import eventually

IN, OUT = 5, 2
"""Tokens that the upstream tells of each request."""


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


def models_at(live: LiveServer) -> list[str]:
    return ["--strong-model", "openai/big", "--weak-model", "openai/small", "--base-url", live.base_url]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def ask_once(connection: http.client.HTTPConnection, id: str) -> bool:
    """Whether a whole reply came."""
    connection.request("POST", "/v1/chat/completions", BODY, {"x-request-id": id})
    response = connection.getresponse()
    response.read()
    return response.status == 200


def ask_many(port: int, number: int, name: str = "request") -> None:
    """So many requests, one after the other, each of them answered."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        assert all(ask_once(connection, f"{name}-{place}") for place in range(number))


class Load:
    """Threads that send requests while this context lasts; `answered` are the ids of those that got a whole reply."""

    connections = 4

    def __init__(self, port: int, name: str = "load") -> None:
        self.answered: list[str] = []
        self._port = port
        self._stopped = threading.Event()
        names = [f"{name}-{number}" for number in range(self.connections)]
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in names]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, more: int) -> None:
        """Until so many more requests have been answered."""
        wanted = len(self.answered) + more
        eventually(lambda: len(self.answered) >= wanted)

    def _run(self, name: str) -> None:
        ids = (f"{name}-{number}" for number in itertools.count())
        while not self._stopped.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                while not self._stopped.is_set():
                    id = next(ids)
                    if ask_once(connection, id):
                        self.answered.append(id)
            self._stopped.wait(0.02)


def ids_in(database: str) -> Counter[str]:
    """Ids of the requests in the ledger, which is whole and says of each what it took."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = stored(database)
    assert {(row["input_tokens"], row["output_tokens"]) for row in rows if row["outcome"] == "answered"} == {(IN, OUT)}
    return Counter(row["request_id"] for row in rows)


def metric(port: int, name: str) -> float:
    """The sum over all labels."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def test_two_workers_count_every_request_and_lose_none_when_they_are_stopped(live: LiveServer, database: str) -> None:
    with started(*models_at(live), "--ledger", database, "--workers", "2") as (process, url, _):
        port = port_of(url)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: ask_many(port, 5, f"client-{number}"), range(16)))
        eventually(lambda: metric(port, "routellm_requests_total") == 80)
        assert {metric(port, "routellm_requests_total") for _ in range(6)} == {80}  # whichever worker answers
        assert metric(port, "routellm_tokens_total") == 80 * (IN + OUT)
        assert metric(port, "routellm_workers") == 2
        with Load(port) as load:
            load.wait_for(100)
            code, said = stop(process)
        assert (code, "ERROR" in said) == (0, False), said
    rows = ids_in(database)
    assert {*load.answered, *(f"client-{client}-{number}" for client in range(16) for number in range(5))} <= set(rows)
    assert rows.most_common(1)[0][1] == 1


def test_a_killed_worker_takes_nothing_that_was_written_and_doubles_nothing(live: LiveServer, database: str) -> None:
    with started(*models_at(live), "--ledger", database, "--workers", "2") as (process, url, _):
        port = port_of(url)
        ask_many(port, 100, "before")
        eventually(lambda: count(database) == 100)
        with Load(port) as load:
            load.wait_for(50)
            killed, *_ = workers_of(process)
            os.kill(int(killed.name), signal.SIGKILL)
            load.wait_for(50)
            eventually(lambda: len(workers_of(process)) == 2)
        ask_many(port, 50, "after")
        # Its counts outlive it. Only of each of its connections the last reply may have left before it was counted.
        known = 150 + len(load.answered) - load.connections
        eventually(lambda: metric(port, "routellm_requests_total") >= known)
        assert stop(process)[0] == 0
    rows = ids_in(database)
    assert rows.most_common(1)[0][1] == 1
    assert {f"before-{number}" for number in range(100)} | {f"after-{number}" for number in range(50)} <= set(rows)


def test_a_ledger_of_a_killed_server_opens_again(live: LiveServer, database: str) -> None:
    arguments = (*models_at(live), "--ledger", database)
    with started(*arguments) as (process, url, _):
        ask_many(port_of(url), 30, "before")
        eventually(lambda: count(database) == 30)
        with Load(port_of(url)) as load:
            load.wait_for(50)
            stop(process, signal.SIGKILL)
    written = ids_in(database)
    with started(*arguments) as (process, url, _), Load(port_of(url), name="after") as after:
        after.wait_for(50)
        assert stop(process)[0] == 0
    rows = ids_in(database)
    assert {id: times for id, times in rows.items() if not id.startswith("after")} == written
    assert set(after.answered) <= set(rows)
    assert rows.most_common(1)[0][1] == 1


@contextmanager
def largest_file(pid: int, size: int) -> Iterator[None]:
    """As if the disk were full: the process can make no file larger than that."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def test_requests_go_on_while_the_disk_is_full(live: LiveServer, database: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f'gateway: {{ledger: {{url: "{database}", batch_rows: 10, buffer_rows: 40}}}}')
    with started(*models_at(live), "--config", str(config)) as (process, url, _):
        port = port_of(url)
        ask_many(port, 20, "before")
        eventually(lambda: count(database) == 20)
        with largest_file(process.pid, 1024):
            ask_many(port, 100, "full")
            dropped = int(metric(port, "routellm_ledger_dropped_records_total"))
            assert metric(port, "routellm_ledger_buffered_records") == 40
            assert dropped == 60
        eventually(lambda: count(database) == 60)
        ask_many(port, 5, "after")
        code, said = stop(process)
    assert code == 0
    assert "can't be written: " in said
    assert "were dropped; serving goes on" in said
    assert "is written again" in said
    rows = ids_in(database)
    assert sum(rows.values()) == len(rows) == 20 + 40 + 5
    assert {f"after-{number}" for number in range(5)} <= set(rows)
