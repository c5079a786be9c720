"""What virtual keys cost a request.

    python benchmarks/keys.py [--rounds 7] [--postgres postgresql://USER:PASSWORD@HOST/NAME] [--json FILE]

Prints medians over rounds, in microseconds. `admit` (a good key, a wrong one), `check`, `estimate` and `settle` run on the
event loop, and are processor time of one call. `take` waits for the database, without holding up the loop: wall time of one
request after another, and with 64 under way at once the wall and the processor time (of the loop and the thread together) that
each accounts for. Every request takes from four limits, and settles. The database given with --postgres gets this package's
tables, and keys named "benchmark". Figures of one run only compare with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from routellm.costs import PriceList, own_price
from routellm.errors import InvalidKeyError
from routellm.keys.guard import Guard
from routellm.keys.lease import Lease
from routellm.keys.limits import Estimate, Grant
from routellm.keys.policy import KeyPolicy
from routellm.keys.settings import KeysSettings
from routellm.keys.store import KeyStore
from routellm.types import Decision, RequestRecord, Usage

CALLS = 2_000
AT_ONCE = 64
STRONG, WEAK = "openai/big", "openai/small"
PRICES = PriceList({STRONG: own_price(2.5, 10.0), WEAK: own_price(0.15, 0.6)})
LIMITS = KeyPolicy(
    routers=("mf",),
    threshold_min=0.1,
    requests_per_minute=10**9,
    tokens_per_minute=10**11,
    dollars_per_day=10**7,
    dollars_per_month=10**8,
)
DECISION = Decision(STRONG, "threshold", "mf", 0.5, 0.62)
BODY = msgspec.json.encode(
    {
        "model": "router-mf-0.5",
        "messages": [{"role": "user", "content": "What is the capital of France? " * 10}],
        "max_tokens": 100,
    }
)
FIELDS = msgspec.json.decode(BODY, type=dict[str, msgspec.Raw])
RECORD = RequestRecord(
    request_id="req-0123456789",
    at=1_700_000_000.25,
    api="chat",
    asked="router-mf-0.5",
    outcome="answered",
    status=200,
    attempts=1,
    usage=Usage(input_tokens=80, output_tokens=90),
)
ESTIMATE = Estimate(180, 1_200_000, 72_000)


def headers(key: str) -> list[tuple[bytes, bytes]]:
    """As the official client sends them."""
    names = (b"host", b"accept", b"accept-encoding", b"content-type", b"user-agent", b"x-stainless-lang", b"content-length")
    return [*((name, b"value") for name in names), (b"authorization", f"Bearer {key}".encode())]


def cpu_microseconds(call: Callable[[], object]) -> float:
    """Processor time of one of many calls."""
    start = time.process_time_ns()
    for _ in range(CALLS):
        call()
    return (time.process_time_ns() - start) / CALLS / 1e3


def wrong(guard: Guard, given: list[tuple[bytes, bytes]]) -> Callable[[], None]:
    """A call that is refused."""

    def admit() -> None:
        try:
            guard.admit(given)
        except InvalidKeyError:
            return
        raise AssertionError("a wrong key was let in")

    return admit


async def takes(guard: Guard, key: str, at_once: int) -> tuple[float, float]:
    """Wall and processor time of one take with its settlement, while `at_once` are under way."""
    client = guard.admit(headers(key))

    async def one() -> None:
        for _ in range(CALLS // at_once):
            lease = await guard.take(client, ESTIMATE)
            lease.settle(RECORD, 1_100_000)

    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    await asyncio.gather(*(one() for _ in range(at_once)))
    count = CALLS // at_once * at_once * 1e3
    return (time.perf_counter_ns() - wall) / count, (time.process_time_ns() - cpu) / count


def on_the_loop(guard: Guard, key: str) -> dict[str, float]:
    """What never waits."""
    client = guard.admit(headers(key))
    good, bad = headers(key), headers(key[:-1] + ("A" if key[-1] != "A" else "B"))
    windows = client.limits.windows(time.time())
    grant = Grant(windows=windows, reserved=dict.fromkeys(windows.values(), 1))
    return {
        "admit": cpu_microseconds(lambda: guard.admit(good)),
        "admit, a wrong key": cpu_microseconds(wrong(guard, bad)),
        "check": cpu_microseconds(lambda: client.check(DECISION)),
        "estimate": cpu_microseconds(lambda: guard.estimate(BODY, FIELDS, STRONG, WEAK, PRICES)),
        "settle": cpu_microseconds(lambda: Lease(grant, lambda _: None).settle(RECORD, 1_100_000)),
    }


def measure(name: str, url: str) -> dict[str, float]:
    """One round against one database."""
    store = KeyStore.open(url)
    key = store.create("benchmark", LIMITS)[1]
    store.close()
    guard = Guard.open(url, KeysSettings(wait_seconds=30.0))
    try:
        found = on_the_loop(guard, key) if name == "sqlite" else {}
        found[f"take, {name}, one at a time, wall"] = asyncio.run(takes(guard, key, 1))[0]
        wall, cpu = asyncio.run(takes(guard, key, AT_ONCE))
        found |= {f"take, {name}, {AT_ONCE} at once, wall": wall, f"take, {name}, {AT_ONCE} at once, processor": cpu}
        assert guard.states().unchecked == 0
        return found
    finally:
        guard.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--postgres", metavar="URL", help="measure this database too")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as directory:
            figures = measure("sqlite", str(Path(directory) / "keys.sqlite"))
        if arguments.postgres:
            figures |= measure("postgresql", arguments.postgres)
        rounds.append(figures)
    medians = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    for name, value in medians.items():
        print(f"{name:45} {value:8.1f} us")
    if arguments.json:
        arguments.json.write_text(json.dumps(medians, indent=2) + "\n")


if __name__ == "__main__":
    main()
