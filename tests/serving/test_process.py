"""The server as its users start it: a process of its own, from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live import PATIENCE, Gate, LiveServer, Reply, event

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "routellm.openai_server"]
KEY = "sk-planted-on-the-command-line"
BODY = json.dumps({"model": "router-random", "messages": [{"role": "user", "content": "secret prompt"}]}).encode()


@contextmanager
def started(
    *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its root URL, and the lines it printed up to the `curl` command. It is stopped at the end."""
    process = subprocess.Popen(
        [*COMMAND, "--routers", "random", "--port", "0", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if "curl" in line:
                break
        found = re.search(r"http://[^ /]+:\d+", lines[0]) if lines else None
        assert found, process.stderr.read() if process.stderr else ""
        yield process, found[0].replace("0.0.0.0", "127.0.0.1"), lines
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Exit code, and everything that the process had still to say."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out + err


def fetch(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=PATIENCE) as response:
        return json.load(response)


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_models_and_keys_the_demo_pair_answers_and_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with started() as (process, url, lines):
        assert "DEMO PAIR" in "".join(lines)
        assert fetch(url + "/v1/chat/completions", BODY)["choices"][0]["message"]["content"]
        code, rest = stop(process, number)
    assert code == 0
    assert "Traceback" not in rest
    assert "warning" not in rest


def test_the_curl_line_works_as_printed() -> None:
    with started() as (process, _, lines):
        assert process.stdout is not None
        command = "".join(
            ["".join(lines).partition("curl")[1], "".join(lines).partition("curl")[2], process.stdout.readline()]
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.stdout.startswith("HTTP/1.1 200 OK")


def test_what_the_server_says_when_it_starts(live: LiveServer) -> None:
    models = ["--strong-model", "openai/big", "--weak-model", "openai/small", "--base-url", live.base_url, "--api-key", KEY]
    with started(*models, "--host", "0.0.0.0", "--verbose", "--default-strong-share", "0.25") as (process, url, lines):
        said = "".join(lines)
        assert "http://0.0.0.0:" in lines[0]
        assert "router-random  threshold 0.75 by default, for 25% strong calls" in said
        assert "openai/big" in said
        assert "openai/small" in said
        fetch(url + "/v1/chat/completions", BODY)
        assert live.requests[0].headers["authorization"] == f"Bearer {KEY}"
        code, rest = stop(process)
    assert code == 0
    assert "open to other machines" in rest
    [line] = [line for line in rest.splitlines() if "chat: 200" in line]
    assert "reason=threshold router=random threshold=0.75 win_rate=" in line
    assert KEY not in said + rest
    assert "secret prompt" not in rest


def test_each_model_has_its_own_endpoint_and_key(live: LiveServer) -> None:
    with LiveServer() as other:
        strong = ["--strong-model", "openai/big", "--strong-base-url", live.base_url, "--strong-api-key", "sk-strong"]
        weak = ["--weak-model", "groq/small", "--weak-base-url", other.base_url, "--api-key", "sk-shared"]
        with started(*strong, *weak) as (_, url, _lines):
            for name in ("openai/big", "groq/small"):
                fetch(url + "/v1/chat/completions", BODY.replace(b"router-random", name.encode()))
        assert [request.headers["authorization"] for request in live.requests] == ["Bearer sk-strong"]
        assert [request.headers["authorization"] for request in other.requests] == ["Bearer sk-shared"]


def test_a_missing_key_is_told_at_the_start() -> None:
    with started("--strong-model", "gpt-4o", "--weak-model", "demo/weak") as (process, url, _):
        assert fetch(url + "/v1/route", BODY)["router"] == "random"
        _, rest = stop(process)
    assert "routellm: warning: No API key for the model 'gpt-4o'" in rest
    assert "OPENAI_API_KEY" in rest


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_open_stream_may_finish_before_the_server_ends(live: LiveServer, workers: str) -> None:
    gate = Gate()
    live.replies = [Reply.sse(event({"n": 1}), gate, event({"n": 2}), event("[DONE]"))]
    models = ["--strong-model", "openai/big", "--weak-model", "openai/small", "--base-url", live.base_url]
    with started(*models, "--workers", workers) as (process, url, _):
        with urllib.request.urlopen(urllib.request.Request(url + "/v1/chat/completions", BODY), timeout=PATIENCE) as stream:
            assert stream.readline() == b'data: {"n": 1}\n'
            process.send_signal(signal.SIGTERM)
            while True:  # the server takes no new connections once it has begun to end
                try:
                    fetch(url + "/health")
                except OSError:
                    break
            gate.open()
            assert stream.read().endswith(b"data: [DONE]\n\n")
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_several_workers_share_the_port_and_end_together() -> None:
    with started("--workers", "2") as (process, url, _):
        for _ in range(4):
            fetch(url + "/v1/chat/completions", BODY)
        workers = workers_of(process)
        code, rest = stop(process)
    assert len(workers) == 2
    assert code == 0
    assert "Traceback" not in rest
    assert not any(worker.exists() for worker in workers)


def test_workers_end_when_their_supervisor_is_killed() -> None:
    with started("--workers", "2") as (process, url, _):
        fetch(url + "/health")
        assert len(workers_of(process)) == 2
        stop(process, signal.SIGKILL)  # returns once the last worker has let go of the output
    with pytest.raises(urllib.error.URLError):
        fetch(url + "/health")


def workers_of(process: subprocess.Popen[str]) -> list[Path]:
    children = [Path("/proc", pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return [child for child in children if b"spawn_main" in command_line_of(child)]


def command_line_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except FileNotFoundError:  # it has ended in the meantime
        return b""


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = run("--routers", "random", "--port", port)
    assert (code, out) == (1, "")
    assert err.startswith(f"routellm: error: Can't listen on 127.0.0.1, port {port}: Address already in use.")
    assert "--port" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--routers", "rndom"], "did you mean 'random'"),
        (["--routers"], "--routers"),
        (["--port", "70000"], "'70000' is not a whole number from 0 to 65535"),
        (["--port", "http"], "'http' is not a whole number"),
        (["--workers", "0"], "'0' is not a whole number from 1"),
        (["--timeout", "nan"], "'nan' is not a number of seconds above 0"),
        (["--prompt-from", "middle"], "'middle' is not 'last', 'first', or a number of user turns"),
        (["--prompt-from", "0"], "'0' is not"),
        (["--default-strong-share", "50"], "'50' is not a fraction from 0 to 1; did you mean 0.5?"),
        (["--weak-modalities", "smell"], "smell"),
        (["--nonsense"], "--nonsense"),
        (["--routers", "random", "--config", "no-such-file.yaml"], "no-such-file.yaml"),
        (["--routers", "random", "--strong-model", ""], "must be a name"),
        (["--routers", "random", "--strong-model", "no-such-provider/x"], "no-such-provider"),
        (["--routers", "random", "--base-url", "localhost:1"], "localhost:1"),
        (["--routers", "random", "--host", "not a host"], "not a host"),
        (["--routers", "random", "--strong-model", "demo/a", "--weak-model", "demo/a", "--weak-api-key", KEY], "demo/a"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line_before_anything_is_bound(arguments: list[str], words: str) -> None:
    code, out, err = run("--port", "0", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("routellm: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert KEY not in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("randm:\n  seed: 1\n", "did you mean 'random'"),
        ("random:\n  sed: 1\n", "did you mean 'seed'"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_configuration_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    code, _, err = run("--routers", "random", "--config", str(path))
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_the_configuration_reaches_the_routers_of_every_worker(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("random:\n  seed: 7\n")
    rates = set()
    for workers in ("1", "2"):
        with started("--config", str(path), "--workers", workers) as (_, url, _lines):
            rates.add(fetch(url + "/v1/route", BODY)["win_rate"])
    assert len(rates) == 1


def test_help_ends_in_worked_examples() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert out.index("examples:") > out.index("--verbose")
    assert "--strong-model gpt-4o --weak-model ollama_chat/llama3" in out


@pytest.mark.parametrize("router", ["random", "mf"])
def test_a_server_loads_no_heavy_library(router: str) -> None:
    probe = """
import sys
from routellm import openai_server
from routellm.serving import process

def serve(services, shared, environ, listener):
    from routellm.serving.app import assemble
    process.configure(assemble(services, None), services.settings).load()
    print("LOADED", " ".join(sorted({name.split(".")[0] for name in sys.modules})))

process.serve = serve
raise SystemExit(openai_server.main(["--routers", sys.argv[1], "--port", "0"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", probe, router], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert {"starlette", "uvicorn", "httptools"} <= loaded
    assert (
        loaded & {"openai", "httpx", "httpx2", "pydantic", "rich", "pandas", "torch", "litellm", "onnxruntime", "anthropic"}
        == set()
    )
