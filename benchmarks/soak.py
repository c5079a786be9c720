"""A steady load through the server while its upstream misbehaves: is every request accounted for?

    python benchmarks/soak.py                         ten minutes at 40 requests a second
    python benchmarks/soak.py --minutes 1 --rate 20   a short one

The upstream draws a fault for a share of the requests, by a seeded generator: 429 with and without Retry-After, 500, resets
before the reply, within its headers and within its body, garbage for HTTP, a Content-Length that is too long, silence, and a
trickle; and now and then it listens to nobody for some seconds. Clients ask for whole replies and for streams, and some leave
in the middle.

Every request must end in one of three ways: a whole and right answer, an error that says in OpenAI's form what happened (as a
status, as an event of the stream, or as a cut of a reply that had begun, which no client takes for a whole one), or the
client's own leaving. Whatever else is a failure of this test, and makes it exit with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

PATIENCE = 30.0
ANSWER = "All is well. " * 8
FAULTS = {
    "429 Retry-After": 3, "429": 2, "500": 3, "503": 2, "reset": 2, "reset in headers": 1, "reset in body": 2, "garbage": 1,
    "too long a Content-Length": 1, "silence": 1, "trickle": 1,
}  # fmt: skip
"""Fault -> how many of 100 requests meet it."""

CONFIG = """
random: {seed: 1}
gateway:
  fallback: both
  retries: {count: 1, without_retry_after: true}
  models:
    openai/big: {timeouts: {first_byte_seconds: 2, idle_seconds: 2, total_seconds: 10}}
    openai/small: {timeouts: {first_byte_seconds: 2, idle_seconds: 2, total_seconds: 10}}
"""


# --- an upstream that misbehaves -----------------------------------------------------------------------------------------


class Upstream:
    """Answers, or does what the dice say; counts what it did."""

    def __init__(self, seed: int, faults: float) -> None:
        self._dice = random.Random(seed)
        self._faults = faults
        self.did: Counter[str] = Counter()

    async def start(self, port: int = 0) -> int:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        self.port: int = self._runner.addresses[0][1]
        return self.port

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def gone_for(self, seconds: float) -> None:
        """Refuse connections for a while."""
        await self.stop()
        await asyncio.sleep(seconds)
        await self.start(self.port)

    def _draw(self) -> str:
        drawn = self._dice.random() * 100
        for name, share in FAULTS.items():
            drawn -= share * self._faults
            if drawn < 0:
                return name
        return "answer"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if request.transport is None:  # its client has left
            return web.Response()
        fault = self._draw()
        self.did[fault] += 1
        if fault[:3] in ("429", "500", "503"):
            headers = {"retry-after": "1"} if "Retry-After" in fault else {}
            return web.json_response(error("not now", "upstream"), status=int(fault[:3]), headers=headers)
        if fault in ("reset", "garbage", "reset in headers"):
            what = {"reset": b"", "garbage": b"\x00\xff nonsense\r\n\r\n", "reset in headers": b"HTTP/1.1 200 OK\r\ncontent-"}
            if what[fault]:
                request.transport.write(what[fault])
                await asyncio.sleep(0.01)
            request.transport.abort()
            return web.Response()
        if fault == "silence":
            await asyncio.sleep(PATIENCE)
        if not asked.get("stream"):
            return await self._whole(request, fault)
        return await self._stream(request, fault)

    async def _whole(self, request: web.Request, fault: str) -> web.StreamResponse:
        body = json.dumps(completion(ANSWER)).encode()
        longer = 10 if fault == "too long a Content-Length" else 0
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(body) + longer)})
        await response.prepare(request)
        assert request.transport is not None
        if fault == "reset in body":
            await response.write(body[:40])
            request.transport.abort()
        elif fault == "trickle":
            for place in range(len(body)):
                await response.write(body[place : place + 1])
                await asyncio.sleep(0.5)
        else:
            await response.write(body)
            if longer:
                request.transport.close()
        return response

    async def _stream(self, request: web.Request, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, word in enumerate(ANSWER.split(" ")):
            await response.write(event(chunk(word if number == 0 else f" {word}")))
            if number == 3 and fault in ("reset in body", "too long a Content-Length"):
                assert request.transport is not None
                request.transport.abort()
                return response
            await asyncio.sleep(5.0 if fault == "trickle" else 0.002)
        await response.write(event(chunk("", "stop")) + b"data: [DONE]\n\n")
        return response


def completion(text: str) -> dict[str, Any]:
    """A chat completion that says `text`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 24, "total_tokens": 29}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def chunk(text: str, reason: str | None = None) -> dict[str, Any]:
    """A piece of a streamed one."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def event(value: Any) -> bytes:
    """`value` as one event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def error(message: str, code: str) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


# --- clients -------------------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What became of the requests."""

    sent: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)


