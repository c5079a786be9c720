"""Do the ledger, `routellm usage` and `/metrics` say what the clients counted themselves, to the token and the nano-dollar?

    python -m benchmarks.operations                                 200,000 requests, SQLite, two workers
    python -m benchmarks.operations --requests 20000 --keys         clients with a key, whose budget is booked
    python -m benchmarks.operations --requests 20000 --kill         one of the workers is killed half-way
    python -m benchmarks.operations --requests 20000 --database postgresql://me@localhost/empty

A mock upstream draws usage, errors and pauses for each request. Two client processes send whole requests and streams, with and
without usage, in three APIs, and some to no model; some leave before the reply or within it. They read the replies and keep
books of their own (`operations_load.py`). At the end the server is stopped by SIGTERM, and the books are held against the
ledger, row by row and in sums. The exit code is 1 where one of these does not hold:

- each request that was answered has one row, with the status, model, tokens and price that its client saw;
- each request whose client left has one row that says so, with the tokens that are known or estimated of what came by until
  then, and without any where nothing had come: no client can know those, so they are only in the sums of the last table;
- the sums of the rows, of `routellm usage` and of `/metrics` are equal; with --keys, what is booked on the key too, where an
  estimate stands for a request that was left before any reply, since a model may have answered it;
- a worker that is killed takes the rows of its last second with it, at the most, and no row is there twice.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.gateway_targets import PATIENCE, free_port, server_command
from benchmarks.operations_compare import ROW, Books, metric, report
from benchmarks.operations_load import Entry

ROOT = Path(__file__).parent.parent
LIMITS = ("--requests-per-minute", "100000000", "--tokens-per-minute", "1000000000000", "--dollars-per-month", "1000000")
"""None of which is reached."""

CONFIG = """
random: {{seed: 1}}
gateway:
  ledger: {{url: "{ledger}"}}
{keys}  prices:
    openai/big: {{input_per_million: 2.5, output_per_million: 10, cached_input_per_million: 1.25}}
    openai/small: {{input_per_million: 0.1505, output_per_million: 0.60025, cached_input_per_million: 0.07525}}
"""


def run(args: argparse.Namespace) -> Books:
    """Start everything, load the server, stop it, and collect the books."""
    books = Books()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = args.database or str(folder / "ledger.sqlite")
        config = folder / "config.yaml"
        config.write_text(CONFIG.format(ledger=url, keys="  keys: {}\n" if args.keys else ""))
        upstream, port = free_port(), free_port()
        key = make_key(url, LIMITS) if args.keys else ""
        stack.enter_context(started(sys.executable, "-m", "benchmarks.operations_load", "upstream", str(upstream)))
        more = ("--config", str(config), "--workers", str(args.workers))
        log = folder / "log"
        with log.open("w") as file:
            server = stack.enter_context(
                started(*server_command(port, f"http://127.0.0.1:{upstream}", ["random"], *more), stderr=file)
            )
        wait_until_ready(port)
        begun = time.monotonic()
        clients = [
            (stack.enter_context(started(*client_command(number, args, port, folder, key))), folder / f"books-{number}.json")
            for number in range(2)
        ]
        if args.kill:
            books.killed_at = kill_half_way(server.pid, upstream, args.requests)
        for client, result in clients:
            if client.wait():
                raise SystemExit("a client failed")
            books.entries += [Entry(*values) for values in json.loads(result.read_text())]
        books.seconds = time.monotonic() - begun
        books.metrics = settled_metrics(port, len(books.entries))
        books.upstream_calls = int(fetch(upstream, "/calls"))
        stopped = time.monotonic()
        server.send_signal(signal.SIGTERM)
        books.exit_code = server.wait(PATIENCE)
        books.stop_seconds = time.monotonic() - stopped
        books.log = log.read_text().splitlines()
        books.rows = [dict(zip(ROW, row, strict=True)) for row in query(url, f"SELECT {', '.join(ROW)} FROM requests")]
        books.usage = usage(url)
        if args.keys:
            books.spent = int(query(url, "SELECT sum(amount) FROM spent WHERE kind = 'month'")[0][0])
    return books


@contextmanager
def started(*command: str, stderr: Any = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end, whatever happens."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE)


def client_command(number: int, args: argparse.Namespace, port: int, folder: Path, key: str) -> list[str]:
    """Half of the load."""
    share = args.requests // 2 + (args.requests % 2 if number else 0)
    name, result = f"{args.seed}-client-{number}", str(folder / f"books-{number}.json")
    arguments = [str(port), name, str(share), str(args.connections), result, *([key] if key else [])]
    return [sys.executable, "-m", "benchmarks.operations_load", "client", *arguments]


def make_key(url: str, limits: Sequence[str]) -> str:
    """A key of the ledger at `url`."""
    command = [sys.executable, "-m", "routellm", "keys", "create", "benchmark", "--ledger", url, *limits]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def kill_half_way(supervisor: int, upstream: int, requests: int) -> float:
    """Kill one of the workers once half of the requests came through; when that was."""
    while int(fetch(upstream, "/calls")) < requests // 2:
        time.sleep(0.2)
    children = [int(pid) for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()]
    worker = next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    return time.time()


def settled_metrics(port: int, requests: int) -> str:
    """`/metrics` once it has counted every request: a client may have a reply before the server has counted it."""
    end = time.monotonic() + 5
    while True:
        text = fetch(port, "/metrics")
        if metric(text, "routellm_requests_total") >= requests or time.monotonic() > end:
            return text
        time.sleep(0.2)


def fetch(port: int, path: str) -> str:
    """A GET."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as response:
        body: bytes = response.read()
    return body.decode()


def wait_until_ready(port: int) -> None:
    """Return once the server answers."""
    for _ in range(int(PATIENCE * 10)):
        try:
            fetch(port, "/health")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server does not answer")


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What the database itself says."""
    if "://" not in url:
        connection: Any = sqlite3.connect(url)
    else:
        import psycopg

        connection = psycopg.connect(url)
    try:
        return list(connection.cursor().execute(statement).fetchall())
    finally:
        connection.close()


def usage(url: str) -> list[dict[str, Any]]:
    """What `routellm usage` prints, by model."""
    command = [sys.executable, "-m", "routellm", "usage", "--ledger", url, "--by", "model", "--format", "json"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    groups: list[dict[str, Any]] = json.loads(printed, parse_float=Decimal)["groups"]
    return groups


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=16, help="of each of the two clients")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keys", action="store_true", help="ask the clients for a key with limits")
    parser.add_argument("--kill", action="store_true", help="kill a worker half-way")
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL database, in place of an SQLite file")
    args = parser.parse_args()
    wrong = report(args, run(args))
    print(f"\n{'everything held' if not wrong else f'{wrong} did not hold'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
