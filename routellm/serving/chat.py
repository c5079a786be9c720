"""`POST /v1/chat/completions`: decide, rewrite `model`, forward, and hand the reply back as it comes.

A bare ASGI callable, since this is the path that every request takes: no request objects, no models of the schema. What
this server does not need to understand, it does not look at.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING

from routellm.errors import UpstreamError
from routellm.serving.errors import RawHeaders, render_error, send_error
from routellm.serving.gateway import Gateway
from routellm.serving.headers import decision_headers, headers_for_upstream
from routellm.serving.relay import ClientWatch, relay
from routellm.serving.request import ClientGoneError, parse_request, read_body
from routellm.types import Decision

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger("routellm.serving")


class ChatCompletions:
    """The endpoint. `scope["request_id"]` must be set; see `app.py`."""

    def __init__(self, gateway: Gateway, max_body_bytes: int, *, verbose: bool = False) -> None:
        self._gateway = gateway
        self._max_body_bytes = max_body_bytes
        self._verbose = verbose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        request_id: str = scope["request_id"]
        headers: RawHeaders = [(b"x-request-id", request_id.encode("ascii"))]
        decision: Decision | None = None
        status: int | str = "client gone"
        reply = None
        try:
            request = parse_request(await read_body(scope, receive, self._max_body_bytes))
            decision = await self._gateway.decide(request.model, request.messages)
            headers += decision_headers(decision)
            upstream = self._gateway.upstreams[decision.model]
            body = request.body_for(upstream.model)
            with ClientWatch(receive) as watch:
                try:
                    reply = await upstream.send("/chat/completions", body, headers_for_upstream(scope["headers"], request_id))
                    status = reply.status
                    await relay(reply, send, watch, headers)
                finally:
                    if reply is not None:
                        await reply.aclose()
            if watch.gone:
                status = "client gone"
        except ClientGoneError:
            pass
        except Exception as error:  # every error becomes a reply, see errors.py
            if reply is None:
                rendered = render_error(error, request_id)
                status = rendered.status
                await send_error(send, rendered, headers)
            elif isinstance(error, UpstreamError):
                status = "upstream broke off"
                logger.warning("%s %s: %s", request_id, status, error)
            else:
                status = "failed"
                logger.error("%s failed after its reply had begun", request_id, exc_info=error)
        if self._verbose:
            _log(request_id, status, decision, perf_counter() - started)


def _log(request_id: str, status: int | str, decision: Decision | None, seconds: float) -> None:
    if decision is None:
        logger.info("%s chat: %s in %.1f ms", request_id, status, seconds * 1e3)
        return
    logger.info(
        "%s chat: %s in %.1f ms; model=%r reason=%s router=%s threshold=%s win_rate=%s decision=%.0f us",
        *(request_id, status, seconds * 1e3, decision.model, decision.reason, decision.router),
        *(decision.threshold, decision.win_rate, decision.decision_us),
    )
