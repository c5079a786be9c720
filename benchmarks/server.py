"""What the server costs a request, beside a direct call and beside a proxy of the same parts that decides nothing.

    python benchmarks/server.py             about two minutes
    python benchmarks/server.py --quick     about half a minute, for a look

Three targets answer the same request: the mock upstream itself ("direct"), uvicorn with aiohttp that forwards it untouched
("bare proxy"), and `routellm.openai_server`. They take turns within each round, and each figure is the median of the rounds.

CPU time comes from the operating system's accounting of the server's process, and is the figure to trust: latencies depend on
what else the machine does. Where there are two cores, the target has one to itself, and the upstream and the load share the
other. The load is `wrk` where that is installed, else a slower client in Python.

Caveats: everything is on loopback and without TLS; the upstream answers at once, which no model does; one short request, one
short answer, no streams; and the bare proxy was written for this comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = (1, 16, 64)
PATIENCE = 30.0
PATH = "/v1/chat/completions"
PROMPT = (
    "A train leaves the station at nine in the morning and travels north at eighty kilometres an hour, while another train "
    "leaves a town four hundred kilometres further north at half past nine and travels south at one hundred kilometres an "
    "hour. At what time do the two trains meet, and how far from the first station are they then? Explain each step."
)
ANSWER = json.dumps(
    {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "At noon."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 70, "completion_tokens": 3, "total_tokens": 73},
    }
).encode()


# --- the mock upstream and the bare proxy, each in a process of its own -------------------------------------------------


class MockUpstream(asyncio.Protocol):
    """Answers every request with the same bytes, and looks at nothing but where the request ends."""

    REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._waiting = b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while True:
            head = self._waiting.find(b"\r\n\r\n")
            if head < 0:
                return
            length = re.search(rb"content-length: *(\d+)", self._waiting[:head], re.IGNORECASE)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._waiting) < end:
                return
            self._waiting = self._waiting[end:]
            self._transport.write(self.REPLY)


def run_upstream(port: int) -> None:
    """Serve `MockUpstream` until killed."""
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(MockUpstream, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def run_bare_proxy(port: int, upstream: str) -> None:
    """uvicorn and aiohttp, configured as the server is, with nothing between them."""
    import aiohttp
    import uvicorn

    session: aiohttp.ClientSession | None = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if session is None:
            connector = aiohttp.TCPConnector(limit=0)
            session = aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        body = b""
        more = True
        while more:
            event = await receive()
            body += event["body"]
            more = event["more_body"]
        async with session.post(upstream, data=body, headers={"content-type": "application/json"}) as reply:
            headers = [(b"content-type", reply.headers["content-type"].encode())]
            headers.append((b"content-length", reply.headers["content-length"].encode()))
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for chunk in reply.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    uvicorn.run(
        app,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )


# --- processes ----------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """A process that answers at `url`."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time that the process has used, by the operating system's accounts."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024 / 1e6


@contextmanager
def running(name: str, command: list[str], port: int, core: int | None) -> Iterator[Target]:
    """Start `command`, pinned to `core`; wait until it answers; end it by its own process id."""
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=pin)
    try:
        target = Target(name, f"http://127.0.0.1:{port}", process.pid)
        wait_for_answer(target.url, process)
        yield target
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    """Send the benchmark's request until it is answered."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", urlsplit(url).port or 80), PATIENCE) as connection:
                connection.sendall(http_request(url, BODY))
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
                raise SystemExit(f"{url} answers with an error")
        except OSError:
            time.sleep(0.005)
    raise SystemExit(f"{url} does not answer (exit code {process.poll()})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


BODY = b""


def http_request(url: str, body: bytes) -> bytes:
    return (
        b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-client\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (PATH.encode(), urlsplit(url).netloc.encode(), len(body), body)
    )


# --- load ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What one run of load saw. Latencies are microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float


WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-client"
wrk.body = [==[%s]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def load_with_wrk(url: str, connections: int, seconds: int, script: str, core: int | None) -> Load:
    """Load by wrk, on one thread."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url + PATH]
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE, check=True, preexec_fn=pin)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    assert found, done.stdout
    requests, duration, p50, p99, errors = map(int, found.groups())
    assert errors == 0, f"{errors} requests to {url} failed"
    return Load(requests, duration / 1e6, p50, p99)


def load_with_sockets(url: str, connections: int, seconds: int, body: bytes) -> Load:
    """Load by this process, where wrk is not installed."""
    times: list[float] = []

    async def client(end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        request = http_request(url, body)
        while time.perf_counter() < end:
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            assert head.startswith(b"HTTP/1.1 200"), head
            assert length
            await reader.readexactly(int(length[1]))
            times.append(time.perf_counter() - started)
        writer.close()
        await writer.wait_closed()

    async def all_clients() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(end) for _ in range(connections)))

    started = time.perf_counter()
    asyncio.run(all_clients())
    cuts = statistics.quantiles(times, n=100)
    return Load(len(times), time.perf_counter() - started, cuts[49] * 1e6, cuts[98] * 1e6)


