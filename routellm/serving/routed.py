"""The way of every routed request: read, decide, send to the chosen model, and hand its reply back as it comes.

A bare ASGI callable, since this is the path that all traffic takes: no request objects, no models of the schema. What this
server does not need to understand, it does not look at.
"""

from __future__ import annotations

import logging
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from routellm.errors import UpstreamError
from routellm.serving.apis.base import Api, Translator
from routellm.serving.errors import RawHeaders, render_error, send_error
from routellm.serving.headers import decision_headers, headers_for_upstream
from routellm.serving.live import Live
from routellm.serving.relay import ClientWatch, relay, relay_translated
from routellm.serving.request import ApiRequest, ClientGoneError, read_body
from routellm.types import Decision
from routellm.upstream.base import Upstream, UpstreamReply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger("routellm.serving")


class RoutedEndpoint:
    """One API's endpoint. `scope["request_id"]` must be set; see `app.py`."""

    def __init__(self, api: Api, live: Live, max_body_bytes: int, *, verbose: bool = False) -> None:
        self._api = api
        self._live = live
        self._max_body_bytes = max_body_bytes
        self._verbose = verbose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        api = self._api
        request_id: str = scope["request_id"]
        headers: RawHeaders = [(b"x-request-id", request_id.encode("ascii"))]
        decision: Decision | None = None
        status: int | str = "client gone"
        reply = None
        try:
            request = api.parse(await read_body(scope, receive, self._max_body_bytes))
            with self._live.gateway as gateway:
                decision = await gateway.decide(request.model, partial(api.view, request))
                headers += decision_headers(decision)
                upstream = gateway.upstreams[decision.model]
                sent = headers_for_upstream(scope["headers"], request_id)
                with ClientWatch(receive) as watch:
                    try:
                        reply, translator = await self._send(request, upstream, sent)
                        status = reply.status
                        if translator is None:
                            await relay(reply, send, watch, headers, api.error_event)
                        else:
                            await relay_translated(reply, translator, send, watch, headers, api.error_event)
                    finally:
                        if reply is not None:
                            await reply.aclose()
            if watch.gone:
                status = "client gone"
        except ClientGoneError:
            pass
        except Exception as error:  # every error becomes a reply, see errors.py
            if reply is None:
                rendered = api.error_reply(render_error(error, request_id))
                status = rendered.status
                await send_error(send, rendered, headers)
            elif isinstance(error, UpstreamError):
                status = "upstream broke off"
                logger.warning("%s %s: %s", request_id, status, error)
            else:
                status = "failed"
                logger.error("%s failed after its reply had begun", request_id, exc_info=error)
        if self._verbose:
            _log(request_id, api.format, status, decision, perf_counter() - started)

    async def _send(
        self, request: ApiRequest, upstream: Upstream, headers: dict[str, str]
    ) -> tuple[UpstreamReply, Translator | None]:
        api = self._api
        if api.format in upstream.formats:
            return await upstream.send(api.upstream_path, request.body_for(upstream.model), headers), None
        translator = api.translator(request, upstream.formats)
        body = translator.body_for(upstream.model)
        headers = {**api.headers_for(headers), "accept-encoding": "identity"}  # since the reply is to be read here
        return await upstream.send(translator.path, body, headers), translator


def _log(request_id: str, api: str, status: int | str, decision: Decision | None, seconds: float) -> None:
    if decision is None:
        logger.info("%s %s: %s in %.1f ms", request_id, api, status, seconds * 1e3)
        return
    logger.info(
        "%s %s: %s in %.1f ms; model=%r reason=%s router=%s threshold=%s win_rate=%s decision=%.0f us",
        *(request_id, api, status, seconds * 1e3, decision.model, decision.reason, decision.router),
        *(decision.threshold, decision.win_rate, decision.decision_us),
    )
