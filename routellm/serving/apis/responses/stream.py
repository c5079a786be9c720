"""A chat's stream as a response's events, in the order and with the numbers that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from routellm.errors import UpstreamReplyError
from routellm.serving.apis.chat_reply import ChatUsage, Choice, Completion, ToolCall, read_completion
from routellm.serving.apis.responses.reply import (
    Response,
    call_item,
    ending,
    logprobs_of,
    message_item,
    new_id,
    refusal_part,
    text_part,
)
from routellm.serving.apis.responses.request import Asked
from routellm.serving.apis.sse import EventReader

_encode = msgspec.json.encode


class _Part:
    """A message's text or refusal while it comes in."""

    def __init__(self, index: int, *, refusal: bool) -> None:
        self.index = index
        self.refusal = refusal
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []

    def as_dict(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        return refusal_part(text) if self.refusal else text_part(text, self.logprobs)


class _Message:
    """A message while it comes in: whole parts, and the one that is open."""

    def __init__(self) -> None:
        self.id = new_id("msg")
        self.done: list[dict[str, Any]] = []
        self.part: _Part | None = None

    def as_dict(self, status: str) -> dict[str, Any]:
        return message_item(self.id, [*self.done, *([self.part.as_dict()] if self.part else [])], status)


class _Call:
    """A function call while its arguments come in. `index` is the chat's number for it."""

    def __init__(self, index: int | None, call_id: str, name: str) -> None:
        self.id = new_id("fc")
        self.index, self.call_id, self.name = index, call_id, name
        self.pieces: list[str] = []

    def as_dict(self, status: str) -> dict[str, Any]:
        return call_item(self.id, self.call_id, self.name, "".join(self.pieces), status)


class ResponseStream:
    """Turns a stream's bytes into events. One item is open at a time; it is closed when the next one begins.

    Args:
        asked: the request.
        model: the name to give where the endpoint names no model.
    """

    def __init__(self, asked: Asked, model: str) -> None:
        self._reader = EventReader()
        self._response = Response(asked, model)
        self._out: list[bytes] = []
        self._number = 0  # of the next event
        self._items: list[dict[str, Any]] = []  # those that are closed
        self._open: _Message | _Call | None = None
        self._started = self._ended = False
        self._finish_reason: str | None = None
        self._usage: ChatUsage | None = None

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` amounts to.

        Raises:
            UpstreamReplyError: the stream tells an error, or is none of chat completions.
        """
        for data in self._reader.feed(chunk):
            if self._ended:
                break
            if data.strip() == b"[DONE]":
                self._end()
            else:
                self._take(read_completion(data))
        return self._written()

    def end(self) -> bytes:
        """The last events. An answer whose finish was told is whole even where the endpoint leaves out its `[DONE]`.

        Raises:
            UpstreamReplyError: the stream ended before its answer did.
        """
        if not self._ended:
            self._end()
        return self._written()

    def failed(self, error: Mapping[str, Any]) -> bytes:
        """The events that end a stream that broke off, after those that were complete before.

        `error` is OpenAI's error. An official client raises it; one that reads all events finds the part of the answer that
        had come in `response.failed`.
        """
        flat = {name: error.get(name) for name in ("code", "message", "param")}
        self._emit("error", **flat, error=error)
        if self._started:
            output = [*self._items, *([self._open.as_dict("incomplete")] if self._open else [])]
            told = {"code": "server_error", "message": error.get("message")}
            self._emit("response.failed", response=self._response.as_dict("failed", output, self._usage, error=told))
        return self._written()

    def _take(self, chunk: Completion) -> None:
        self._response.learn(chunk)
        if not self._started:
            self._started = True
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, response=self._response.as_dict("in_progress", []))
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            self._take_choice(choice)

    def _take_choice(self, choice: Choice) -> None:
        if choice.delta is not None:
            if choice.delta.content:
                self._add_text(choice.delta.content, logprobs_of(choice))
            if choice.delta.refusal:
                self._add_refusal(choice.delta.refusal)
            for call in choice.delta.tool_calls or ():
                self._add_call(call)
        self._finish_reason = choice.finish_reason or self._finish_reason

    def _add_text(self, text: str, logprobs: list[dict[str, Any]]) -> None:
        message, part = self._part(refusal=False)
        part.pieces.append(text)
        part.logprobs += logprobs
        self._emit(
            "response.output_text.delta", **self._place(message), content_index=part.index, delta=text, logprobs=logprobs
        )

    def _add_refusal(self, text: str) -> None:
        message, part = self._part(refusal=True)
        part.pieces.append(text)
        self._emit("response.refusal.delta", **self._place(message), content_index=part.index, delta=text)

    def _part(self, *, refusal: bool) -> tuple[_Message, _Part]:
        """The open message and its open part of this kind, opened where they are not."""
        message = self._open
        if not isinstance(message, _Message):
            message = _Message()
            self._open_item(message)
        part = message.part
        if part is None or part.refusal != refusal:
            self._close_part(message)
            part = message.part = _Part(len(message.done), refusal=refusal)
            self._emit("response.content_part.added", **self._place(message), content_index=part.index, part=part.as_dict())
        return message, part

    def _add_call(self, piece: ToolCall) -> None:
        name = piece.function.name if piece.function is not None else None
        call = self._open
        if not isinstance(call, _Call) or _begins_another(piece, name, call):
            if not name:
                raise UpstreamReplyError("The model's stream is none of chat completions: it calls a function without a name.")
            call = _Call(piece.index, piece.id or new_id("call"), name)
            self._open_item(call)
        if piece.function is not None and piece.function.arguments:
            call.pieces.append(piece.function.arguments)
            self._emit("response.function_call_arguments.delta", **self._place(call), delta=piece.function.arguments)

    def _open_item(self, item: _Message | _Call) -> None:
        self._close_item("completed")
        self._open = item
        self._emit("response.output_item.added", output_index=len(self._items), item=item.as_dict("in_progress"))

    def _close_item(self, status: str) -> None:
        item = self._open
        if item is None:
            return
        if isinstance(item, _Message):
            self._close_part(item)
        else:
            arguments = "".join(item.pieces)
            self._emit("response.function_call_arguments.done", **self._place(item), name=item.name, arguments=arguments)
        done = item.as_dict(status)
        self._emit("response.output_item.done", output_index=len(self._items), item=done)
        self._items.append(done)
        self._open = None

    def _close_part(self, message: _Message) -> None:
        part = message.part
        if part is None:
            return
        place = {**self._place(message), "content_index": part.index}
        done = part.as_dict()
        if part.refusal:
            self._emit("response.refusal.done", **place, refusal=done["refusal"])
        else:
            self._emit("response.output_text.done", **place, text=done["text"], logprobs=done["logprobs"])
        self._emit("response.content_part.done", **place, part=done)
        message.done.append(done)
        message.part = None

    def _end(self) -> None:
        if self._finish_reason is None:
            raise UpstreamReplyError("The model ended its stream before its answer.")
        if not self._items and self._open is None:
            self._part(refusal=False)  # an answer without a word is a message without a word
        status, reason = ending(self._finish_reason)
        self._close_item(status)
        response = self._response.as_dict(status, self._items, self._usage, reason=reason)
        self._emit(f"response.{status}", response=response)
        self._ended = True

    def _place(self, item: _Message | _Call) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": len(self._items)}

    def _emit(self, kind: str, **fields: Any) -> None:
        event = _encode({"type": kind, "sequence_number": self._number, **fields})
        self._out.append(b"event: %s\ndata: %s\n\n" % (kind.encode(), event))
        self._number += 1

    def _written(self) -> bytes:
        written = b"".join(self._out)
        self._out.clear()
        return written


def _begins_another(piece: ToolCall, name: str | None, call: _Call) -> bool:
    """Whether a piece belongs to another call than the open one: some endpoints leave out `index`, or say 0 every time."""
    if piece.index is not None and piece.index != call.index:
        return True
    return bool(name and piece.id and piece.id != call.call_id)
