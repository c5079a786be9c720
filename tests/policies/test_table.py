from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.context import SpawnContext

import pytest

from routellm.policies.table import WAYS, ConversationTable

SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 60.0


class Clock:
    """Seconds that a test moves."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def small(entries: int = WAYS, clock: Clock | None = None) -> ConversationTable:
    return ConversationTable(None, entries, b"secret", clock or Clock())


def remember(table: ConversationTable, name: bytes, *, strong: bool) -> None:
    digest = table.digest(name)
    table.put(digest, table.find(digest, 3600)[0], strong=strong)


def look(table: ConversationTable, name: bytes, ttl_seconds: int = 3600) -> bool | None:
    return table.find(table.digest(name), ttl_seconds)[1]


def write_from_a_worker(table: ConversationTable) -> None:
    remember(table, b"from the worker", strong=True)


def hammer(table: ConversationTable, seed: int, wrong: multiprocessing.Queue[int]) -> None:
    """Names of odd number are always with the strong model, so that a read which says otherwise was torn."""
    found = 0
    for turn in range(20_000):
        number = (turn * 7 + seed) % 12
        held = look(table, b"%d" % number)
        found += held is not None and held != (number % 2 == 1)
        remember(table, b"%d" % number, strong=number % 2 == 1)
    wrong.put(found)


def in_processes(context: SpawnContext, target: object, arguments: list[tuple[object, ...]]) -> None:
    processes = [context.Process(target=target, args=each) for each in arguments]  # type: ignore[arg-type]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0


def test_a_conversation_is_found_with_the_model_that_was_last_written() -> None:
    table = small()
    assert look(table, b"a") is None
    remember(table, b"a", strong=True)
    assert look(table, b"a") is True
    remember(table, b"a", strong=False)
    assert look(table, b"a") is False
    assert look(table, b"b") is None


def test_it_is_new_again_once_it_was_quiet_for_the_time_to_live() -> None:
    clock = Clock()
    table = small(clock=clock)
    remember(table, b"a", strong=True)
    clock.now += 299
    assert look(table, b"a", 300) is True
    clock.now += 1
    assert look(table, b"a", 300) is None


def test_each_request_begins_the_time_to_live_anew() -> None:
    clock = Clock()
    table = small(clock=clock)
    for _ in range(5):
        remember(table, b"a", strong=True)
        clock.now += 200
    assert look(table, b"a", 300) is True


def test_a_full_bucket_gives_up_the_conversation_that_was_quiet_for_longest() -> None:
    clock = Clock()
    table = small(clock=clock)
    names = [b"%d" % number for number in range(WAYS)]
    for name in names:
        remember(table, name, strong=True)
        clock.now += 1
    remember(table, names[0], strong=True)  # the second is now the oldest
    clock.now += 1
    remember(table, b"one more", strong=False)
    assert look(table, b"one more") is False
    assert [name for name in names if look(table, name) is None] == [names[1]]


def test_the_clock_may_wrap_around() -> None:
    clock = Clock(2.0**24 - 10)
    table = small(clock=clock)
    remember(table, b"a", strong=True)
    clock.now += 20
    assert look(table, b"a", 300) is True
    assert look(table, b"a", 20) is None


def test_two_servers_hash_the_same_conversation_differently() -> None:
    assert ConversationTable.open(8, shared=False).digest(b"a") != ConversationTable.open(8, shared=False).digest(b"a")


@pytest.mark.parametrize(("asked", "made"), [(1, 8), (8, 8), (9, 16), (65_536, 65_536)])
def test_the_size_is_rounded_up(asked: int, made: int) -> None:
    assert ConversationTable.open(asked, shared=False).entries == made


def test_worker_processes_see_each_others_conversations() -> None:
    table = ConversationTable.open(1_024)
    assert table.is_shared
    in_processes(SPAWN, write_from_a_worker, [(table,)])
    assert look(table, b"from the worker") is True


def test_processes_that_write_at_the_same_time_never_make_up_an_entry() -> None:
    table = ConversationTable.open(WAYS)  # one bucket, more conversations than places
    wrong: multiprocessing.Queue[int] = SPAWN.Queue()
    in_processes(SPAWN, hammer, [(table, 1, wrong), (table, 2, wrong)])
    assert [wrong.get(timeout=PATIENCE), wrong.get(timeout=PATIENCE)] == [0, 0]


def test_without_shared_memory_a_warning_says_what_that_means(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("routellm.policies.table.get_context", lambda _: type("Context", (), {"RawArray": refuse}))
    with caplog.at_level(logging.WARNING):
        table = ConversationTable.open(64)
    assert not table.is_shared
    assert "No space left on device" in caplog.text
    assert "same worker" in caplog.text
    remember(table, b"a", strong=True)
    assert look(table, b"a") is True
    in_processes(SPAWN, write_from_a_worker, [(table,)])
    assert look(table, b"from the worker") is None


def test_a_repr_shows_no_secret() -> None:
    table = ConversationTable(None, 8, b"the-secret-of-this-server")
    assert "secret" not in repr(table)
