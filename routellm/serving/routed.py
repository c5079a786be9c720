"""The way of every routed request: read, decide, send to the chosen model, and hand its reply back as it comes.

A bare ASGI callable, since this is the path that all traffic takes: no request objects, no models of the schema. What this
server does not need to understand, it does not look at.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import quote

from routellm.dispatch.run import Dispatched
from routellm.errors import MissingKeyError, OverloadedError, RequestError, UpstreamError
from routellm.serving.apis.base import Api, Translator
from routellm.serving.apis.fields import UNSUPPORTED
from routellm.serving.call import Call
from routellm.serving.errors import render_error
from routellm.serving.exchange import EXCHANGE, Exchange
from routellm.serving.headers import decision_headers, headers_for_upstream, keep_readable
from routellm.serving.relay import Client, relay, relay_translated
from routellm.serving.request import ApiRequest, ClientGoneError, read_body, whole_body
from routellm.serving.services import Services
from routellm.upstream.base import Format, Upstream, UpstreamReply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from routellm.keys.client import Client as KeyHolder
    from routellm.serving.gateway import Gateway

logger = logging.getLogger("routellm.serving")

_AS_SENT = "!$%&'()*+,/:;=?@[]^`{|}"
"""Of a query string, what goes up as it came beside letters, digits and `_.-~`."""


class RoutedEndpoint:
    """One API's endpoint. `scope["request_id"]` must be set, see `app.py`, and the server be `protocol.py`."""

    def __init__(self, api: Api, services: Services) -> None:
        self._api = api
        self._services = services
        self._max_body_bytes = services.settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id: str = scope["request_id"]
        call = Call(self._api.format, request_id, scope["query_string"])
        exchange: Exchange = scope["extensions"][EXCHANGE]
        client = Client(exchange, {b"x-request-id": request_id.encode()})
        try:
            holder = self._services.admit(scope)
            call.client = None if holder is None else holder.id
            body = whole_body(exchange, self._max_body_bytes)
            if body is None:
                body = await read_body(scope, receive, self._max_body_bytes)
            request = self._api.parse(body)
            call.asked, call.body = request.model, body
            with client:
                await self._admit(call, request, exchange, holder, client)
            if client.gone:
                call.outcome = "client-gone"
        except ClientGoneError:
            pass
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, see errors.py
            await self._fail(error, call, client)
        finally:
            self._services.finish(call, scope["headers"])

    async def _admit(
        self, call: Call, request: ApiRequest, exchange: Exchange, holder: KeyHolder | None, client: Client
    ) -> None:
        services = self._services
        if not services.admission.enter_at_once():
            await services.admission.enter()
        try:
            with services.live.gateway as gateway:
                call.decision = await gateway.decide(self._api, request, exchange.scope["headers"], call.client)
                if holder is not None:
                    await services.take(call, holder, request, gateway)
                if services.keeps_prompts:
                    with suppress(RequestError):  # a request for a model by its own name need not be understood
                        call.prompt = self._api.view(request, gateway.decider.prompt_from).text
                sent = headers_for_upstream(exchange.fields, call.request_id)
                if services.billed:
                    keep_readable(sent)
                await self._answer(gateway, call, request, sent, client)
        finally:
            services.admission.leave()

    async def _answer(self, gateway: Gateway, call: Call, request: ApiRequest, sent: dict[str, str], client: Client) -> None:
        api = self._api
        dispatched = await self._dispatch(gateway, call, request, sent)
        decision = call.decision
        assert decision is not None
        async with dispatched:
            reply, (translator, format) = dispatched.reply, dispatched.extra
            if dispatched.fell_back:
                decision = call.decision = gateway.fallen_back(decision, dispatched.model)
            client.headers.update(decision_headers(decision))
            call.told = True
            call.begin(reply, format, counts=self._services.observed, free=not api.takes_tokens)
            if translator is None:
                await relay(reply, client, call, api.error_event)
            else:
                await relay_translated(reply, translator, client, call, api.error_event)
        call.outcome = "answered"

    async def _dispatch(
        self, gateway: Gateway, call: Call, request: ApiRequest, sent: dict[str, str]
    ) -> Dispatched[tuple[Translator | None, Format]]:
        assert call.decision is not None
        mark = perf_counter()
        send = partial(self._send, call, request, sent)
        try:
            return await gateway.dispatch(call.decision, request, send)
        except RequestError as error:
            other = gateway.spoken(call.decision, self._api.format) if error.code == UNSUPPORTED else None
            if other is None:
                raise
            call.decision = other
            return await gateway.dispatch(other, request, send)
        finally:
            call.waited += perf_counter() - mark

    async def _send(
        self, call: Call, request: ApiRequest, headers: dict[str, str], upstream: Upstream
    ) -> tuple[UpstreamReply, tuple[Translator | None, Format]]:
        api = self._api
        translation: tuple[Translator | None, Format] = (None, api.format)
        if api.format in upstream.formats:
            path, body = api.upstream_path, request.body_for(upstream.model)
            if call.query:
                path = f"{path}?{quote(call.query, safe=_AS_SENT)}"
        else:
            translator = api.translator(request, upstream.formats)
            path, body = translator.path, translator.body_for(upstream.model)
            headers = {**api.headers_for(headers), "accept-encoding": "identity"}  # since the reply is to be read here
            translation = translator, "chat"
        call.attempts += 1  # already now, since the client may leave before the call is over
        try:
            return await upstream.send(path, body, headers), translation
        except MissingKeyError:
            call.attempts -= 1  # nothing was sent
            raise

    async def _fail(self, error: Exception, call: Call, client: Client) -> None:
        call.error = getattr(error, "code", None)
        if not client.begun:
            rendered = self._api.error_reply(render_error(error, call.request_id), call.request_id)
            call.status = rendered.status
            call.outcome = "refused" if isinstance(error, RequestError | OverloadedError) else "failed"
            if call.decision is not None and not call.told:
                client.headers.update(decision_headers(call.decision))
            await client.reply(rendered.status, dict(rendered.headers), rendered.body)
        elif isinstance(error, UpstreamError):
            call.outcome = "broken-off"
            logger.warning("%s upstream broke off: %s", call.request_id, error, extra={"request_id": call.request_id})
        else:
            call.outcome = "failed"
            logger.error("%s failed after its reply had begun", call.request_id, exc_info=error)