async def one(session: aiohttp.ClientSession, url: str, account: Account, dice: random.Random) -> None:
    """One request, and how it ended."""
    account.sent += 1
    streamed, leaves = dice.random() < 0.5, dice.random() < 0.02
    body = {
        "model": "router-random-0.5",
        "messages": [{"role": "user", "content": f"Request {account.sent}"}],
        "stream": streamed,
    }
    started = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE), session.post(url, json=body) as response:
            if leaves:
                await asyncio.sleep(0.005)
                account.ended["client left"] += 1
                return
            outcome = judge(response.status, streamed, await response.read())
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
        outcome = "reply cut"
    except TimeoutError:
        outcome = f"UNACCOUNTED: no end within {PATIENCE:g} s"
    except aiohttp.ClientError as problem:
        outcome = f"UNACCOUNTED: {problem!r}"
    account.ended[outcome.partition(":")[0]] += 1
    if outcome == "answered":
        account.seconds.append(time.perf_counter() - started)
    elif outcome.startswith("UNACCOUNTED"):
        account.unaccounted.append(outcome)


def judge(status: int, streamed: bool, body: bytes) -> str:
    """In which of the allowed ways a reply ended."""
    try:
        if status != 200:
            told = json.loads(body)["error"]
            return f"error {status} {told['code'] or told['type']}"
        if not streamed:
            right = json.loads(body)["choices"][0]["message"]["content"] == ANSWER
            return "answered" if right else f"UNACCOUNTED: another text: {body[:200]!r}"
        events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    except (ValueError, KeyError, TypeError):
        return f"UNACCOUNTED: status {status}: {body[:200]!r}"
    if events and "error" in events[-1]:
        return f"error in stream {events[-1]['error']['code']}"
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in events)
    whole = text == ANSWER and body.endswith(b"data: [DONE]\n\n")
    return "answered" if whole else f"UNACCOUNTED: a stream that ended early without a word: {body[-200:]!r}"


# --- the run -------------------------------------------------------------------------------------------------------------


async def run(args: argparse.Namespace) -> int:
    """The whole soak; the exit code."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # which complains of each cut that was meant
    upstream = Upstream(args.seed, args.faults)
    await upstream.start()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG)
        port = free_port()
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "routellm.openai_server", "--routers", "random", "--port", str(port)),
            *("--config", str(config), "--workers", str(args.workers)),
            *("--base-url", f"http://127.0.0.1:{upstream.port}/v1"),
            *("--strong-model", "openai/big", "--weak-model", "openai/small"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        log = asyncio.create_task(lines_of(server))
        account = Account()
        try:
            await listening(port)
            before = resident(server.pid)
            await load(f"http://127.0.0.1:{port}/v1/chat/completions", args, account, upstream)
            after = resident(server.pid)
        finally:
            if server.returncode is None:
                server.send_signal(signal.SIGTERM)
            code = await server.wait()
            await upstream.stop()
        report(args, account, upstream, (before, after), code, await log)
    return 1 if account.unaccounted or code or account.sent != sum(account.ended.values()) else 0


async def load(url: str, args: argparse.Namespace, account: Account, upstream: Upstream) -> None:
    """Requests at a steady rate, whether or not those before are answered."""
    dice = random.Random(args.seed + 1)
    started = time.monotonic()
    outage = started + 20
    tasks: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for number in range(int(args.rate * args.minutes * 60)):
            await asyncio.sleep(max(0.0, started + number / args.rate - time.monotonic()))
            if time.monotonic() > outage and args.faults:
                outage = time.monotonic() + 60
                tasks.add(asyncio.create_task(upstream.gone_for(3)))
            tasks.add(asyncio.create_task(one(session, url, account, dice)))
            tasks = {task for task in tasks if not task.done()}
        await asyncio.gather(*tasks)


async def lines_of(server: asyncio.subprocess.Process) -> list[str]:
    """What the server logged."""
    assert server.stderr is not None
    return [line.decode() async for line in server.stderr]


async def listening(port: int) -> None:
    """Return once the server takes connections."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the server did not start")


def report(
    args: argparse.Namespace, account: Account, upstream: Upstream, memory: tuple[int, int], code: int, log: list[str]
) -> None:
    """Print what happened."""
    print(
        f"{account.sent:,} requests in {args.minutes:g} min at {args.rate:g}/s, {args.workers} worker(s), seed {args.seed}\n"
    )
    print("the upstream:  " + ", ".join(f"{name} {count:,}" for name, count in upstream.did.most_common()))
    print("the clients:   " + ", ".join(f"{name} {count:,}" for name, count in account.ended.most_common()))
    if len(account.seconds) > 1:
        cuts = statistics.quantiles(account.seconds, n=100)
        print(f"answered:      p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms")
    print(f"the server:    resident {memory[0] / 2**20:.0f} MB before, {memory[1] / 2**20:.0f} MB after; exit code {code}")
    traces = sum("Traceback" in line for line in log)
    print(f"its log:       {len(log):,} lines, {traces} stack traces")
    print(f"unaccounted:   {len(account.unaccounted)}")
    for line in account.unaccounted[:10]:
        print("   " + line)


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    found = 0
    for each in [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]:
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                found += int(line.split()[1]) * 1024
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--faults", type=float, default=1.0, help="times the usual share of faults; 0 for none")
    parser.add_argument("--seed", type=int, default=1)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(main())
