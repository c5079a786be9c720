"""The files under `deploy/`, and programs that check them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def program(name: str, *, in_ci: bool) -> str:
    """Where a program is. Missing, the test skips, or fails in CI where `.ci/run` installs it."""
    beside_python = str(Path(sys.executable).parent)  # where a package of this environment puts its programs
    found = shutil.which(name, path=os.pathsep.join([beside_python, os.environ.get("PATH", os.defpath)]))
    if found is not None:
        return found
    if in_ci and os.environ.get("CI") in ("true", "1"):
        pytest.fail(f"CI must have {name!r}")
    pytest.skip(f"needs {name!r}")


def run(*command: str | Path, text: str | None = None) -> str:
    """Run a program to its end and return all that it printed; it must succeed."""
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def load(name: str) -> Any:
    """A YAML file under `deploy/`."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def last_stage() -> list[tuple[str, str]]:
    """The instructions that make the image which runs."""
    instructions = dockerfile()
    start = max(number for number, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[start:]


def pip_install() -> list[str]:
    """The words of the Dockerfile's `pip install`."""
    (command,) = (rest for word, rest in dockerfile() if word == "RUN" and " install " in rest and "-m pip" in rest)
    return shlex.split(command.split("&&")[1])
