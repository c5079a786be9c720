"""What the gateway costs, beside nginx, a bare proxy of the same parts, and NVIDIA Switchyard.

    python -m benchmarks.gateway                       some minutes; prints tables
    python -m benchmarks.gateway --parts requests      one part only
    python -m benchmarks.gateway --switchyard ENV/bin/python --parts requests streams steady workers memory --out FILE.md

Switchyard stands in an environment of its own (`pip install nemo-switchyard==0.3.0`), and is left out where none is named.
`--beside FOLDER` measures another checkout of this package in the same rounds: what a change is worth.

Targets take turns within each round, and a figure is the median over rounds. CPU time is the operating system's accounting of
the target's processes, and is the figure to trust: latencies depend on what else the machine does. The target under load has
one core to itself; the mock upstream and the load share the other. No two prompts in a row are alike.

Caveats: everything is on loopback and without TLS; the mock answers at once, which no model does; answers are short; and the
bare proxy was written for this comparison.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gateway_load import (
    Load,
    bodies,
    load_at_rate,
    load_with_streams,
    load_with_wrk,
    saturated,
    wrk_script,
)
from benchmarks.gateway_targets import (
    SWITCHYARD_ENVIRON,
    Target,
    bare_command,
    free_port,
    nginx_command,
    running,
    server_command,
    stream_mock_command,
    switchyard_command,
)

CONNECTIONS = (1, 16, 64)
STREAMS = 64
STEADY_RATE = 100
MEMORY_REQUESTS = 200_000


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    rounds: int
    seconds: int
    router: str
    words: int
    switchyard: str | None
    beside: Path | None
    folder: Path
    ours: int | None
    others: int | None


def start_targets(stack: ExitStack, plan: Plan, upstream: str, *, random: bool) -> list[Target]:
    """nginx, the bare proxy, the server, and what else the plan asks for, all before the same upstream."""

    def start(name: str, command: Callable[[int], list[str]], **options: object) -> Target:
        port = free_port()
        return stack.enter_context(running(name, command(port), port, plan.ours, **options))  # type: ignore[arg-type]

    targets = [
        start("nginx, a plain proxy", lambda port: nginx_command(plan.folder, port, upstream)),
        start("bare proxy", lambda port: bare_command(port, upstream)),
    ]
    both = ("random", plan.router)
    targets += [
        start(f"routellm, `{router}`", lambda port: server_command(port, upstream, both))
        for router in (both if random else (plan.router,))
    ]
    if plan.beside is not None:
        name = f"{plan.beside.name}, `{plan.router}`"
        targets.append(start(name, lambda port: server_command(port, upstream, both), folder=plan.beside))
    if plan.switchyard is not None:
        python = plan.switchyard
        targets.append(
            start(
                "Switchyard 0.3.0",
                lambda port: switchyard_command(python, plan.folder, port, upstream, plan.router),
                environ=SWITCHYARD_ENVIRON,
            )
        )
    return targets


def start_mock(stack: ExitStack, plan: Plan) -> Target:
    """The mock upstream: nginx, which returns one answer to everything."""
    port = free_port()
    return stack.enter_context(running("mock", nginx_command(plan.folder, port, None), port, plan.others))


# --- parts --------------------------------------------------------------------------------------------------------------


def requests_part(plan: Plan) -> str:
    """Whole answers at several numbers of connections."""
    with ExitStack() as stack:
        mock = start_mock(stack, plan)
        targets = start_targets(stack, plan, mock.url, random=True)
        scripts = {
            router: wrk_script(plan.folder, router, bodies(router, 512, words=plan.words))
            for router in ("random", plan.router)
        }

        def script(target: Target) -> Path:
            return scripts["random" if target.name.endswith("`random`") else plan.router]

        for target in targets:
            load_with_wrk(target.url, 16, 1, script(target), plan.others)  # to warm up; not counted
        runs: dict[tuple[int, str], list[tuple[float, Load]]] = {}
        for _ in range(plan.rounds):
            for connections in CONNECTIONS:
                for target in targets:
                    before = target.cpu_seconds()
                    load = load_with_wrk(target.url, connections, plan.seconds, script(target), plan.others)
                    cpu = (target.cpu_seconds() - before) / load.requests * 1e6
                    runs.setdefault((connections, target.name), []).append((cpu, load))
    lines = [
        "## Requests\n",
        "| connections | target | CPU us/request | to bare | p50 us | p99 us | requests/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for (connections, name), found in runs.items():
        cpu = statistics.median([cpu for cpu, _ in found])
        ratio = statistics.median([own[0] / bare[0] for own, bare in zip(found, runs[connections, "bare proxy"], strict=True)])
        p50, p99 = (statistics.median([getattr(load, which) for _, load in found]) for which in ("p50", "p99"))
        rate = statistics.median([load.requests / load.seconds for _, load in found])
        lines.append(f"| {connections} | {name} | {cpu:.0f} | {ratio:.2f} | {p50:,.0f} | {p99:,.0f} | {rate:,.0f} |")
    return "\n".join(lines)


def streams_part(plan: Plan) -> str:
    """Streams: what a chunk costs."""
    with ExitStack() as stack:
        port = free_port()
        mock = stack.enter_context(running("mock", stream_mock_command(port), port, plan.others))
        targets = start_targets(stack, plan, mock.url, random=False)
        asked = bodies(plan.router, STREAMS, words=plan.words, stream=True)
        runs: dict[str, list[float]] = {target.name: [] for target in targets}
        for number in range(plan.rounds + 1):
            for target in targets:
                before = target.cpu_seconds()
                events = load_with_streams(target.url, STREAMS, asked)
                if number:  # the first round warms up
                    runs[target.name].append((target.cpu_seconds() - before) / events * 1e6)
    lines = [f"## Streams ({STREAMS} at once)\n", "| target | CPU us/chunk | to bare |", "|---|---|---|"]
    for name, found in runs.items():
        ratio = statistics.median([own / bare for own, bare in zip(found, runs["bare proxy"], strict=True)])
        lines.append(f"| {name} | {statistics.median(found):.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def steady_part(plan: Plan) -> str:
    """Latency at a steady rate, alone and while `bert` has more to do than it can."""
    with ExitStack() as stack:
        mock = start_mock(stack, plan)
        port = free_port()
        command = server_command(port, mock.url, ("random", plan.router, "bert"))
        server = stack.enter_context(running("routellm", command, port, plan.ours))
        asked = bodies(plan.router, 512, words=plan.words)
        slow = wrk_script(plan.folder, "bert", bodies("bert", 512, words=plan.words))
        load_at_rate(server.url, STEADY_RATE, 1, asked)
        alone, beside = [], []
        for _ in range(plan.rounds):
            alone.append(load_at_rate(server.url, STEADY_RATE, plan.seconds, asked))
            with saturated(server.url, 64, plan.seconds + 30, slow, plan.others):
                beside.append(load_at_rate(server.url, STEADY_RATE, plan.seconds, asked))
    lines = [
        f"## `{plan.router}` while `bert` is saturated ({STEADY_RATE} requests/s beside 64 connections that ask `bert`)\n",
        "| | p50 us | p99 us |",
        "|---|---|---|",
    ]
    for name, found in (("alone", alone), ("`bert` saturated", beside)):
        p50, p99 = (statistics.median([getattr(load, which) for load in found]) for which in ("p50", "p99"))
        lines.append(f"| {name} | {p50:,.0f} | {p99:,.0f} |")
    return "\n".join(lines)


def workers_part(plan: Plan) -> str:
    """One worker and two; nothing is pinned, and the load takes its share of the same cores."""
    lines = [
        "## Workers (all cores, which the mock and the load share)\n",
        "| workers | CPU us/request | requests/s | MB |",
        "|---|---|---|---|",
    ]
    with ExitStack() as stack:
        port = free_port()
        mock = stack.enter_context(running("mock", nginx_command(plan.folder, port, None), port, None))
        servers = {}
        for workers in (1, 2):
            port = free_port()
            command = server_command(port, mock.url, ("random", plan.router), "--workers", str(workers))
            servers[workers] = stack.enter_context(running("routellm", command, port, None))
        script = wrk_script(plan.folder, "workers", bodies(plan.router, 512, words=plan.words))
        runs: dict[int, list[tuple[float, float]]] = {workers: [] for workers in servers}
        for number in range(plan.rounds + 1):
            for workers, server in servers.items():
                before = server.cpu_seconds()
                load = load_with_wrk(server.url, 64, plan.seconds, script, None)
                if number:
                    cpu = (server.cpu_seconds() - before) / load.requests * 1e6
                    runs[workers].append((cpu, load.requests / load.seconds))
        for workers, found in runs.items():
            cpu, rate = (statistics.median([run[which] for run in found]) for which in (0, 1))
            lines.append(f"| {workers} | {cpu:.0f} | {rate:,.0f} | {servers[workers].resident_mb():.0f} |")
    return "\n".join(lines)


def memory_part(plan: Plan) -> str:
    """Resident memory over many requests, each with words that it alone has."""
    with ExitStack() as stack:
        mock = start_mock(stack, plan)
        port = free_port()
        server = stack.enter_context(
            running("routellm", server_command(port, mock.url, ("random", plan.router)), port, plan.ours)
        )
        script = wrk_script(plan.folder, "memory", bodies(plan.router, 40_000, words=plan.words, novel=True))
        seen = [f"| 1 | {server.resident_mb():.0f} |"]
        sent, told = 0, 0
        while sent < MEMORY_REQUESTS:
            sent += load_with_wrk(server.url, 16, 2 if not sent else 10, script, plan.others).requests
            if sent - told >= MEMORY_REQUESTS // 8 or not told or sent >= MEMORY_REQUESTS:
                told = sent
                seen.append(f"| {sent:,} | {server.resident_mb():.0f} |")
    return "\n".join(["## Memory\n", "| requests answered | resident MB |", "|---|---|", *seen])


PARTS = {
    "requests": requests_part,
    "streams": streams_part,
    "steady": steady_part,
    "workers": workers_part,
    "memory": memory_part,
}


def heading(plan: Plan) -> str:
    """When, where and how."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"# What the gateway costs ({datetime.now(UTC):%Y-%m-%d})\n\n"
        f"Written by `python -m benchmarks.gateway`; what it measures, and its caveats, stand at the head of that file. "
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}; load by wrk; medians of {plan.rounds} interleaved rounds of {plan.seconds} s; router "
        f"`{plan.router}`; prompts of some {plan.words} words. Ratios are medians of the rounds' own."
    )


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["requests", "streams", "steady", "workers"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--router", default="mf")
    parser.add_argument("--words", type=int, default=60, help="of a prompt")
    parser.add_argument("--switchyard", metavar="PYTHON", help="the Python of an environment with nemo-switchyard")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout of this package, to measure beside")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the tables to")
    arguments = parser.parse_args()
    for program in ("wrk", "nginx", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed. On Debian: apt-get install wrk nginx-light util-linux")
    if arguments.switchyard is None:
        print("Switchyard is left out: give --switchyard PYTHON.\n")
    cores = sorted(os.sched_getaffinity(0))
    ours, others = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            arguments.rounds,
            arguments.seconds,
            arguments.router,
            arguments.words,
            arguments.switchyard,
            arguments.beside,
            Path(folder),
            ours,
            others,
        )
        tables = [heading(plan)]
        print(tables[0], flush=True)
        for name in arguments.parts:
            tables.append(PARTS[name](plan))
            print(f"\n{tables[-1]}", flush=True)
    if arguments.out is not None:
        arguments.out.write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
