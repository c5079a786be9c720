"""The routes beside chat completions: what is served, what would be decided, and whether the server is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import routellm
from routellm.decider import Decider
from routellm.errors import ModelNotFoundError
from routellm.messages import parse_model_name
from routellm.serving.apis.base import Api
from routellm.serving.apis.chat import ChatApi
from routellm.serving.errors import MethodNotAllowedError, UnknownPathError, render_error
from routellm.serving.openapi import document
from routellm.serving.request import ClientGoneError, read_body
from routellm.serving.services import Services

if TYPE_CHECKING:
    from routellm.keys.client import Client


class Endpoints:
    """One method a route. They raise; `answer_error` renders."""

    def __init__(self, services: Services, apis: Sequence[Api]) -> None:
        self._services = services
        self._apis = apis
        self._chat = ChatApi()
        self._created = int(time.time())
        self.paths: list[str] = []

    async def index(self, request: Request) -> Response:
        """GET /: where to go from here."""
        return _json({"name": "routellm", "version": routellm.__version__, "paths": self.paths})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: what is served, for programs that read such documents."""
        return _json(document(self._apis, self._decider.routers, self._decider.served_models))

    async def health(self, request: Request) -> Response:
        """GET /health, /health/live: a server that answers is alive."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """GET /health/ready: whether requests should be sent here, and what is amiss."""
        found = self._services.readiness()
        return _json({"status": found.status, "problems": found.problems}, 200 if found.ready else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, for Prometheus: all workers' counts."""
        metrics = self._services.metrics
        if metrics is None:
            raise UnknownPathError(request.method, "/metrics", self.paths)
        metrics.publish(self._services.gauges())
        kind, body = await asyncio.to_thread(metrics.render)
        return Response(body, headers={"content-type": kind})

    async def models(self, request: Request) -> Response:
        """GET /v1/models: every name that a request's `model` may be, routers with their default threshold; with a key, those
        that it allows."""
        allowed = self._allowed(self._services.admit(request.scope))
        return _json({"object": "list", "data": [self._model(name) for name in allowed]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME; a router's name may carry a threshold here too."""
        allowed = self._allowed(self._services.admit(request.scope))
        name = request.path_params["name"]
        if name not in allowed:
            target = None if name in self._decider.served_models else parse_model_name(name, self._decider.routers)
            if target is None or f"router-{target.router}" not in allowed:
                raise ModelNotFoundError(name, allowed)
        return _json(self._model(name))

    async def route(self, request: Request) -> Response:
        """POST /v1/route: the decision for a chat request, without calling any model."""
        holder = self._services.admit(request.scope)
        limit = self._services.settings.max_body_bytes
        asked = self._chat.parse(await read_body(request.scope, request.receive, limit))
        with self._services.live.gateway as gateway:
            decision = await gateway.decide(self._chat, asked, request.scope["headers"], remember=False)
        if holder is not None:
            holder.check(decision)
        return _json({"object": "route.decision", **decision.as_dict()})

    async def answer_error(self, request: Request, error: Exception) -> Response:
        """The exception handler of these routes."""
        if isinstance(error, ClientGoneError):
            return Response(status_code=499)  # never sent: there is nobody to send it to
        if isinstance(error, HTTPException):
            path = request.scope["path"]
            allow = (error.headers or {}).get("Allow") if error.status_code == 405 else None
            error = (
                UnknownPathError(request.method, path, self.paths)
                if allow is None
                else MethodNotAllowedError(request.method, path, ", ".join(sorted(allow.split(", "))))
            )
        rendered = render_error(error, request.scope["request_id"])
        return Response(rendered.body, rendered.status, {name.decode(): value.decode() for name, value in rendered.headers})

    @property
    def _decider(self) -> Decider:
        return self._services.live.gateway.decider

    def _allowed(self, holder: Client | None) -> list[str]:
        """Of the served models' names, those that the key of `holder` allows."""
        decider = self._decider
        if holder is None:
            return decider.served_models
        routers = (f"router-{name}" for name in decider.routers if holder.policy.allows_router(name))
        models = (name for name in (decider.pair.strong, decider.pair.weak) if holder.policy.allows_model(name))
        return list(dict.fromkeys([*routers, *models]))

    def _model(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": name, "object": "model", "created": self._created, "owned_by": "routellm"}
        pair = self._decider.pair
        if name in (pair.strong, pair.weak):
            return {**entry, "role": "strong" if name == pair.strong else "weak"}
        target = parse_model_name(name, self._decider.routers)
        assert target is not None
        default = self._decider.default_thresholds[target.router]
        return {**entry, "threshold": default if target.threshold is None else target.threshold}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
