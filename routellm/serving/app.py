"""The whole server as one ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from routellm.errors import RouteLLMError
from routellm.serving.apis.base import Api
from routellm.serving.apis.chat import ChatApi
from routellm.serving.endpoints import Endpoints
from routellm.serving.gateway import Gateway
from routellm.serving.headers import request_id_of
from routellm.serving.live import Live, Reloader
from routellm.serving.request import ClientGoneError
from routellm.serving.routed import RoutedEndpoint
from routellm.serving.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("routellm.serving")

APIS: tuple[type[Api], ...] = (ChatApi,)
"""The APIs that requests are routed in."""


def build_app(settings: Settings, environ: Mapping[str, str]) -> ASGIApp:
    """Load everything and put it together. Raises as `Gateway.load` does."""
    return assemble(Gateway.load(settings, environ), settings, environ)


def assemble(gateway: Gateway, settings: Settings, environ: Mapping[str, str]) -> ASGIApp:
    """The application over a loaded gateway, which it closes when the server shuts down."""
    live = Live(gateway)
    apis = [kind() for kind in APIS]
    routed = {api.path: RoutedEndpoint(api, live, settings.max_body_bytes, verbose=settings.verbose) for api in apis}
    ends = Endpoints(live, settings.max_body_bytes, apis)
    routes = [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in routed.items()),
        Route("/v1/route", ends.route, methods=["POST"]),
        Route("/v1/models", ends.models),
        Route("/v1/models/{name:path}", ends.model),
        Route("/health", ends.health),
        Route("/health/live", ends.health),
        Route("/health/ready", ends.health),
        Route("/openapi.json", ends.openapi),
        Route("/", ends.index),
    ]
    ends.paths = [route.path_format for route in routes]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        reloading = asyncio.create_task(Reloader(live, settings, environ).run())
        yield
        reloading.cancel()
        await live.aclose()

    pages = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=dict.fromkeys((HTTPException, RouteLLMError, ClientGoneError, Exception), ends.answer_error),
    )
    pages.router.redirect_slashes = False
    return _front(routed, pages, verbose=settings.verbose)


def _front(routed: Mapping[str, RoutedEndpoint], pages: Starlette, *, verbose: bool) -> ASGIApp:
    """Give each request its id, and take what is routed past the framework."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await pages(scope, receive, send)
            return
        request_id = scope["request_id"] = request_id_of(scope["headers"])
        endpoint = routed.get(scope["path"])
        if endpoint is not None and scope["method"] == "POST":
            await endpoint(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("ascii"))]
                if verbose:
                    logger.info("%s %s %r: %d", request_id, scope["method"], scope["path"], message["status"])
            await send(message)

        try:
            await pages(scope, receive, send_with_id)
        except Exception:  # noqa: BLE001 - already answered and logged by `answer_error`; Starlette raises it again
            logger.debug("%s answered with 500", request_id)

    return app
