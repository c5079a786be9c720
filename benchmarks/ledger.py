"""What the ledger costs a request: on the event loop, and in its own thread.

    python benchmarks/ledger.py                       about half a minute
    python benchmarks/ledger.py --url postgresql://me@localhost/ledger

On the event loop: reading the usage out of the reply's bytes, making the record, pricing it and handing it over. Then all of
it, with the thread that makes rows and writes them, by the processor time of the whole process. The lag is how late a timer of
1 ms comes while records come at the given rate, beside how late it comes without: median and 99th percentile.

Caveats: everything is in one process and on one machine, and the records are alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from routellm.costs import PriceList, own_price
from routellm.ledger.ledger import Ledger
from routellm.ledger.rows import Terms
from routellm.ledger.settings import LedgerSettings
from routellm.serving.usage import UsageReader
from routellm.types import ModelPair, RequestRecord, Usage

TERMS = Terms(ModelPair("strong", "weak"), PriceList({"strong": own_price(2.5, 10.0), "weak": own_price(0.15, 0.6)}))
USAGE = Usage(input_tokens=70, output_tokens=300)
REPLY = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "At noon. " * 130}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 70, "completion_tokens": 300, "total_tokens": 370},
    }
).encode()
EVENT = (
    b"data: "
    + json.dumps(
        {
            "id": "chatcmpl-0123456789",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "small",
            "system_fingerprint": "fp_0123456789",
            "choices": [{"index": 0, "delta": {"content": " noon"}, "logprobs": None, "finish_reason": None}],
            "usage": None,
        }
    ).encode()
    + b"\n\n"
)


def made() -> RequestRecord:
    """What a routed request leaves behind."""
    return RequestRecord(
        request_id=os.urandom(12).hex(),
        at=time.time(),
        api="chat",
        asked="router-mf-0.5",
        outcome="answered",
        status=200,
        model="weak",
        reason="threshold",
        router="mf",
        threshold=0.5,
        win_rate=0.25,
        decision_us=80.0,
        attempts=1,
        own_ms=0.3,
        upstream_ms=20.0,
        first_byte_ms=20.0,
        usage=USAGE,
    )


def read_reply() -> None:
    """Usage out of a whole reply."""
    reader = UsageReader("chat", "application/json")
    reader.feed(REPLY)
    reader.usage(b"")


def microseconds(call: Callable[[], object], times: int = 5000, rounds: int = 7) -> float:
    """Processor time of this thread for a call; the median of rounds."""
    found = []
    for _ in range(rounds):
        started = time.thread_time()
        for _ in range(times):
            call()
        found.append((time.thread_time() - started) / times * 1e6)
    return statistics.median(found)


def on_the_loop(url: str) -> list[tuple[str, float]]:
    """Each step's microseconds on the event loop."""
    stream = UsageReader("chat", "text/event-stream")
    ledger = Ledger.open(url, LedgerSettings(batch_seconds=1.0, buffer_rows=1_000_000), TERMS)
    record = made()
    steps = [
        ("read usage, whole reply", microseconds(read_reply)),
        ("read usage, a chunk of a stream", microseconds(lambda: stream.feed(EVENT))),
        ("make the record", microseconds(made)),
        ("price it", microseconds(lambda: TERMS.prices.nanodollars("weak", USAGE))),
        ("hand it over", microseconds(lambda: ledger.record(record))),
    ]
    ledger.flush(600.0)
    ledger.close(60.0)
    return steps


def in_the_thread(url: str, rows: int) -> tuple[float, float]:
    """Microseconds of processor time a row, and rows a second, where many wait."""
    ledger = Ledger.open(url, LedgerSettings(buffer_rows=1_000_000), TERMS)
    records = [made() for _ in range(rows)]
    started, cpu = time.perf_counter(), time.process_time()
    for record in records:
        ledger.record(record)
    ledger.flush(600.0)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    ledger.close()
    return cpu / rows * 1e6, rows / seconds


async def lag(ledger: Ledger | None, rate: float, seconds: float) -> tuple[float, float]:
    """How late a timer of 1 ms comes, in milliseconds: median and 99th percentile."""
    late: list[float] = []
    until, recorded, started = time.perf_counter() + seconds, 0, time.perf_counter()
    while (now := time.perf_counter()) < until:
        while ledger is not None and recorded < (now - started) * rate:
            ledger.record(made())
            recorded += 1
        slept = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - slept - 0.001) * 1e3)
    late.sort()
    return statistics.median(late), late[int(0.99 * len(late))]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="the database; without it, an SQLite file in a temporary folder")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="records a second while the lag is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or str(Path(folder) / "ledger.sqlite")
        for name, cost in on_the_loop(url):
            print(f"{name:<34} {cost:6.2f} us")
        cost, rate = in_the_thread(url, arguments.rows)
        print(f"{'rows, loop and thread together':<34} {cost:6.2f} us    {rate:,.0f} rows/s")
        print(f"lag of a 1 ms timer: median {(found := asyncio.run(lag(None, 0, 5.0)))[0]:.2f} ms, p99 {found[1]:.2f} ms")
        ledger = Ledger.open(url, LedgerSettings(), TERMS)
        found = asyncio.run(lag(ledger, arguments.rate, 5.0))
        ledger.close()
        print(f"with {arguments.rate:,.0f} records a second: median {found[0]:.2f} ms, p99 {found[1]:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
