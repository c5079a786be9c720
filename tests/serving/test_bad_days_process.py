"""Bad days of the whole process: signals under load, large replies, thousands of connections, and keys that must not show."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from routellm.openai_server import main
from tests.live import DIE, PATIENCE, STALL, Gate, LiveServer, Recorded, Reply, answer_chat, event
from tests.serving.raw import Seen, ask, connect, exchange, request_bytes, statuses
from tests.serving.running import chat_body
from tests.serving.test_process import started, stop, workers_of

FIELDS = {**chat_body("router-random"), "max_tokens": 5}
BODY = json.dumps(FIELDS).encode()
CHUNK = event({"id": "c", "choices": [{"index": 0, "delta": {"content": "one"}}]})
PIECE = os.urandom(65_536)
LARGE = 200 * 1024 * 1024


def models_at(live: LiveServer) -> list[str]:
    return ["--strong-model", "openai/big", "--weak-model", "openai/small", "--base-url", live.base_url]


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def get(port: int, path: str) -> str:
    """All of the reply, its head too."""
    return exchange(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()).decode()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.01)


class Load:
    """Clients that ask one request after another, each over a connection that it keeps for as long as it can."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self.ended: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(PATIENCE)
            assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def wait_for_refusals(self) -> None:
        """Return once every client was refused, and gave up."""
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while not self._stop.is_set():
            outcome = self._one(connection)
            self.ended[outcome] += 1
            if outcome == "refused":
                break
        connection.close()

    def _one(self, connection: http.client.HTTPConnection) -> str:
        try:
            connection.request("POST", "/v1/chat/completions", BODY)
            response = connection.getresponse()
        except ConnectionRefusedError:
            return "refused"
        except (http.client.RemoteDisconnected, ConnectionError):
            connection.close()
            return "closed"
        try:
            whole = "choices" in json.loads(response.read())
            return "answered" if response.status == 200 and whole else f"status {response.status}"
        except (http.client.IncompleteRead, ConnectionError):
            connection.close()
            return "cut"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_answers_whole_what_reached_a_model_and_refuses_the_rest(live: LiveServer, workers: str) -> None:
    gate = Gate()

    def answer(recorded: Recorded) -> Reply:
        reply = answer_chat(recorded)
        held = len(live.requests) > 150
        return Reply([gate, *reply.steps], headers=reply.headers) if held else reply

    live.answer = answer
    with started(*models_at(live), "--workers", workers) as (process, url, _):
        load = Load(port_of(url), clients=16)
        with load.running():
            live.wait_for_request(165)  # from 150 on each of the clients waits for an answer
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(port_of(url)), "the server to take no new connections")
            assert process.poll() is None
            gate.open()
            load.wait_for_refusals()
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert set(load.ended) <= {"answered", "closed", "refused"}
    assert load.ended["answered"] == len(live.requests)
    assert load.ended["refused"] == 16
    assert "Traceback" not in out + err


def test_sigterm_at_any_moment_leaves_no_request_that_reached_a_model_without_its_answer(live: LiveServer) -> None:
    with started(*models_at(live)) as (process, url, _):
        load = Load(port_of(url), clients=8)
        with load.running():
            live.wait_for_request(200)
            code, rest = stop(process)
            load.wait_for_refusals()
    assert code == 0
    assert set(load.ended) <= {"answered", "closed", "refused"}
    assert load.ended["answered"] == len(live.requests)
    assert "Traceback" not in rest


