"""What dispatching costs over a plain call of the upstream, where nothing fails.

    python benchmarks/dispatch.py [--rounds 21] [--json FILE]

The upstream answers at once and nothing goes over a network, so that only the bookkeeping is seen: the choice of a deployment,
the circuit breaker, the count of calls under way, and the telling of how the reply ended. Prints microseconds of CPU a request
(medians of interleaved rounds) for the plain call, for one deployment and for four, what each adds, and the ratio to a whole
request of 300 us, which is about what one through the server takes. Figures of one run only compare with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from routellm.dispatch.dispatcher import Dispatcher
from routellm.dispatch.settings import DeploymentSettings, DispatchSettings, ModelSettings
from routellm.upstream.base import ModelSpec, Upstream, UpstreamReply
from routellm.upstream.demo import DemoUpstream

REQUEST_US = 300.0


class EmptyReply(UpstreamReply):
    """A good reply without a body."""

    status = 200
    headers: Mapping[str, str] = {}

    async def chunks(self) -> AsyncIterator[bytes]:
        """Nothing."""
        return
        yield b""

    async def aclose(self) -> None:
        """Nothing to close."""


async def send(upstream: Upstream) -> tuple[UpstreamReply, None]:
    """Answer at once."""
    return EmptyReply(), None


def plain(upstream: Upstream) -> Callable[[], Awaitable[None]]:
    """The call that a server without dispatching makes."""

    async def call() -> None:
        reply, _ = await send(upstream)
        try:
            pass
        finally:
            await reply.aclose()

    return call


def dispatched(upstream: Upstream, deployments: int) -> Callable[[], Awaitable[None]]:
    """The same through a dispatcher."""
    models = {"m": ModelSettings(deployments=tuple(DeploymentSettings() for _ in range(deployments)))}
    dispatcher = Dispatcher({"m": [upstream] * deployments}, DispatchSettings(models=models))

    async def call() -> None:
        async with await dispatcher.dispatch("m", (), send):
            pass

    return call


async def measure(calls: Mapping[str, Callable[[], Awaitable[None]]], rounds: int, count: int = 5_000) -> dict[str, float]:
    """Median over interleaved rounds of the CPU time of each call, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time_ns()
            for _ in range(count):
                await call()
            times[name].append((time.process_time_ns() - start) / count / 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    upstream = DemoUpstream(ModelSpec("demo/strong"), {})
    calls = {"plain": plain(upstream), "one": dispatched(upstream, 1), "four": dispatched(upstream, 4)}
    times = asyncio.run(measure(calls, arguments.rounds))
    figures = {f"{name}_us": spent for name, spent in times.items()}
    for name in ("one", "four"):
        added = times[name] - times["plain"]
        figures |= {f"{name}_added_us": added, f"{name}_of_a_request": added / REQUEST_US}
    for name, figure in figures.items():
        print(f"{name:20s} {figure:10.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"python": sys.version.split()[0], **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
