from __future__ import annotations

import time

import pytest

from routellm.ledger import retention
from routellm.ledger.database import open_engine
from routellm.ledger.retention import Retention, sweep
from routellm.ledger.settings import LedgerSettings
from tests.ledger.making import NOON, made, stored, write

DAY = 86_400.0


def test_old_prompts_go_and_older_rows_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 2)
    old = [made(number, at=NOON - 10 * DAY - number, prompt="x") for number in range(5)]
    aged = [made(number, at=NOON - 3 * DAY, prompt="x") for number in range(5, 10)]
    write(url, *old, *aged, made(10, at=NOON, prompt="x"), prompts=True)
    engine = open_engine(url, writes=True)
    sweep(engine, NOON, row_days=7.0, prompt_days=2.0)
    assert [(row["request_id"], row["prompt"]) for row in stored(url)] == [
        *((f"request-{number}", None) for number in range(5, 10)),
        ("request-10", "x"),
    ]
    sweep(engine, NOON + 365 * DAY, row_days=None, prompt_days=None)
    assert len(stored(url)) == 6
    engine.dispose()


def test_a_clock_that_was_set_deletes_nothing_for_an_hour(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(sqlite_url, made(at=NOON))
    engine = open_engine(sqlite_url, writes=True)
    clock = {"time": NOON, "monotonic": 0.0}
    monkeypatch.setattr(time, "time", lambda: clock["time"])
    monkeypatch.setattr(time, "monotonic", lambda: clock["monotonic"])
    sweeps = Retention(engine, LedgerSettings(retention_days=30.0))

    def hours_later(hours: float, jump_seconds: float = 0.0) -> int:
        clock["time"] += hours * 3600 + jump_seconds
        clock["monotonic"] += hours * 3600
        sweeps.sweep_if_due()
        return len(stored(sqlite_url))

    assert hours_later(1) == 1
    assert hours_later(1, jump_seconds=5 * 365 * DAY) == 1
    assert "the clock was set by +157680000 s" in caplog.text
    assert hours_later(1, jump_seconds=-5 * 365 * DAY) == 1, "and set right again before anything was deleted"
    assert hours_later(1) == 1
    assert hours_later(30 * 24) == 0
    engine.dispose()


def test_rows_of_a_clock_that_went_back_are_kept_as_they_came(url: str) -> None:
    write(url, *(made(number, at=NOON - 1000 * number) for number in range(5)))
    assert [row["request_id"] for row in stored(url)] == [f"request-{number}" for number in range(5)]
