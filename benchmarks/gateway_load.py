"""What loads the gateway benchmark's targets: wrk for whole answers, clients of our own for streams and for a steady rate."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from benchmarks.example_prompts import PROMPTS
from benchmarks.gateway_targets import CHUNKS, PATH, PATIENCE, http_request


def bodies(router: str, count: int, *, words: int = 60, novel: bool = False, stream: bool = False) -> list[bytes]:
    """Requests of about `words` words, no two alike; with `novel`, each of them holds a word that no other has."""
    random = Random(7)
    made = []
    for number in range(count):
        text = ""
        while text.count(" ") < words:
            text += random.choice(PROMPTS) + " "
        text += f"zq{random.randrange(10**9):x}v {number}" if novel else str(number)
        messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}]
        body = {"messages": messages, "model": f"router-{router}-0.5", "temperature": 0.7, "stream": stream}
        made.append(json.dumps(body, separators=(",", ":")).encode())  # as official clients write it
    return made


@dataclass(frozen=True)
class Load:
    """What one run of load saw. Latencies are microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float


_WRK_SCRIPT = """
local requests, number = {}, 0
function init()
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer sk-client"
  for line in io.lines("%s") do requests[#requests + 1] = wrk.format(nil, nil, nil, line) end
end
function request()
  number = number %% #requests + 1
  return requests[number]
end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def wrk_script(folder: Path, name: str, requests: Sequence[bytes]) -> Path:
    """A script that sends `requests` in turn, over and over."""
    lines, script = folder / f"{name}.jsonl", folder / f"{name}.lua"
    lines.write_bytes(b"\n".join(requests) + b"\n")
    script.write_text(_WRK_SCRIPT % lines)
    return script


def _wrk(url: str, connections: int, seconds: int, script: Path, core: int | None) -> list[str]:
    pin = [] if core is None else ["taskset", "-c", str(core)]
    return [*pin, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url + PATH]


def load_with_wrk(url: str, connections: int, seconds: int, script: Path, core: int | None) -> Load:
    """As many requests as the target answers, on so many connections."""
    command = _wrk(url, connections, seconds, script, core)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE, check=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    requests, duration, p50, p99, errors = map(int, found.groups())
    assert errors == 0, f"{errors} requests to {url} failed"
    return Load(requests, duration / 1e6, p50, p99)


@contextmanager
def saturated(url: str, connections: int, seconds: int, script: Path, core: int | None) -> Iterator[None]:
    """Keep wrk running beside what is measured, `seconds` at the most."""
    process = subprocess.Popen(_wrk(url, connections, seconds, script, core), stdout=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        yield
        assert process.poll() is None, "the load ended too early"
    finally:
        process.terminate()
        process.wait()


class _StreamClient(asyncio.Protocol):
    """Reads one stream to its end."""

    def __init__(self, request: bytes, done: asyncio.Future[int]) -> None:
        self._request, self._done = request, done
        self._tail, self._events = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._events += data.count(b"data: ")
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n" and not self._done.done():
            self._done.set_result(self._events)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the stream was cut"))


def load_with_streams(url: str, streams: int, request_bodies: Sequence[bytes]) -> int:
    """So many streams at once, each read to its end. Returns the number of events that came."""

    async def one(body: bytes) -> int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(lambda: _StreamClient(http_request(url, body), done), "127.0.0.1", urlsplit(url).port)
        return await done

    async def every() -> int:
        return sum(await asyncio.gather(*(one(request_bodies[number % len(request_bodies)]) for number in range(streams))))

    events = asyncio.run(every())
    wanted = streams * (CHUNKS + 1)
    assert events >= wanted, f"{events} events came, {wanted} were sent"
    return wanted


def load_at_rate(url: str, a_second: int, seconds: int, request_bodies: Sequence[bytes]) -> Load:
    """Requests at set times, whether or not earlier ones were answered; latencies count from the set time."""
    times: list[float] = []

    async def client(waiting: asyncio.Queue[tuple[float, bytes] | None]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        while (item := await waiting.get()) is not None:
            due, body = item
            writer.write(http_request(url, body))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            assert head.startswith(b"HTTP/1.1 200"), head
            assert length
            await reader.readexactly(int(length[1]))
            times.append(time.perf_counter() - due)
        writer.close()

    async def every() -> None:
        waiting: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        clients = [asyncio.create_task(client(waiting)) for _ in range(32)]
        start = time.perf_counter() + 0.2
        for number in range(a_second * seconds):
            due = start + number / a_second
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            waiting.put_nowait((due, request_bodies[number % len(request_bodies)]))
        for _ in clients:
            waiting.put_nowait(None)
        await asyncio.gather(*clients)

    asyncio.run(every())
    cuts = statistics.quantiles(times, n=100)
    return Load(len(times), seconds, cuts[49] * 1e6, cuts[98] * 1e6)
