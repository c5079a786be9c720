"""A worker that is killed while its requests are under way."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.keys.making import admitted, guarding, made, record, run, set_clock, spent
from tests.keys.test_guard import DAY, MINUTE, take

ROOT = Path(__file__).parent.parent.parent

UNDER_WAY = """
import asyncio, sys
from routellm.keys import guard as guard_module
from routellm.keys.limits import Estimate
from tests.keys.making import Clock, bearer, guarding, record, spent

async def main(url, text):
    guard_module.time = Clock()
    with guarding(url) as guard:
        client = guard.admit(bearer(text))
        leases = [await guard.take(client, Estimate(100, 500, 50)) for _ in range(4)]
        leases[0].settle(record(10), 40)
        spent(guard)
        print("under way", flush=True)
        sys.stdin.readline()

asyncio.run(main(*sys.argv[1:]))
"""


def test_what_it_had_reserved_stays_counted_and_nothing_is_counted_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    _, text = made(url, tokens_per_minute=1000, dollars_per_day=1)
    command = [sys.executable, "-c", textwrap.dedent(UNDER_WAY), url, text]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.kill()
    with guarding(url) as guard:
        assert spent(guard) == {("tokens", MINUTE): 10 + 3 * 100, ("day", DAY): 40 + 3 * 500}
        run(take(guard, admitted(guard, text), 100, 500)).settle(record(1), 1)
        assert spent(guard) == {("tokens", MINUTE): 310 + 1, ("day", DAY): 1540 + 1}
