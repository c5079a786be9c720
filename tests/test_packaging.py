"""What is built of a checkout: every file that the package needs, with the compiled kernel and without a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import routellm
from tests.conftest import require

ROOT = Path(__file__).parent.parent
INPUTS = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE")
NOT_INSTALLED = {".c", ".h", ".so", ".pyd", ".pyc"}

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
SCORE = """
import sys
sys.path.insert(0, sys.argv[1])
from routellm.embeddings.kernel import COMPILED
from routellm.routers.routers import build_router
print(COMPILED, build_router("mf", None).calculate_strong_win_rate("What is 17 * 23?"))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that the package is built from."""
    require("setuptools")
    folder = tmp_path_factory.mktemp("checkout")
    for name in INPUTS:
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "routellm", folder / "routellm", ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd"))
    return folder


def build(checkout: Path, what: str, to: Path, **environment: str) -> Path:
    """A wheel or an sdist, by what `pip` calls; without its fresh environment, which would need a network."""
    command = [sys.executable, "-c", BUILD, what, str(to)]
    shutil.rmtree(checkout / "build", ignore_errors=True)
    made = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return to / made.stdout.splitlines()[-1]


def sources(checkout: Path) -> set[str]:
    return {
        path.relative_to(checkout).as_posix()
        for path in (checkout / "routellm").rglob("*")
        if path.is_file() and path.suffix not in NOT_INSTALLED
    }


@pytest.mark.parametrize(("way", "environment"), [("with", {}), ("without", {"CC": "false"})])
def test_a_wheel_is_whole_and_scores_alike_with_and_without_a_compiler(
    way: str, environment: dict[str, str], checkout: Path, tmp_path: Path
) -> None:
    require("routellm.embeddings._scan")  # where it could be built once, it can be built here
    wheel = build(checkout, "build_wheel", tmp_path, **environment)
    assert wheel.name.startswith(f"routellm-{routellm.__version__}-cp311-abi3-")
    with zipfile.ZipFile(wheel) as content:
        held = {name for name in content.namelist() if name.startswith("routellm/")}
        content.extractall(tmp_path / "installed")
    kernel = {name for name in held if Path(name).suffix in {".so", ".pyd"}}
    assert held - kernel == sources(checkout)
    assert len(kernel) == (way == "with")
    scored = subprocess.run(
        [sys.executable, "-c", SCORE, str(tmp_path / "installed")], check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    compiled, score = scored.stdout.split()
    assert compiled == str(way == "with")
    assert float(score) == mf_score()


def mf_score() -> float:
    from routellm.routers.routers import build_router

    return build_router("mf", None).calculate_strong_win_rate("What is 17 * 23?")


def test_an_sdist_holds_what_a_wheel_is_built_from(checkout: Path, tmp_path: Path) -> None:
    archive = build(checkout, "build_sdist", tmp_path)
    with tarfile.open(archive) as content:
        held = {name.partition("/")[2] for name in content.getnames()}
    kernel = {f"routellm/embeddings/native/{path.name}" for path in (ROOT / "routellm/embeddings/native").iterdir()}
    assert held >= {*INPUTS, *sources(checkout), *kernel}
