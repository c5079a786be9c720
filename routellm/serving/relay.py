"""Sending a model's reply on to the client, chunk by chunk, and noticing when either side goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from routellm.errors import UpstreamError, UpstreamReplyError
from routellm.serving.call import Call
from routellm.serving.errors import error_body
from routellm.serving.headers import headers_for_client
from routellm.upstream.base import UpstreamReply

if TYPE_CHECKING:
    from routellm.serving.apis.base import Translator
    from routellm.serving.exchange import Exchange

_LARGEST_TRANSLATED = 32 << 20


class Client:
    """The client of one request: where the reply goes, with the headers that are added to it.

    A context manager that cancels the task that it was entered in as soon as the client goes away, and absorbs that
    cancellation.

    Attributes:
        headers: what is added to every reply.
        gone: whether the client went away while the context was entered.
    """

    __slots__ = ("_exchange", "_task", "gone", "headers")

    def __init__(self, exchange: Exchange, headers: dict[bytes, bytes]) -> None:
        self._exchange = exchange
        self._task: asyncio.Task[Any] | None = None
        self.headers = headers
        self.gone = False

    @property
    def begun(self) -> bool:
        """Whether a reply has begun to go out."""
        return self._exchange.begun

    def reply(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Awaitable[None]:
        """Send a whole reply."""
        return self._exchange.reply(status, {**headers, **self.headers}, body)

    def begin(self, status: int, headers: Mapping[bytes, bytes]) -> Awaitable[None]:
        """The head of a reply that comes in pieces."""
        told = [*headers.items(), *self.headers.items()]
        return self._exchange.send({"type": "http.response.start", "status": status, "headers": told})

    def send(self, piece: bytes) -> Awaitable[None]:
        """A piece of the reply."""
        return self._exchange.send({"type": "http.response.body", "body": piece, "more_body": True})

    def end(self, piece: bytes) -> Awaitable[None]:
        """The last piece."""
        return self._exchange.send({"type": "http.response.body", "body": piece, "more_body": False})

    def __enter__(self) -> Self:
        self._task = self._exchange.task
        self._exchange.watch(self._leave)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._exchange.watch(None)
        if self.gone and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            return True
        return False

    def _leave(self) -> None:
        self.gone = True
        if self._task is not None:
            self._task.cancel()


async def relay(reply: UpstreamReply, client: Client, call: Call, error_event: Callable[[bytes], bytes]) -> None:
    """Send `reply`, its bytes unchanged, each chunk as soon as it comes.

    Raises:
        UpstreamError: the upstream broke off. An event stream that stood between two events then ended with what `error_event`
            makes of OpenAI's error object, and without `[DONE]`; any other reply was left unfinished, upon which a server
            cuts the connection, so that no client takes it for a whole one.
    """
    body = reply.whole()
    if body is not None:
        call.take(body, 0.0)
        await client.reply(reply.status, headers_for_client(reply.fields()), body)
        return
    fields = reply.fields()
    length = fields.get(b"content-length", b"")
    left = (int(length) if length.isdigit() else 0) or -1
    await client.begin(reply.status, headers_for_client(fields))
    is_stream = call.streamed
    tail = b"\n\n"
    mark = perf_counter()
    try:
        async for chunk in reply.chunks():
            call.take(chunk, perf_counter() - mark)
            if is_stream:
                tail = (tail + chunk)[-4:]
            left -= len(chunk)
            if left == 0:
                await client.end(chunk)
            else:
                await client.send(chunk)
            mark = perf_counter()
    except UpstreamError as error:
        if is_stream and not reply.content_encoding and tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
            await client.end(error_event(_told(error)))
        raise
    if left:
        await client.end(b"")


async def relay_translated(
    reply: UpstreamReply, translator: Translator, client: Client, call: Call, error_event: Callable[[bytes], bytes]
) -> None:
    """Send what `translator` makes of `reply`; a stream's events each as soon as it is complete.

    Raises:
        UpstreamError: the upstream broke off; as UpstreamReplyError, it redirects, or sent what its API does not promise. A
            stream then ended with what `error_event` makes of OpenAI's error object. Of a whole reply nothing was sent yet.
    """
    if 300 <= reply.status < 400:
        raise UpstreamReplyError(f"The model's endpoint answered with the status {reply.status}, which is no answer.")
    fields = reply.fields()
    if not (call.streamed and reply.status < 300):
        body = await _whole(reply, call)
        body = translator.reply(body) if reply.status < 300 else translator.error(reply.status, body)
        fields |= {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
        await client.reply(reply.status, headers_for_client(fields), body)
        return
    fields.pop(b"content-length", None)
    await client.begin(reply.status, headers_for_client(fields))
    mark = perf_counter()
    try:
        async for chunk in reply.chunks():
            call.take(chunk, perf_counter() - mark)
            if piece := translator.feed(chunk):
                await client.send(piece)
            mark = perf_counter()
        last = translator.end()
    except UpstreamError as error:
        told = _told(error)
        await client.end(translator.error_event(told) or error_event(told))
        raise
    await client.end(last)


async def _whole(reply: UpstreamReply, call: Call) -> bytes:
    body = reply.whole()
    if body is not None:
        call.take(body, 0.0)
        _check_size(len(body))
        return body
    pieces: list[bytes] = []
    size = 0
    mark = perf_counter()
    async for chunk in reply.chunks():
        call.take(chunk, perf_counter() - mark)
        pieces.append(chunk)
        size += len(chunk)
        _check_size(size)
        mark = perf_counter()
    return b"".join(pieces)


def _check_size(size: int) -> None:
    if size > _LARGEST_TRANSLATED:
        raise UpstreamReplyError(f"The model's reply is over {_LARGEST_TRANSLATED >> 20} MB, too large to be translated.")


def _told(error: UpstreamError) -> bytes:
    return error_body(str(error), "upstream_error", None, error.code)
