"""Sending a model's reply on to the client, chunk by chunk, and noticing when either side goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from routellm.errors import UpstreamError
from routellm.serving.errors import RawHeaders, error_body
from routellm.serving.headers import headers_for_client
from routellm.upstream.base import UpstreamReply

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from routellm.serving.apis.base import Translator


class ClientWatch:
    """Cancels the task that it was entered in as soon as the client goes away, and absorbs that cancellation.

    Costs one small task a request. `gone` tells afterwards whether the client went away. The request's body must have
    been read before.
    """

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return self

    def stop(self) -> None:
        """Watch no longer: what comes now is the last piece, after which a server reports every client as gone."""
        self._watcher.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._watcher.cancel()
        if self.gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            return True
        return False

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()


async def relay(
    reply: UpstreamReply, send: Send, watch: ClientWatch, headers: RawHeaders, error_event: Callable[[bytes], bytes]
) -> None:
    """Send `reply` with `headers` added, its bytes unchanged, each chunk as soon as it comes.

    Raises:
        UpstreamError: the upstream broke off. An event stream that stood between two events then ended with what `error_event`
            makes of OpenAI's error object, and without `[DONE]`; any other reply was left unfinished, upon which a server
            cuts the connection, so that no client takes it for a whole one.
    """
    await send({"type": "http.response.start", "status": reply.status, "headers": headers_for_client(reply.headers) + headers})
    is_stream = _is_stream(reply)
    tail = b"\n\n"
    try:
        async for chunk in reply.chunks():
            if is_stream:
                tail = (tail + chunk)[-4:]
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except UpstreamError as error:
        if is_stream and "content-encoding" not in reply.headers and tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
            await _send_last(send, watch, error_event(_told(error)))
        raise
    await _send_last(send, watch, b"")


async def relay_translated(
    reply: UpstreamReply,
    translator: Translator,
    send: Send,
    watch: ClientWatch,
    headers: RawHeaders,
    error_event: Callable[[bytes], bytes],
) -> None:
    """Send what `translator` makes of `reply`, with `headers` added; a stream's events each as soon as it is complete.

    Raises:
        UpstreamError: the upstream broke off, or sent what its API does not promise. A stream then ended with what
            `error_event` makes of OpenAI's error object. Of a whole reply nothing was sent yet.
    """
    if not (_is_stream(reply) and reply.status < 300):
        body = b"".join([chunk async for chunk in reply.chunks()])
        body = translator.reply(body) if reply.status < 300 else translator.error(reply.status, body)
        start = {**reply.headers, "content-type": "application/json", "content-length": str(len(body))}
        await send({"type": "http.response.start", "status": reply.status, "headers": headers_for_client(start) + headers})
        await _send_last(send, watch, body)
        return
    start = {name: value for name, value in reply.headers.items() if name != "content-length"}
    await send({"type": "http.response.start", "status": reply.status, "headers": headers_for_client(start) + headers})
    try:
        async for chunk in reply.chunks():
            if piece := translator.feed(chunk):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        last = translator.end()
    except UpstreamError as error:
        await _send_last(send, watch, error_event(_told(error)))
        raise
    await _send_last(send, watch, last)


async def _send_last(send: Send, watch: ClientWatch, body: bytes) -> None:
    watch.stop()
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_stream(reply: UpstreamReply) -> bool:
    return reply.headers.get("content-type", "").startswith("text/event-stream")


def _told(error: UpstreamError) -> bytes:
    return error_body(str(error), "upstream_error", None, error.code)
