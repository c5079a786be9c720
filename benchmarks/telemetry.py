"""What metrics, logs and traces cost a request.

    python benchmarks/telemetry.py [--rounds 7] [--json FILE]

Prints microseconds a finished request (medians over interleaved rounds, processor time), and milliseconds that `GET /metrics`
takes with as many rows as a busy server has. `library` is what prometheus_client takes for the same counts, `library_shared`
in its own mode for several processes. Figures of one run only compare with each other.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from routellm.telemetry.families import DECISION_SECONDS, MODEL_SECONDS, OWN_SECONDS, WIN_RATES
from routellm.telemetry.logs import JsonFormatter, RequestLine
from routellm.telemetry.metrics import Gauges, Metrics
from routellm.types import RequestRecord, Usage

CALLS = 5_000
RECORD = RequestRecord(
    request_id="req-0123456789",
    at=1_700_000_000.25,
    api="chat",
    asked="router-mf-0.5",
    outcome="answered",
    status=200,
    model="openai/big",
    reason="threshold",
    router="mf",
    threshold=0.5,
    win_rate=0.62,
    decision_us=120.0,
    attempts=1,
    own_ms=0.4,
    upstream_ms=800.0,
    first_byte_ms=300.0,
    usage=Usage(input_tokens=10, output_tokens=20),
)
PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def microseconds(call: Callable[[], object]) -> float:
    """Processor time of one of many calls."""
    start = time.process_time_ns()
    for _ in range(CALLS):
        call()
    return (time.process_time_ns() - start) / CALLS / 1e3


def library() -> Callable[[], None]:
    """The same counts with prometheus_client, label values looked up once."""
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()

    def counter(name: str, **labels: str) -> Counter:
        return Counter(name, name, tuple(labels), registry=registry).labels(*labels.values())

    def histogram(name: str, buckets: tuple[float, ...], **labels: str) -> Histogram:
        return Histogram(name, name, tuple(labels), registry=registry, buckets=buckets).labels(*labels.values())

    ones = [counter("requests", api="chat", model="big", code="200"), counter("decisions", router="mf", model="big")]
    tokens = [counter(f"tokens_{kind}", model="big") for kind in ("input", "cached", "output")]
    calls = [counter("calls", model="big"), counter("retries", model="big")]
    seconds = [histogram(name, MODEL_SECONDS, model="big") for name in ("upstream", "whole", "first_byte")]
    rate, decision = histogram("rate", WIN_RATES, router="mf"), histogram("decision", DECISION_SECONDS, router="mf")
    own = histogram("own", OWN_SECONDS, api="chat")

    def observe() -> None:
        for one in (*ones, *tokens, *calls):
            one.inc(1)
        for histogram_of_seconds in seconds:
            histogram_of_seconds.observe(0.8)
        rate.observe(0.62)
        decision.observe(120e-6)
        own.observe(4e-4)

    return observe


def library_shared() -> float:
    """The same in the library's mode for several processes, which it takes from the environment when it is imported."""
    code = "from benchmarks.telemetry import library, microseconds; print(microseconds(library()))"
    with tempfile.TemporaryDirectory() as directory:
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": directory}
        root = Path(__file__).parent.parent
        return float(
            subprocess.run([sys.executable, "-c", code], cwd=root, env=environ, capture_output=True, check=True).stdout
        )


def spans(ratio: float) -> Callable[[], None]:
    """A span for each request, sampled by `ratio` and thrown away."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    from routellm.telemetry.traces import Traces

    traces = Traces(TracerProvider(sampler=TraceIdRatioBased(ratio), shutdown_on_exit=False))
    return lambda: traces.observe(RECORD, PARENT)


def fill(metrics: Metrics) -> None:
    """As many rows as a busy server has: every API, model, router and a few statuses."""
    for number in range(5 * 4 * 8):
        api, model, status = f"api-{number % 5}", f"model-{number % 4}", (200, 400, 404, 429, 499, 500, 502, 504)[number % 8]
        record = {name: getattr(RECORD, name) for name in RECORD.__slots__}
        metrics.observe(RequestRecord(**{**record, "api": api, "model": model, "status": status}), 0.1, 0.2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    roles = {"openai/big": "strong"} | {f"model-{number}": "spare" for number in range(4)}
    formatter = JsonFormatter()
    line = logging.Logger("benchmark").makeRecord("benchmark", logging.INFO, "", 1, RequestLine(RECORD), (), None)
    with tempfile.TemporaryDirectory() as directory, closing(Metrics(roles, ["mf"], Path(directory))) as shared:
        alone = Metrics(roles, ["mf"])
        full = Metrics(roles, ["mf"])
        fill(full)
        gauges = Gauges(in_flight=3, ledger_buffered=0)
        calls: dict[str, Callable[[], object]] = {
            "observe_us": lambda: alone.observe(RECORD),
            "observe_shared_us": lambda: shared.observe(RECORD),
            "observe_shared_dollars_us": lambda: shared.observe(RECORD, 0.001, 0.002),
            "library_us": library(),
            "publish_us": lambda: full.publish(gauges),
            "json_line_us": lambda: formatter.format(line),
            "span_us": spans(1.0),
            "span_not_sampled_us": spans(0.0),
        }
        rounds = [{name: microseconds(call) for name, call in calls.items()} for _ in range(arguments.rounds)]
        figures = {name: statistics.median(figure[name] for figure in rounds) for name in calls}
        figures["library_shared_us"] = statistics.median(library_shared() for _ in range(3))
        start = time.process_time_ns()
        for _ in range(20):
            body = full.render()[1]
        figures["render_ms"] = (time.process_time_ns() - start) / 20 / 1e6
        figures["render_lines"] = body.count(b"\n")
    for name, figure in figures.items():
        print(f"{name:28s} {figure:10.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"python": sys.version.split()[0], **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
