"""Guards, keys and clocks for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from routellm.keys import guard as guard_module
from routellm.keys.client import Client
from routellm.keys.guard import Guard
from routellm.keys.policy import KeyPolicy
from routellm.keys.settings import KeysSettings
from routellm.keys.store import Key, KeyStore
from routellm.types import RequestRecord, Usage

NOON = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC
PATIENCE = 20.0
T = TypeVar("T")


class Clock:
    """Wall time that a test sets; the guard reads it in place of the system's."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@contextmanager
def guarding(url: str, **settings: Any) -> Iterator[Guard]:
    """An open guard that waits for its database as long as a test may take."""
    guard = Guard.open(url, KeysSettings(**{"wait_seconds": PATIENCE, "refresh_seconds": 0.05, **settings}))
    try:
        yield guard
    finally:
        guard.close()


def made(url: str, name: str = "team a", expires: int | None = None, **policy: Any) -> tuple[Key, str]:
    """A new key in the database, and its text."""
    store = KeyStore.open(url)
    try:
        return store.create(name, KeyPolicy(**policy), expires)
    finally:
        store.close()


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    """The headers that an OpenAI client sends it in."""
    return [(b"host", b"server"), (b"authorization", f"Bearer {text}".encode())]


def admitted(guard: Guard, text: str) -> Client:
    """Whoever holds it; waits until the guard has taken up a key that was made just before."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return guard.admit(bearer(text))
        except Exception:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def run(work: Coroutine[Any, Any, T]) -> T:
    """On an event loop of its own."""
    return asyncio.run(work)


def record(input_tokens: int | None = None, output_tokens: int = 0, **changes: Any) -> RequestRecord:
    """A finished request; `input_tokens` None: nobody knows how many."""
    usage = None if input_tokens is None else Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    fields = {"outcome": "answered", "status": 200, "attempts": 1, "usage": usage, **changes}
    return RequestRecord(request_id="request-1", at=NOON, api="chat", asked="router-mf-0.5", **fields)


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float = NOON) -> Clock:
    """Another clock for the guard."""
    clock = Clock(now)
    monkeypatch.setattr(guard_module, "time", clock)
    return clock


def spent(guard: Guard) -> dict[tuple[str, int], int]:
    """(kind, window) -> amount, once all that is settled is booked."""
    deadline = time.monotonic() + PATIENCE
    keeper, quiet = guard._bookkeeper, 0
    while quiet < 3:  # a look may fall between two steps of the thread's
        quiet = 0 if keeper.waiting() or keeper._settling else quiet + 1
        assert time.monotonic() < deadline, "it was never booked"
        time.sleep(0.01)
    with guard.store.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT kind, window_start, amount FROM spent").all()
    return {(kind, start): amount for kind, start, amount in rows}
