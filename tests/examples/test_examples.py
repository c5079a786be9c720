"""The short examples, run as a reader would run them: by the command that their docstrings give."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from routellm.serving.settings import Settings
from routellm.upstream.base import ModelSpec
from tests.live import PATIENCE, closed_port_url
from tests.serving.running import RunningServer

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *arguments],
        cwd=ROOT, env={"PATH": os.environ.get("PATH", ""), "HOME": str(home), "LANG": "C.UTF-8"},
        capture_output=True, text=True, timeout=3 * PATIENCE,
    )  # fmt: skip


def test_offline_routing_decides_by_both_routers_and_answers(tmp_path: Path) -> None:
    done = run("offline_routing", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    decisions = [
        re.fullmatch(r"(mf|length) +win rate (\d\.\d{3})  (demo/strong|demo/weak) +(.+)", line) for line in lines[:-2]
    ]
    assert all(decisions)
    assert [found[1] for found in decisions if found] == ["mf"] * 3 + ["length"] * 3
    own = [(found[2], found[3]) for found in decisions if found and found[1] == "length"]
    assert [model for _, model in own] == ["demo/weak", "demo/weak", "demo/strong"]
    assert lines[-1].startswith("demo/strong answers: [demo/strong: offline demo model, not a real LLM] You said: Write")


def test_the_openai_client_through_a_live_server(tmp_path: Path) -> None:
    settings = Settings(("mf",), ModelSpec("demo/strong"), ModelSpec("demo/weak"))
    with RunningServer(settings) as server:
        done = run("openai_client", server.base_url, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    served, whole, stream = done.stdout.splitlines()
    assert served == "served: router-mf, demo/strong, demo/weak"
    assert re.fullmatch(r"(strong|weak): \[demo/\1: offline demo model, not a real LLM\] You said: Hello!", whole)
    assert re.fullmatch(r"(demo/\w+) \(win rate 0\.\d{6}\): \[\1: offline .*\] You said: Prove .* irrational\.", stream)


def test_the_openai_client_without_a_server_says_what_to_start(tmp_path: Path) -> None:
    done = run("openai_client", closed_port_url(), home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "No server answers there. Start one: python -m routellm.openai_server --routers mf\n"
