"""Several processes on one database: exactly what the limits say goes through, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from routellm.keys.policy import KeyPolicy
from routellm.keys.store import KeyStore
from tests.keys.making import PATIENCE
from tests.keys.taking import EACH, TIMES

ROOT = Path(__file__).parent.parent.parent
PROCESSES, KEYS = 3, 60
GRANTED = 7  # of PROCESSES * TIMES with each key


def test_processes_together_get_exactly_the_limits(url: str) -> None:
    assert GRANTED < PROCESSES * TIMES
    store = KeyStore.open(url)
    policy = KeyPolicy(tokens_per_minute=GRANTED * EACH + EACH - 1, requests_per_minute=PROCESSES * TIMES)
    keys = [store.create(f"team {number}", policy)[1] for number in range(KEYS)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.keys.taking", url, str(seed), *keys],
            cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        )
        for seed in range(PROCESSES)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in processes:  # all at once
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=3 * PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [errors for _, errors in outputs] == [""] * PROCESSES
    counts = [[int(number) for number in output.split()] for output, _ in outputs]
    assert [sum(of_key) for of_key in zip(*counts, strict=True)] == [GRANTED] * KEYS
    with store.engine.connect() as connection:
        rows = connection.execute(text("SELECT kind, amount, count(*) FROM spent GROUP BY kind, amount ORDER BY kind")).all()
    store.close()
    assert [tuple(row) for row in rows] == [("requests", GRANTED, KEYS), ("tokens", EACH * GRANTED, KEYS)]
