"""A running server takes up a changed configuration, and keeps the one before where the new one can't be used."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routellm.config import stamp_of
from routellm.serving.settings import read_gateway_settings
from tests.live import PATIENCE, Gate, LiveServer, Reply, event
from tests.serving.running import RunningServer, chat_body, post, settings_for
from tests.serving.test_process import fetch, started, stop, workers_of

ROUTE = b'{"model": "router-fixed-0.5", "messages": [{"role": "user", "content": "Hello!"}]}'


def write(path: Path, text: str) -> None:
    """As a careful editor writes: all at once."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("fixed: {win_rate: 0.9}")
    return path


@pytest.fixture
def reloading(live: LiveServer, config: Path) -> Iterator[RunningServer]:
    read = {"config": {"fixed": {"win_rate": 0.9}}, "config_path": str(config), "config_stamp": stamp_of(config)}
    settings = settings_for(live.base_url, **read)
    with RunningServer(settings) as server:
        yield server


def decided(server: RunningServer) -> str:
    return str(fetch(server.url + "/v1/route", ROUTE)["model"])


def test_a_changed_file_is_taken_up(reloading: RunningServer, config: Path) -> None:
    assert decided(reloading) == "openai/big"
    write(config, "fixed: {win_rate: 0.1}")
    eventually(lambda: decided(reloading) == "openai/small")
    assert [f"loaded {config} again" in line.getMessage() for line in reloading.complaints] == [True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fixed: {win_rate: ", "is not valid YAML"),
        ("fixd: {}", "did you mean 'fixed'"),
        ("fixed: {wins: 1}", "wins"),
        ("gateway: {stick: 1}", "unknown field `stick`"),
        ("gateway: 3", "must map names to values"),
    ],
)
def test_a_file_that_can_not_be_used_changes_nothing_and_is_told_once(
    reloading: RunningServer, config: Path, text: str, words: str
) -> None:
    write(config, text)
    eventually(lambda: bool(reloading.complaints))
    [line] = reloading.complaints
    assert line.levelname == "ERROR"
    assert words in line.getMessage()
    assert "stays in force" in line.getMessage()
    assert decided(reloading) == "openai/big"
    write(config, "fixed: {win_rate: 0.2}")
    eventually(lambda: decided(reloading) == "openai/small")


def test_a_file_that_is_gone_for_a_while_changes_nothing(reloading: RunningServer, config: Path) -> None:
    config.rename(config.with_suffix(".away"))
    time.sleep(1.2)  # a look at the file comes every second
    assert decided(reloading) == "openai/big"
    write(config, "fixed: {win_rate: 0.3}")
    eventually(lambda: decided(reloading) == "openai/small")
    assert [line.levelname for line in reloading.complaints] == ["WARNING"]


def test_a_stream_that_is_under_way_is_not_broken_off(reloading: RunningServer, live: LiveServer, config: Path) -> None:
    gate = Gate()
    live.replies = [Reply.sse(event({"n": 1}), gate, event("[DONE]"))]
    replies = []
    body = bytes(str(chat_body("router-fixed-0.5", stream=True)).replace("'", '"').replace("True", "true"), "utf-8")
    asking = threading.Thread(target=lambda: replies.append(post(reloading, body)))
    asking.start()
    live.wait_for_request()
    write(config, "fixed: {win_rate: 0.1}")
    eventually(lambda: decided(reloading) == "openai/small")
    gate.open()
    asking.join(PATIENCE)
    assert replies[0].body.endswith(b"data: [DONE]\n\n")
    assert replies[0].headers["x-routellm-model"] == "openai/big"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_signal_reloads_each_worker_without_a_restart(tmp_path: Path, workers: int) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("random: {seed: 1}")
    with started("--config", str(config), "--workers", str(workers)) as (process, url, _):
        fetch(url + "/health")
        before = workers_of(process)
        stamp = config.stat().st_mtime_ns
        write(config, "random: {seed: 2}")
        os.utime(config, ns=(stamp, stamp))
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(workers)]
        assert all("again, for requests from now on" in line for line in told), told
        assert fetch(url + "/health") == {"status": "ok"}
        assert workers_of(process) == before
        code, _ = stop(process)
    assert code == 0


def test_without_a_file_a_hangup_loads_the_routers_again() -> None:
    with started() as (process, url, _):
        fetch(url + "/health")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert "the command line's settings" in process.stderr.readline()
        assert stop(process)[0] == 0


def test_an_error_in_the_section_says_where_and_what_is_allowed() -> None:
    from routellm.errors import ConfigError

    with pytest.raises(ConfigError, match=r"c\.yaml: Object contains unknown field `x`.*`gateway`; allowed there: "):
        read_gateway_settings({"x": 1}, {}, "c.yaml")
