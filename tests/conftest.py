"""What every test gets: an environment of its own, and one way to ask for an optional part."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from tests.live import LiveServer

settings.register_profile("routellm", deadline=None)  # a test's speed says nothing about its truth, least of all in CI
settings.load_profile("routellm")

_PRIVATE_ENDINGS = ("_API_KEY", "_API_BASE", "_BASE_URL", "_TOKEN", "_PROXY", "_proxy")
_PRIVATE_BEGINNINGS = ("OPENAI_", "OLLAMA_", "ROUTELLM_", "LITELLM_", "HF_", "XDG_")


def require(name: str) -> ModuleType:
    """The optional module `name`. Where it is missing the test skips on a laptop and fails in CI, which has to have it."""
    try:
        return import_module(name)
    except ImportError as error:
        if os.environ.get("CI") in ("true", "1"):
            pytest.fail(f"CI must have the optional package {name!r}: {error}")
        pytest.skip(f"needs the optional package {name!r}")


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `module` and what is below it look as if it were not installed."""
    real_import = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real_import(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.fixture(autouse=True)
def private_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a cache of the test's own, and no keys, endpoints or proxies from outside. Returns the home."""
    for name in list(os.environ):
        if name.endswith(_PRIVATE_ENDINGS) or name.startswith(_PRIVATE_BEGINNINGS):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    return home


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, as the package does."""
    return "asyncio"


@pytest.fixture
def live() -> Iterator[LiveServer]:
    """A live server that plays the upstream; see `tests.live`."""
    with LiveServer() as server:
        yield server