def refuses(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return True
    return False


def test_kill_9_of_one_of_two_workers_costs_its_own_requests_only(live: LiveServer) -> None:
    with started(*models_at(live), "--workers", "2") as (process, url, _):
        wait_until(lambda: len(workers_of(process)) == 2, "two workers")
        load = Load(port_of(url), clients=12)
        with load.running():
            live.wait_for_request(100)
            first, second = workers_of(process)
            os.kill(int(first.name), signal.SIGKILL)
            asked = len(live.requests)
            live.wait_for_request(asked + 200)
            wait_until(lambda: len(set(workers_of(process)) - {first, second}) == 1, "another worker")
            asked = len(live.requests)
            live.wait_for_request(asked + 100)
        assert second in workers_of(process)
        assert set(load.ended) <= {"answered", "closed", "cut"}
        assert load.ended["closed"] + load.ended["cut"] <= 12  # each client's connection, at most once
        assert load.ended["answered"] >= 400
        code, rest = stop(process)
    assert code == 0
    assert "Traceback" not in rest


def memory_of(process: Any) -> int:
    """Bytes that the process has taken at most."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize("told", [True, False], ids=["length", "chunks"])
def test_a_reply_of_200_mb_to_a_slow_reader_arrives_whole_and_takes_no_memory(live: LiveServer, told: bool) -> None:
    headers = {"content-type": "application/json", **({"content-length": str(LARGE)} if told else {})}
    live.replies = [Reply([PIECE] * (LARGE // len(PIECE)), headers=headers)]
    with started(*models_at(live)) as (process, url, _):
        get(port_of(url), "/health")
        before = memory_of(process)
        connection = http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=PATIENCE)
        connection.request("POST", "/v1/chat/completions", BODY)
        response = connection.getresponse()
        time.sleep(0.3)  # a reader that does not read holds the upstream back
        assert not live.wait_for_request().done.is_set()
        hashed, wanted = hashlib.sha256(), hashlib.sha256()
        while piece := response.read(1 << 20):
            hashed.update(piece)
        connection.close()
        for _ in range(LARGE // len(PIECE)):
            wanted.update(PIECE)
        assert hashed.digest() == wanted.digest()
        assert memory_of(process) - before < 25 << 20


def test_what_must_be_read_to_be_translated_is_bounded_too(live: LiveServer) -> None:
    flood = event({"id": "c", "choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]})
    live.replies = [
        Reply([PIECE] * (LARGE // len(PIECE)), headers={"content-type": "application/json"}),  # no end to a whole reply
        Reply.sse(*[b"data: " + b"x" * 65_536] * 4_000),  # nor to an event
        Reply.sse(*[flood] * 2_000),
    ]
    with started(*models_at(live)) as (process, url, _):
        get(port_of(url), "/health")
        before = memory_of(process)
        seen = ask(port_of(url), FIELDS, "/v1/messages")
        assert (seen.status, seen.json["error"]["type"]) == (502, "api_error")
        assert "too large" in seen.json["error"]["message"]
        assert b"event: error\n" in ask(port_of(url), {**FIELDS, "stream": True}, "/v1/messages").body
        assert [each.gone.wait(PATIENCE) for each in live.requests] == [True, True]
        with connect(port_of(url)) as slow:
            slow.sendall(request_bytes(json.dumps({**FIELDS, "stream": True}).encode(), path="/v1/messages"))
            held = live.wait_for_request(2)
            time.sleep(0.3)
            assert not held.done.is_set()
        assert held.gone.wait(PATIENCE)
        assert memory_of(process) - before < 120 << 20


def test_two_thousand_connections_that_say_nothing_or_half_a_word_keep_nobody_out(live: LiveServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3_000:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3_000) if soft != resource.RLIM_INFINITY else soft, hard))
    idle: list[socket.socket] = []
    try:
        with started(*models_at(live)) as (process, url, _):
            port = port_of(url)
            for number in range(2_000):
                idle.append(connect(port))
                if number % 2:
                    idle[-1].sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le")
            for _ in range(10):
                assert ask(port, FIELDS).status == 200
            assert statuses(exchange(port, request_bytes(BODY, b"Connection: close"))) == [200]
            code, rest = stop(process)
        assert code == 0
        assert "Traceback" not in rest
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


PLANTED = tuple(f"sk-planted-{where}" for where in ("on-the-command-line", "in-the-environment", "in-the-file", "by-its-name"))
FILE = """
gateway:
  retries: {count: 0}
  breaker: {failures: 0}
  models:
    openai/big:
      timeouts: {first_byte_seconds: 0.3, idle_seconds: 0.3}
      deployments:
        - {}
        - {base_url: "BASE", api_key: sk-planted-in-the-file}
        - {base_url: "BASE", api_key_env: A_KEY}
"""


def echo(recorded: Recorded) -> Reply:
    """Each kind of reply in turn; an error repeats the key that came."""
    key = recorded.headers["authorization"].removeprefix("Bearer ")
    kind = recorded.json["messages"][0]["content"]
    error = {"error": {"message": f"Incorrect API key provided: {key}.", "type": "invalid_request_error"}}
    return {
        "whole": Reply.json({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
        "refused": Reply.json(error, status=401, headers={"www-authenticate": f"Bearer error={key}"}),
        "failed": Reply.json(error, status=500),
        "cut": Reply([DIE]),
        "broken": Reply.sse(CHUNK, DIE),
        "silent": Reply([STALL]),
    }[kind]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_planted_key_shows_nowhere(live: LiveServer, tmp_path: Path, log_format: str) -> None:
    live.answer = echo
    config = tmp_path / "config.yaml"
    config.write_text(FILE.replace("BASE", live.base_url))
    weak = ["--weak-model", "groq/small", "--weak-base-url", live.base_url]
    strong = ["--strong-model", "openai/big", "--strong-base-url", live.base_url, "--strong-api-key", PLANTED[0]]
    environ = {"GROQ_API_KEY": PLANTED[1], "A_KEY": PLANTED[3]}
    said: list[str] = []
    arguments = [*strong, *weak, "--config", str(config), "--verbose", "--log-format", log_format]
    with started(*arguments, environ=environ) as (process, url, lines):
        said += lines
        for kind in ("whole", "refused", "failed", "cut", "broken", "silent"):
            for model in ("openai/big", "openai/big", "openai/big", "openai/big", "groq/small"):
                for path in ("/v1/chat/completions", "/v1/messages"):
                    if kind == "silent" and model != "openai/big":
                        continue  # which has no short time limit
                    said += told_by(ask(port_of(url), {**chat_body(model, kind), "max_tokens": 5}, path))
        for page in ("", "metrics", "openapi.json", "v1/models", "health/ready", "nowhere"):
            said.append(get(port_of(url), f"/{page}"))
        config.write_text(FILE.replace("BASE", live.base_url).replace("api_key: sk", "api_key: 'sk"))
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.3)
        _, rest = stop(process)
    assert "can't be used" in rest
    said.append(rest)
    sent = {recorded.headers["authorization"] for recorded in live.requests}
    assert sent == {f"Bearer {key}" for key in PLANTED}
    assert len(said) > 100
    assert [text for text in said if any(key in text for key in PLANTED)] == []


def told_by(seen: Seen) -> list[str]:
    return [str(seen.headers), seen.body.decode()]


@pytest.mark.parametrize(
    "deployment",
    [
        '{api_key: "sk-planted}',
        "{api_key: sk-planted: x}",
        "{api_key: !!python/object sk-planted}",
        "{api_key: [sk-planted]}",
        "{api_key_env: sk-planted}",
        "{api_key_env: sk_planted}",
        '{base_url: "https://sk-planted@example.com/v1"}',
        "{api_key: sk-planted, api_key_env: A_KEY}",
        "{api_key: sk-planted\u00e9, base_url: 'http://x/v1'}",
    ],
)
def test_a_wrong_configuration_does_not_show_the_key_in_it(
    tmp_path: Path, deployment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"gateway:\n  models:\n    openai/big:\n      deployments: [{deployment}]\n", encoding="utf-8")
    models = ["--strong-model", "openai/big", "--weak-model", "demo/small", "--strong-base-url", "http://127.0.0.1:1/v1"]
    code = main(["--routers", "random", "--port", "0", "--config", str(config), *models])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "planted" not in err
