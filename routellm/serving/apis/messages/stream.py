"""A stream of chat completion chunks as the events of a message.

A message's blocks follow one another, while a chat may send its tool calls in pieces by turns. So the first block that is not
finished is live, and what comes for a later one waits: text is finished when a call follows it, and a call when its arguments
are a whole object and something follows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from routellm.errors import UpstreamReplyError
from routellm.serving.apis.chat_reply import ChatUsage, Choice, Completion, Text, ToolCall, read_completion
from routellm.serving.apis.messages.reply import Fields, bad_arguments, head, read_arguments, stop_of, tool_use, usage_of
from routellm.serving.apis.sse import EventReader

_DONE = b"[DONE]"
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_TEXT = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Block:
    """A block of the answer. `pieces` are what came of it: all of a call's arguments, and of a text what has to wait."""

    content: Fields
    pieces: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def is_text(self) -> bool:
        return bool(self.content["type"] == "text")

    @property
    def whole(self) -> bool:
        """Whether nothing is missing from it."""
        return self.is_text or read_arguments("".join(self.pieces)) is not None

    @property
    def finished(self) -> bool:
        """Whether nothing more can come, for all that can be told: a call's arguments may just not have begun."""
        return self.whole and (self.is_text or any(piece.strip() for piece in self.pieces))


class MessageStream:
    """Takes the chat's stream chunk by chunk, and gives out the message's events. One a reply.

    Args:
        stop_sequences: those that the request gave.
    """

    def __init__(self, stop_sequences: Collection[str]) -> None:
        self._stop_sequences = stop_sequences
        self._reader = EventReader()
        self._out: list[bytes] = []
        self._blocks: deque[_Block] = deque()  # the first one is live
        self._index = 0  # of the live block
        self._calls: dict[int, _Block] = {}  # by the chat's index, the newest of each
        self._space = ""  # that came before any text
        self._end = Choice()
        self._usage: ChatUsage | None = None
        self._refused = False
        self._started = False
        self._done = False
        self._failure: UpstreamReplyError | None = None

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes. An error is raised once what came before it was given out.

        Raises:
            UpstreamReplyError: an event is not what the chat API promises.
        """
        if self._failure is None:
            try:
                for data in self._reader.feed(chunk):
                    self._take(data)
            except UpstreamReplyError as error:
                self._failure = error
        if self._out:
            events = b"".join(self._out)
            self._out.clear()
            return events
        if self._failure is not None:
            raise self._failure
        return b""

    def end(self) -> bytes:
        """Nothing, once the chat's stream has ended as it should.

        Raises:
            UpstreamReplyError: it did not, or the error that the last `feed` held back.
        """
        if self._failure is not None:
            raise self._failure
        if not self._done:
            raise UpstreamReplyError("The model's stream ended before its answer did: it sent no [DONE].")
        return b""

    def _take(self, data: bytes) -> None:
        if self._done:
            return
        if data == _DONE:
            self._finish()
            return
        completion = read_completion(data)
        if not self._started:
            self._start(completion)
        if completion.usage is not None:
            self._usage = completion.usage
        for choice in completion.choices or ():
            if choice.index:  # a chat that sends more than the one answer that was asked for
                continue
            if choice.delta is not None:
                self._delta(choice.delta)
            if choice.finish_reason is not None:
                self._end = choice

    def _start(self, completion: Completion) -> None:
        self._started = True
        message = {**head(completion), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage_of(None)}
        self._send("message_start", message=message)
        self._out.append(_PING)

    def _delta(self, delta: Text) -> None:
        if delta.content:
            self._text(delta.content)
        if delta.refusal:
            self._refused = True
            self._text(delta.refusal)
        for call in delta.tool_calls or ():
            self._call(call)

    def _text(self, text: str) -> None:
        if not self._blocks or not self._blocks[-1].is_text:
            text = self._space + text
            self._space = "" if text.strip() else text
            if self._space:
                return
            self._add(_Block({"type": "text", "text": ""}))
        self._push(self._blocks[-1], text)

    def _call(self, call: ToolCall) -> None:
        key = call.index or 0
        block = self._calls.get(key)
        # Some endpoints give every call the same index; then another id is another call.
        if block is None or (call.id and call.function and call.function.name and call.id != block.content["id"]):
            block = self._calls[key] = _Block(tool_use(call))
            self._add(block)
        if call.function is not None and call.function.arguments:
            self._push(block, call.function.arguments)

    def _add(self, block: _Block) -> None:
        self._space = ""
        self._blocks.append(block)
        if len(self._blocks) == 1:
            self._open()
        else:
            self._advance()

    def _push(self, block: _Block, piece: str) -> None:
        if block.closed:
            if piece.strip():
                raise bad_arguments(block.content["name"])
            return
        live = block is self._blocks[0]
        if not (live and block.is_text):
            block.pieces.append(piece)
        if live:
            self._piece(block, piece)

    def _advance(self) -> None:
        """Make the first block live that is not finished."""
        while len(self._blocks) > 1 and self._blocks[0].finished:
            self._close()
            self._open()

    def _open(self) -> None:
        block = self._blocks[0]
        self._send("content_block_start", index=self._index, content_block=block.content)
        for piece in block.pieces:
            self._piece(block, piece)

    def _close(self) -> None:
        self._blocks.popleft().closed = True
        self._send("content_block_stop", index=self._index)
        self._index += 1

    def _piece(self, block: _Block, piece: str) -> None:
        if block.is_text:
            self._out.append(_TEXT % (self._index, _encode(piece)))
        else:
            delta = {"type": "input_json_delta", "partial_json": piece}
            self._send("content_block_delta", index=self._index, delta=delta)

    def _finish(self) -> None:
        if not self._started:
            raise UpstreamReplyError("The model's stream ended before its answer began.")
        while self._blocks:
            block = self._blocks[0]
            if not block.whole and self._end.finish_reason != "length":
                raise bad_arguments(block.content["name"])
            self._close()
            if self._blocks:
                self._open()
        end = stop_of(self._end, bool(self._calls), self._refused, self._stop_sequences)
        self._send("message_delta", delta=end, usage=usage_of(self._usage))
        self._send("message_stop")
        self._done = True

    def _send(self, kind: str, **fields: object) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields})))
