"""What the gateway benchmark starts and measures, each in a process of its own: mocks, proxies, and the server itself.

Run with a role (`python -m benchmarks.gateway_targets bare PORT UPSTREAM`), this file is one of those processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 30.0
PATH = "/v1/chat/completions"
CHUNKS = 200
"""Events of one mock stream."""
CHUNK_SECONDS = 0.01
"""From one event to the next, so that none is merged with another on its way."""

ANSWER = json.dumps(
    {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "At noon."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 70, "completion_tokens": 3, "total_tokens": 73},
    }
)
DELTA = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "small"}
EVENT = (
    b"data: %s\n\n"
    % json.dumps({**DELTA, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}).encode()
)
LAST = b"data: [DONE]\n\n"


# --- processes ----------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """Something that answers at `url`: a process, and its children."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time that its processes have used, by the operating system's accounts."""
        spent = 0
        for pid in _tree(self.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
        return spent / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Resident memory of its processes in MB (10^6 bytes)."""
        kilobytes = 0
        for pid in _tree(self.pid):
            found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            kilobytes += int(found[1]) if found else 0
        return kilobytes * 1024 / 1e6


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _tree(int(child))
    return found


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    core: int | None,
    environ: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
) -> Iterator[Target]:
    """Start `command`, pinned to `core` (None: anywhere); wait until it answers; end it by its own process id."""
    command = list(command) if core is None else ["taskset", "-c", str(core), *command]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ, cwd=folder)
    try:
        target = Target(name, f"http://127.0.0.1:{port}", process.pid)
        _wait_for_answer(target, process)
        yield target
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_answer(target: Target, process: subprocess.Popen[bytes]) -> None:
    """Any answer will do: the load checks what it gets."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", urlsplit(target.url).port or 80), PATIENCE) as connection:
                connection.sendall(http_request(target.url, b"{}"))
                if connection.recv(16).startswith(b"HTTP/1.1 "):
                    return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{target.name} does not answer (exit code {process.poll()})")


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def http_request(url: str, body: bytes) -> bytes:
    """The bytes of the benchmark's POST."""
    host = urlsplit(url).netloc.encode()
    return (
        b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-client\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (PATH.encode(), host, len(body), body)
    )


# --- commands -----------------------------------------------------------------------------------------------------------


def bare_command(port: int, upstream: str) -> list[str]:
    """uvicorn and aiohttp with nothing between them."""
    return [sys.executable, __file__, "bare", str(port), upstream]


def stream_mock_command(port: int) -> list[str]:
    """A mock upstream that streams."""
    return [sys.executable, __file__, "stream-mock", str(port)]


def server_command(port: int, upstream: str, routers: Sequence[str], *more: str) -> list[str]:
    """The server under test."""
    models = ["--strong-model", "openai/big", "--weak-model", "openai/small", "--base-url", upstream + "/v1"]
    return [sys.executable, "-m", "routellm.openai_server", "--routers", *routers, "--port", str(port), *models, *more]


_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d;
  scgi_temp_path {folder}/e; client_body_buffer_size 1m;
  {content}
}}
"""
_NGINX_MOCK = (
    "server {{ listen 127.0.0.1:{port} backlog=2048; location / {{ default_type application/json; return 200 '{answer}'; }} }}"
)
_NGINX_PROXY = """
  upstream mock {{ server {host}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=2048; location / {{
    proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}
"""


def nginx_command(folder: Path, port: int, upstream: str | None) -> list[str]:
    """nginx as a proxy before `upstream`, or as the mock upstream itself."""
    if upstream is None:
        content = _NGINX_MOCK.format(port=port, answer=ANSWER)
    else:
        content = _NGINX_PROXY.format(port=port, host=urlsplit(upstream).netloc)
    own = folder / f"nginx-{port}"
    own.mkdir()
    file = own / "nginx.conf"
    file.write_text(_NGINX.format(folder=own, content=content))
    return ["nginx", "-c", str(file), "-e", "stderr"]


_SWITCHYARD = """
schema_version = 1
[llm_clients.mock]
format = "openai_chat"
base_url = "{upstream}/v1"
api_key_env = "MOCK_KEY"
[targets.capable]
id = "big"
llm_client = "mock"
[targets.efficient]
id = "small"
llm_client = "mock"
[routes.any]
id = "router-{router}-0.5"
type = "stage_router"
capable_target = "capable"
efficient_target = "efficient"
picker = "efficient_first"
confidence_threshold = 0.5
"""
_RUN_SWITCHYARD = """
import sys, time
from switchyard_rust.server import Server
server = Server(sys.argv[1], int(sys.argv[2]))
while True: time.sleep(3600)
"""
SWITCHYARD_ENVIRON = {"MOCK_KEY": "sk-mock-upstream-key", "RUST_LOG": "error"}


def switchyard_command(python: str, folder: Path, port: int, upstream: str, router: str) -> list[str]:
    """NVIDIA Switchyard; `python` is that of an environment which has it."""
    file = folder / f"switchyard-{port}.toml"
    file.write_text(_SWITCHYARD.format(upstream=upstream, router=router))
    return [python, "-c", _RUN_SWITCHYARD, str(file), str(port)]


# --- roles --------------------------------------------------------------------------------------------------------------


class StreamMock(asyncio.Protocol):
    """Answers every request with `CHUNKS` events, one every `CHUNK_SECONDS`; looks at nothing but where requests end."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    FRAME = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._waiting = b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        head = self._waiting.find(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", self._waiting[:head], re.IGNORECASE) if head >= 0 else None
        if length is not None and len(self._waiting) >= head + 4 + int(length[1]):
            self._waiting = self._waiting[head + 4 + int(length[1]) :]
            self._transport.write(self.HEAD)
            self._next(0, asyncio.get_running_loop().time())

    def _next(self, sent: int, due: float) -> None:
        if self._transport.is_closing():
            return
        if sent == CHUNKS:
            self._transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LAST), LAST))
            return
        self._transport.write(self.FRAME)
        due += CHUNK_SECONDS
        asyncio.get_running_loop().call_at(due, self._next, sent + 1, due)


def run_stream_mock(port: int) -> None:
    """Serve `StreamMock` until killed."""
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(StreamMock, "127.0.0.1", port, backlog=2048)
        await server.serve_forever()

    uvloop.run(serve())


_DROPPED_UP = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding", b"authorization"})
_DROPPED_BACK = frozenset({b"connection", b"transfer-encoding", b"keep-alive"})


def run_bare_proxy(port: int, upstream: str) -> None:
    """A proxy of the server's parts, configured as the server is, that decides nothing: headers and bodies as they come."""
    import gc

    import aiohttp
    import uvicorn
    from yarl import URL

    session: aiohttp.ClientSession | None = None
    url = URL(upstream + PATH)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                timeout=aiohttp.ClientTimeout(connect=10, sock_read=600),
            )
        body = b""
        more = True
        while more:
            event = await receive()
            body += event["body"]
            more = event["more_body"]
        sent = {name.decode(): value.decode() for name, value in scope["headers"] if name not in _DROPPED_UP}
        sent["authorization"] = "Bearer sk-mock-upstream-key"
        async with session.post(url, data=body, headers=sent) as reply:
            headers = [(name.lower(), value) for name, value in reply.raw_headers]
            headers = [header for header in headers if header[0] not in _DROPPED_BACK]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for chunk in reply.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    config = uvicorn.Config(
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
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        run_bare_proxy(int(sys.argv[2]), sys.argv[3])
    else:
        run_stream_mock(int(sys.argv[2]))
