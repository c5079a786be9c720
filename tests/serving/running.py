"""A live server under test: the real application under the real uvicorn, in a thread, on a free port of loopback."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Mapping
from typing import Any, Self

import uvicorn
from openai import AsyncOpenAI, OpenAI

from routellm.policies.table import ConversationTable
from routellm.routers.routers import Router
from routellm.serving.app import assemble
from routellm.serving.gateway import Gateway
from routellm.serving.process import bind, configure
from routellm.serving.services import Services, Shared
from routellm.serving.settings import Settings
from routellm.upstream.base import ModelSpec, Timeouts
from tests.live import PATIENCE

STRONG, WEAK = "openai/big", "openai/small"
KEY = "sk-planted-upstream-key"


class FixedRouter(Router):
    """Every prompt scores `win_rate`, or what `scores` says of it. Keeps what it was asked in `seen`."""

    blocking = False

    def __init__(self, win_rate: float = 0.5, scores: Mapping[str, float] | None = None) -> None:
        self.win_rate = win_rate
        self.scores = dict(scores or {})
        self.seen: list[str] = []

    def calculate_strong_win_rate(self, prompt: str) -> float:
        self.seen.append(prompt)
        return self.scores.get(prompt, self.win_rate)


class _Keep(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


class RunningServer:
    """A context manager. `url` is the server's root, `base_url` what an OpenAI client gets, `log` what was logged."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        self._listener = bind("127.0.0.1", 0)
        shared = Shared(ConversationTable.open(settings.gateway.sticky.entries, shared=False), None)

        def load(changed: Settings) -> Gateway:
            return Gateway.load(changed, environ or {}, shared.table)

        app = assemble(Services(load(settings), settings, environ or {}, shared), load)
        self._server = uvicorn.Server(configure(app, settings))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],), name="server-under-test")
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = self.url + "/v1"

        self.log: list[logging.LogRecord] = []
        self._keep = _Keep(self.log)
        self._loggers = [logging.getLogger(name) for name in ("routellm.serving", "uvicorn.error")]

    @property
    def complaints(self) -> list[logging.LogRecord]:
        """What was logged as a warning or worse."""
        return [record for record in self.log if record.levelno >= logging.WARNING]

    def __enter__(self) -> Self:
        for logger in self._loggers:
            logger.addHandler(self._keep)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server under test did not stop"
        self._listener.close()
        for logger in self._loggers:
            logger.removeHandler(self._keep)

    def client(self, **options: Any) -> OpenAI:
        """An official client that does not retry."""
        return OpenAI(base_url=self.base_url, api_key="sk-client", **{"max_retries": 0, **options})

    def async_client(self, **options: Any) -> AsyncOpenAI:
        """The same, asynchronous."""
        return AsyncOpenAI(base_url=self.base_url, api_key="sk-client", **{"max_retries": 0, **options})


def settings_for(base_url: str | None, *, strong: str = STRONG, weak: str = WEAK, **changes: Any) -> Settings:
    """A server with the routers `fixed` and `random`, both models at `base_url` with the key `KEY`."""
    timeouts = changes.pop("timeouts", Timeouts())
    modalities = changes.pop("weak_modalities", frozenset())
    return Settings(
        routers=("fixed", "random"),
        strong=ModelSpec(strong, base_url, KEY, timeouts=timeouts),
        weak=ModelSpec(weak, base_url, KEY, modalities, timeouts),
        **changes,
    )


def chat_body(model: str = "router-fixed-0.4", text: str = "Hello!", **fields: Any) -> dict[str, Any]:
    """A small valid request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def request(
    server: RunningServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Any:
    """A bare request on a connection of its own; the response has its body in `.body`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response: Any = connection.getresponse()
        response.body = response.read()
        return response
    finally:
        connection.close()


def post(
    server: RunningServer, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/v1/chat/completions"
) -> Any:
    """A bare POST of JSON."""
    return request(server, "POST", path, body, {"content-type": "application/json", **(headers or {})})


def get(server: RunningServer, path: str) -> Any:
    """A GET; what it answers must be JSON, and is given decoded."""
    response = request(server, "GET", path)
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.body)