# --- the benchmark ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One run: microseconds of the target's CPU time a request, of latency, and requests a second."""

    cpu: float
    p50: float
    p99: float
    rate: float


def measure(target: Target, connections: int, seconds: int, script: str | None, core: int | None) -> Row:
    """One run of load on one target."""
    before = target.cpu_seconds()
    load = (
        load_with_wrk(target.url, connections, seconds, script, core)
        if script
        else load_with_sockets(target.url, connections, seconds, BODY)
    )
    cpu = (target.cpu_seconds() - before) / load.requests * 1e6
    return Row(cpu, load.p50, load.p99, load.requests / load.seconds)


def server_command(port: int, router: str, upstream: str) -> list[str]:
    models = ["--strong-model", "openai/big", "--weak-model", "openai/small", "--base-url", upstream + "/v1"]
    return [sys.executable, "-m", "routellm.openai_server", "--routers", router, "--port", str(port), *models]


def start_times(router: str, upstream: str, core: int | None, times: int) -> list[float]:
    """Seconds from starting the server's process to its first answer to a routed request."""
    taken = []
    for _ in range(times):
        port = free_port()
        started = time.perf_counter()
        with running("routellm", server_command(port, router, upstream), port, core):
            taken.append(time.perf_counter() - started)
    return taken


def report(rows: dict[tuple[str, int], list[Row]], names: list[str]) -> str:
    """A Markdown table of medians."""
    middle = {
        key: Row(*(statistics.median(column) for column in zip(*(astuple(row) for row in runs), strict=True)))
        for key, runs in rows.items()
    }
    lines = [
        "| connections | target | CPU us/request | to bare | p50 us | p99 us | p50 over direct | requests/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for connections in CONNECTIONS:
        direct, bare = middle["direct", connections], middle["bare proxy", connections]
        for name in names:
            row = middle[name, connections]
            lines.append(
                f"| {connections} | {name} | {row.cpu:.0f} | {row.cpu / bare.cpu:.2f} | {row.p50:.0f} | {row.p99:.0f} "
                f"| {row.p50 - direct.p50:+.0f} | {row.rate:,.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--router", default="mf", help="the router to serve (default: mf)")
    arguments = parser.parse_args()
    global BODY
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": PROMPT}]
    BODY = json.dumps({"messages": messages, "model": f"router-{arguments.router}-0.5", "temperature": 0.7}).encode()
    rounds, seconds = (1, 1) if arguments.quick else (3, 3)
    cores = sorted(os.sched_getaffinity(0))
    ours, others = (cores[0], cores[1]) if len(cores) > 1 else (None, None)

    with ExitStack() as stack:
        script = None
        if shutil.which("wrk"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            script = str(folder / "post.lua")
            Path(script).write_text(WRK_SCRIPT % BODY.decode())
        here, port = [sys.executable, __file__], free_port()
        direct = stack.enter_context(running("direct", [*here, "_upstream", str(port)], port, others))
        port = free_port()
        bare_command = [*here, "_bare_proxy", str(port), direct.url + PATH]
        bare = stack.enter_context(running("bare proxy", bare_command, port, ours))
        port = free_port()
        starts = start_times(arguments.router, direct.url, ours, 1 if arguments.quick else 5)
        server = stack.enter_context(running("routellm", server_command(port, arguments.router, direct.url), port, ours))
        targets = [direct, bare, server]
        at_start = server.resident_mb()
        for target in targets:
            measure(target, 16, 1, script, others)  # to warm up; not counted
        rows: dict[tuple[str, int], list[Row]] = {}
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for target in targets:
                    row = measure(target, connections, seconds, script, others)
                    rows.setdefault((target.name, connections), []).append(row)
        print(report(rows, [target.name for target in targets]))
        print()
        print(f"router {arguments.router}; {rounds} rounds of {seconds} s; load by {'wrk' if script else 'Python'}")
        print(f"start to first routed answer: {statistics.median(starts):.2f} s (median of {len(starts)})")
        print(f"resident: {at_start:.0f} MB after the first answer, {server.resident_mb():.0f} MB after the load")


if __name__ == "__main__":
    if sys.argv[1:2] == ["_upstream"]:
        run_upstream(int(sys.argv[2]))
    elif sys.argv[1:2] == ["_bare_proxy"]:
        run_bare_proxy(int(sys.argv[2]), sys.argv[3])
    else:
        main()
