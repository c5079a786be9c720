"""Sending a model's reply on to the client, chunk by chunk, and noticing when either side goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from routellm.errors import UpstreamError, UpstreamReplyError
from routellm.serving.call import Call
from routellm.serving.errors import RawHeaders, error_body
from routellm.serving.headers import headers_for_client
from routellm.upstream.base import UpstreamReply

if TYPE_CHECKING:
    from starlette.types import Send

    from routellm.serving.apis.base import Translator

_LARGEST_TRANSLATED = 32 << 20


class ClientWatch:
    """Cancels the task that it was entered in soon after the client goes away, and absorbs that cancellation.

    `gone` tells afterwards whether the client went away, `begun` whether a reply had begun to go out.

    Args:
        watch: `Exchange.watch`.
    """

    def __init__(self, watch: Callable[[Callable[[], object] | None], None]) -> None:
        self.gone = self.begun = False
        self._watch = watch

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watch(self._leave)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._watch(None)
        if self.gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            return True
        return False

    def _leave(self) -> None:
        self.gone = True
        self._task.cancel()


@dataclass(frozen=True, slots=True)
class Client:
    """Where a reply goes: how to send to the client, the watch over it, and the headers that are added."""

    send: Send
    watch: ClientWatch
    headers: RawHeaders

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The reply's status, and the upstream's `headers` with ours."""
        self.watch.begun = True
        await self.send(
            {"type": "http.response.start", "status": status, "headers": headers_for_client(headers) + self.headers}
        )

    async def end(self, body: bytes) -> None:
        """The last piece."""
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


async def relay(reply: UpstreamReply, client: Client, call: Call, error_event: Callable[[bytes], bytes]) -> None:
    """Send `reply`, its bytes unchanged, each chunk as soon as it comes.

    Raises:
        UpstreamError: the upstream broke off. An event stream that stood between two events then ended with what `error_event`
            makes of OpenAI's error object, and without `[DONE]`; any other reply was left unfinished, upon which a server
            cuts the connection, so that no client takes it for a whole one.
    """
    await client.begin(reply.status, reply.headers)
    send, is_stream = client.send, call.streamed
    tail = b"\n\n"
    length = reply.headers.get("content-length", "")
    left = (int(length) if length.isdecimal() else 0) or -1
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
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            mark = perf_counter()
    except UpstreamError as error:
        if is_stream and "content-encoding" not in reply.headers and tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
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
    if not (call.streamed and reply.status < 300):
        body = await _whole(reply, call)
        body = translator.reply(body) if reply.status < 300 else translator.error(reply.status, body)
        length = str(len(body))
        await client.begin(reply.status, {**reply.headers, "content-type": "application/json", "content-length": length})
        await client.end(body)
        return
    await client.begin(reply.status, {name: value for name, value in reply.headers.items() if name != "content-length"})
    mark = perf_counter()
    try:
        async for chunk in reply.chunks():
            call.take(chunk, perf_counter() - mark)
            if piece := translator.feed(chunk):
                await client.send({"type": "http.response.body", "body": piece, "more_body": True})
            mark = perf_counter()
        last = translator.end()
    except UpstreamError as error:
        told = _told(error)
        await client.end(translator.error_event(told) or error_event(told))
        raise
    await client.end(last)


async def _whole(reply: UpstreamReply, call: Call) -> bytes:
    pieces: list[bytes] = []
    size = 0
    mark = perf_counter()
    async for chunk in reply.chunks():
        call.take(chunk, perf_counter() - mark)
        pieces.append(chunk)
        size += len(chunk)
        if size > _LARGEST_TRANSLATED:
            raise UpstreamReplyError(f"The model's reply is over {_LARGEST_TRANSLATED >> 20} MB, too large to be translated.")
        mark = perf_counter()
    return b"".join(pieces)


def _told(error: UpstreamError) -> bytes:
    return error_body(str(error), "upstream_error", None, error.code)
