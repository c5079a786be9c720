"""A live server under test in front of the live server that plays the upstream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routellm.routers.routers import ROUTER_CLS
from tests.live import LiveServer
from tests.serving.running import FixedRouter, RunningServer, settings_for


@pytest.fixture(scope="session", autouse=True)
def fixed_router() -> Iterator[None]:
    """The router `fixed`, which a test steers by its configuration."""
    ROUTER_CLS["fixed"] = FixedRouter
    yield
    del ROUTER_CLS["fixed"]


@pytest.fixture
def server(live: LiveServer) -> Iterator[RunningServer]:
    """The server under test, its models at `live`."""
    with RunningServer(settings_for(live.base_url)) as running:
        yield running


@pytest.fixture(scope="module")
def lasting() -> Iterator[RunningServer]:
    """A server for the many small tests of a module that need no upstream; its models are the demo pair."""
    with RunningServer(settings_for(None, strong="demo/strong", weak="demo/weak")) as running:
        yield running
