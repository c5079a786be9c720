"""What metrics, the ledger, keys and log lines cost a request of the whole server.

    python -m benchmarks.operations_overhead [--starts 4] [--rounds 3] [--seconds 3]

The same load on servers that differ in nothing else; what a thing adds is the difference to the server without it. They take
turns within each round, in an order that is drawn for each; one worker process each, all before one nginx as mock upstream;
`mf` decides. CPU time is the operating system's accounting of the server's process with all its threads, until half a second
after the load's end, when the ledger has been written. Ratios are medians over rounds of the ratio within a round, and are the
figures to trust. All are started anew several times, since two processes that do the same can differ by some percent for good.

Caveats: the load and the upstream share the machine with the servers, and replies are short and come at once.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.gateway_load import bodies, load_with_wrk, wrk_script
from benchmarks.gateway_targets import Target, free_port, nginx_command, running, server_command
from benchmarks.operations import LIMITS, make_key

CONNECTIONS = 16
PRICES = (
    "{openai/big: {input_per_million: 2.5, output_per_million: 10}, "
    "openai/small: {input_per_million: 0.15, output_per_million: 0.6}}"
)


class Seen(NamedTuple):
    """Of one server in one round: microseconds."""

    cpu: float
    p50: float
    p99: float


class Server(NamedTuple):
    """One of those that are compared.

    Attributes:
        base: the number of the server that has one thing less; None for the first.
        key: limits of the key that its clients have; None where none is asked for.
    """

    name: str
    base: int | None
    metrics: bool = True
    ledger: bool = True
    key: tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()


A_MINUTE = ("--requests-per-minute", "100000000")
SERVERS = (
    Server("nothing", None, metrics=False, ledger=False),
    Server("metrics, which is the default", 0, ledger=False),
    Server("metrics, ledger (SQLite)", 1),
    Server("metrics, ledger, a key without limits", 2, key=()),
    Server("metrics, ledger, a key with requests/min", 2, key=A_MINUTE),
    Server("metrics, ledger, a key with 3 limits", 2, key=LIMITS),
    Server("metrics, ledger, JSON log lines", 2, flags=("--verbose", "--log-format", "json")),
)


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    starts: int
    rounds: int
    seconds: int
    folder: Path


def config(server: Server, database: Path) -> str:
    """The section `gateway` of a server."""
    lines = ["gateway:", f"  prices: {PRICES}", f"  telemetry: {{metrics: {'true' if server.metrics else 'false'}}}"]
    if server.ledger:
        lines.append(f'  ledger: {{url: "{database}"}}')
    if server.key is not None:
        lines.append("  keys: {}")
    return "\n".join(lines) + "\n"


def start(stack: ExitStack, folder: Path, upstream: str) -> list[tuple[Target, Path]]:
    """The servers, each with the script of its load."""
    requests = bodies("mf", 200)
    found = []
    for number, server in enumerate(SERVERS):
        database, file, port = folder / f"{number}.sqlite", folder / f"{number}.yaml", free_port()
        file.write_text(config(server, database))
        script = wrk_script(folder, str(number), requests)
        if server.key is not None:
            script.write_text(script.read_text().replace("sk-client", make_key(str(database), server.key)))
        command = server_command(port, upstream, ["mf"], "--config", str(file), *server.flags)
        found.append((stack.enter_context(running(server.name, command, port, None)), script))
    return found


def measure(target: Target, script: Path, seconds: int) -> Seen:
    """One server's turn."""
    before = target.cpu_seconds()
    load = load_with_wrk(target.url, CONNECTIONS, seconds, script, None)
    time.sleep(0.5)
    return Seen((target.cpu_seconds() - before) / load.requests * 1e6, load.p50, load.p99)


def run(plan: Plan) -> list[list[Seen]]:
    """Rounds of what was seen of each server."""
    dice = random.Random(1)
    rounds: list[list[Seen]] = []
    for number in range(plan.starts):
        with ExitStack() as stack:
            folder, port = plan.folder / str(number), free_port()
            folder.mkdir()
            upstream = stack.enter_context(running("upstream", nginx_command(folder, port, None), port, None))
            servers = start(stack, folder, upstream.url)
            for target, script in servers:
                measure(target, script, 1)
            for _ in range(plan.rounds):
                order = dice.sample(range(len(servers)), len(servers))
                seen = {place: measure(*servers[place], plan.seconds) for place in order}
                rounds.append([seen[place] for place in range(len(servers))])
    return rounds


def report(rounds: list[list[Seen]]) -> None:
    """Print the table."""
    print("| server | CPU us/request | to nothing | adds, us | p50 us | p99 us |\n|---|---|---|---|---|---|")
    for number, server in enumerate(SERVERS):
        of = [seen[number] for seen in rounds]
        cpu, p50, p99 = (statistics.median(values) for values in zip(*of, strict=True))
        ratio = statistics.median(seen[number].cpu / seen[0].cpu for seen in rounds)
        base = server.base
        adds = "" if base is None else f"{statistics.median(seen[number].cpu - seen[base].cpu for seen in rounds):+.0f}"
        print(f"| {server.name} | {cpu:.0f} | {ratio:.2f} | {adds} | {p50:,.0f} | {p99:,.0f} |")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="of each start")
    parser.add_argument("--seconds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(run(Plan(args.starts, args.rounds, args.seconds, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
