"""A live embedding endpoint, and embedders that are connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from routellm.embeddings.openai import OpenAIEmbedder
from tests.embeddings.endpoint import KEY, answer_embeddings
from tests.live import LiveServer


class Connect(Protocol):
    """Makes an embedder for a server; it is closed when the test is over."""

    def __call__(self, server: LiveServer, **arguments: Any) -> OpenAIEmbedder: ...


@pytest.fixture
def endpoint(live: LiveServer) -> LiveServer:
    """A live server that answers as an embedding endpoint."""
    live.answer = answer_embeddings
    return live


@pytest.fixture
def connect() -> Iterator[Connect]:
    """See `Connect`."""
    opened: list[OpenAIEmbedder] = []

    def open_one(server: LiveServer, **arguments: Any) -> OpenAIEmbedder:
        defaults = {"model": "served-model", "base_url": server.base_url, "api_key": KEY, "max_retries": 0}
        opened.append(OpenAIEmbedder(**{**defaults, **arguments}))
        return opened[-1]

    yield open_one
    for embedder in opened:
        embedder.close()


@pytest.fixture
def embedder(endpoint: LiveServer, connect: Connect) -> OpenAIEmbedder:
    """An embedder for the endpoint, with no width given."""
    return connect(endpoint)
