"""The whole server as one ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from routellm.errors import RouteLLMError
from routellm.serving.apis.base import Api
from routellm.serving.apis.chat import ChatApi
from routellm.serving.apis.completions import CompletionsApi
from routellm.serving.apis.embeddings import EmbeddingsApi
from routellm.serving.apis.messages.api import CountTokensApi, MessagesApi
from routellm.serving.apis.responses.api import ResponsesApi
from routellm.serving.endpoints import Endpoints
from routellm.serving.exchange import EXCHANGE, Exchange
from routellm.serving.gateway import Gateway
from routellm.serving.headers import request_id_of
from routellm.serving.live import Reloader
from routellm.serving.request import ClientGoneError
from routellm.serving.routed import RoutedEndpoint
from routellm.serving.services import Services
from routellm.serving.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("routellm.serving")

APIS: tuple[type[Api], ...] = (
    ChatApi,
    ResponsesApi,
    MessagesApi,
    CountTokensApi,
    CompletionsApi,
    EmbeddingsApi,
)
"""The APIs that requests are routed in."""


def assemble(services: Services, load: Callable[[Settings], Gateway]) -> ASGIApp:
    """The application over `services`, which it closes when the server shuts down.

    Args:
        load: makes a gateway of changed settings.
    """
    apis = [kind() for kind in APIS]
    routed = {api.path: RoutedEndpoint(api, services) for api in apis}
    ends = Endpoints(services, apis)
    routes = [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in routed.items()),
        Route("/v1/route", ends.route, methods=["POST"]),
        Route("/v1/models", ends.models),
        Route("/v1/models/{name:path}", ends.model),
        Route("/health", ends.health),
        Route("/health/live", ends.health),
        Route("/health/ready", ends.ready),
        Route("/metrics", ends.metrics),
        *_admin_routes(services),
        Route("/openapi.json", ends.openapi),
        Route("/", ends.index),
    ]
    ends.paths = [route.path_format for route in routes]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        reloader = Reloader(services.settings, load, services.renew)
        tasks = [asyncio.create_task(reloader.run()), asyncio.create_task(services.publish())]
        yield
        for task in tasks:
            task.cancel()
        await services.aclose()

    pages = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=dict.fromkeys((HTTPException, RouteLLMError, ClientGoneError, Exception), ends.answer_error),
    )
    pages.router.redirect_slashes = False
    return _front(routed, pages, verbose=services.settings.verbose)


def _admin_routes(services: Services) -> list[Route]:
    if services.guard is None:
        return []
    from routellm.serving.admin import admin_routes  # and with it the database's library

    return admin_routes(services.guard, services.environ)


def _front(routed: Mapping[str, RoutedEndpoint], pages: Starlette, *, verbose: bool) -> ASGIApp:
    """Give each request its id, and take what is routed past the framework."""

    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return pages(scope, receive, send)
        exchange: Exchange = scope["extensions"][EXCHANGE]
        scope["request_id"] = request_id_of(exchange.fields.get(b"x-request-id"))
        endpoint = routed.get(scope["path"])
        if endpoint is not None and scope["method"] == "POST":
            return endpoint(scope, receive, send)
        return page(scope, receive, send)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope["request_id"]

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
