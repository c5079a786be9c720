"""The systemd unit: what systemd itself says of it, where it is installed."""

from __future__ import annotations

import configparser
import shlex
import sys
from pathlib import Path

import pytest

from routellm.openai_server import build_parser
from tests.deploy.tools import DEPLOY, program, run

UNIT = DEPLOY / "routellm.service"


def service() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, encoding="utf-8")
    return parser["Service"]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    text = UNIT.read_text(encoding="utf-8")
    file = tmp_path / UNIT.name
    file.write_text(text.replace("/opt/routellm/bin/routellm serve", f"{sys.executable} -m routellm serve"), encoding="utf-8")
    return file


def test_systemd_finds_no_fault(installed: Path) -> None:
    told = run(program("systemd-analyze", in_ci=False), "verify", installed)  # which may complain of other units too
    assert UNIT.name not in told


def test_systemd_finds_little_that_it_may_do(installed: Path) -> None:
    assert "OK" in run(program("systemd-analyze", in_ci=False), "security", "--offline=yes", "--threshold=20", installed)


def test_its_command_is_one_that_the_server_takes() -> None:
    words = shlex.split(service()["ExecStart"])
    assert words[:2] == ["/opt/routellm/bin/routellm", "serve"]
    assert build_parser().parse_args(words[2:]).host == "127.0.0.1"


def test_open_streams_may_end_before_it_is_killed() -> None:
    from routellm.serving.process import _GRACE_SECONDS

    assert int(service()["TimeoutStopSec"]) > _GRACE_SECONDS
    assert service()["KillMode"] == "mixed"
