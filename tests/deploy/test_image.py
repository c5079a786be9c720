"""The Dockerfile: linted, and its commands run for real against the server that is checked out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, ROOT, dockerfile, last_stage, pip_install, program, run

STAGE = dict(last_stage())
HEALTH_CHECK = json.loads(STAGE["HEALTHCHECK"].partition("CMD ")[2])
ENTRY_POINT = json.loads(STAGE["ENTRYPOINT"])


def test_the_linter_has_nothing_to_say() -> None:
    assert run(program("hadolint", in_ci=True), DEPLOY / "Dockerfile") == ""


def test_the_image_runs_as_nobody_in_particular_and_holds_no_tools() -> None:
    assert STAGE["USER"] == "10001:10001"
    assert STAGE["STOPSIGNAL"] == "SIGTERM"
    assert not re.search(r"apt-get|gcc|build-essential|pip install|curl", json.dumps(last_stage()))
    assert [rest for word, rest in last_stage() if word == "COPY"] == ["--from=build /opt/routellm /opt/routellm"]


def test_both_stages_are_of_one_base_that_can_be_pinned() -> None:
    froms = [rest.split(" AS ")[0] for word, rest in dockerfile() if word == "FROM"]
    assert set(froms) == {"${PYTHON_IMAGE}"}
    (base,) = (rest for word, rest in dockerfile() if word == "ARG" and rest.startswith("PYTHON_IMAGE="))
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-[a-z]+", base)


def test_what_is_installed_exists() -> None:
    (extras,) = (rest for word, rest in dockerfile() if word == "ARG" and rest.startswith("EXTRAS="))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras.removeprefix("EXTRAS=").split(",")) <= set(known)
    assert pip_install()[-2:] == ["--only-binary=:all:", ".[${EXTRAS}]"]


def test_the_build_gets_what_the_package_is_made_of_and_nothing_else() -> None:
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rules[0] == "*"
    assert admitted == {"pyproject.toml", "setup.py", "routellm", project["readme"], *project["license-files"]}
    assert all((ROOT / name).exists() for name in admitted)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that the image's entry point started; it writes to its data folder, and nowhere else."""
    home, data = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("data")
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_DATA_HOME": str(data), "XDG_CACHE_HOME": str(data)}
    command = [sys.executable, "-u", "-m", *ENTRY_POINT, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        told = (re.search(r"listens on http://127\.0\.0\.1:(\d+)", line) for line in server.stdout)
        found = next(filter(None, told), None)
        assert found, "the server did not start"
        yield int(found[1])
        server.send_signal(getattr(signal, STAGE["STOPSIGNAL"]))
        server.stdout.read()
        assert server.wait(30) == 0
    assert list(home.iterdir()) == []


def health_check(port: int) -> int:
    command = [sys.executable, *(word.replace("6060", str(port)) for word in HEALTH_CHECK[1:])]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode


def test_the_entry_point_starts_a_server_that_the_health_check_finds(port: int) -> None:
    assert HEALTH_CHECK[0] == "python"
    assert health_check(port) == 0


def test_the_health_check_fails_where_nothing_answers(port: int, tmp_path: Path) -> None:
    assert "6060" in HEALTH_CHECK[-1]
    assert health_check(1) != 0
