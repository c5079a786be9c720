"""How many tokens a request took, read out of the reply's bytes as they pass by.

Of a stream only those events are decoded that hold an object under "usage"; of a large whole reply only the end, or all of
it where that is not enough. What looks like usage is always decoded as the JSON that it is part of, so that no text is taken
for it: inside of a JSON string every quotation mark is escaped.

Where the upstream tells nothing, tokens are estimated: one for every 4 bytes of the text that went up, in UTF-8, and one for
every 4 bytes of the text that came back, as it stands in the JSON. A request is never changed to make an upstream tell.
"""

from __future__ import annotations

import re
import zlib
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from routellm.types import Usage
from routellm.upstream.base import Format

BYTES_PER_TOKEN = 4
"""The usual rule of thumb. Chinese, Japanese and Korean take 3 bytes a character, for which it gives about what they take."""

LARGEST_COUNTED = 1 << 20
"""Bytes of a request whose text is counted; a larger one, which holds pictures or files, is taken to have as many of text."""

_LONGEST_EVENT = 4 << 20  # a longer event is passed over
_LARGEST_BODY = 1 << 20  # of a larger whole reply only the end is kept
_LARGEST_ENCODED = 128 << 10  # a larger compressed reply is not looked into
_END = 64 << 10
_SMALL = 4 << 10  # a whole reply of up to so many bytes is decoded sooner than its end is looked for

_USAGE = re.compile(rb'"usage"\s*:\s*\{')

_STRING = rb'"(?:%s)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"'
_CHAT = re.compile(_STRING % rb"content|reasoning_content|reasoning|refusal|arguments")
_MESSAGES = re.compile(_STRING % rb"text|thinking|partial_json")
_TEXT_OF_EVENT: dict[Format, re.Pattern[bytes]] = {
    "chat": _CHAT,
    "completions": re.compile(_STRING % rb"text"),
    "messages": _MESSAGES,
    "responses": re.compile(_STRING % rb"delta"),  # the events that end a text hold all of it again
}
_TEXT_OF_WHOLE: dict[Format, re.Pattern[bytes]] = {**_TEXT_OF_EVENT, "responses": re.compile(_STRING % rb"text|arguments")}
"""The strings that a model wrote; embeddings have none."""

_NO_TEXT = frozenset(
    {"data", "encrypted_content", "file_data", "file_id", "id", "image_url", "model", "role", "type", "url", "video_url"}
)
"""Fields of a request that hold labels, pictures, sound and files, which are not counted."""

_T = TypeVar("_T")
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Counts(msgspec.Struct):
    """Token counts under the names that the formats have for them."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    input_tokens_details: _Details | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None


class _Reply(msgspec.Struct):
    usage: _Counts | None = None


class _Event(msgspec.Struct):
    """Usage stands in an event itself, in the `response` that it carries, or in the `message` that it begins."""

    usage: _Counts | None = None
    response: _Reply | None = None
    message: _Reply | None = None


_event_decoder = msgspec.json.Decoder(_Event)
_reply_decoder = msgspec.json.Decoder(_Reply)


class UsageReader:
    """Sees one reply's bytes, and tells at the end what they said of tokens. For replies with a 2xx status.

    Args:
        format: the API that the bytes are of, which is the upstream's.
        content_type, content_encoding: the reply's headers. gzip and deflate are read, up to a size; a reply in another
            encoding tells nothing, and counts a token for every 4 bytes as they came.
    """

    _size = 0  # bytes of `_pieces`
    _seen = 0
    _text_bytes = 0
    _input: int | None = None
    _output: int | None = None
    _cached = 0

    def __init__(self, format: Format, content_type: str = "", content_encoding: str = "") -> None:
        self._format: Format = format
        self._is_stream = content_type.startswith("text/event-stream")
        self._encoded = content_encoding not in ("", "identity")
        self._pieces: list[bytes] = []  # an event that is not complete yet; or all of a whole reply, or its end

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes. Takes microseconds, and never fails, whatever they are."""
        self._seen += len(chunk)
        if not self._is_stream or self._encoded:
            self._keep(chunk)
            return
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            self._pieces.append(chunk)
            self._size += len(chunk)
            if self._size > _LONGEST_EVENT:
                self._take()
            return
        self._look(self._take() + chunk[:end] if self._pieces else chunk[:end])
        if end < len(chunk):
            self._pieces.append(chunk[end:])
            self._size = len(chunk) - end

    def usage(self, request_body: bytes) -> Usage:
        """The tokens that the upstream told; what it did not tell is estimated, from `request_body` and the reply."""
        if self._is_stream and not self._encoded:
            self._look(self._take())
        else:
            self._look_at_whole()
        if self._format == "embeddings" and self._output is None:
            self._output = 0
        told = self._input is not None and self._output is not None
        given = estimate_tokens(request_body) if self._input is None else self._input
        return Usage(
            input_tokens=given,
            output_tokens=-(-self._text_bytes // BYTES_PER_TOKEN) if self._output is None else self._output,
            cached_input_tokens=min(self._cached, given),
            estimated=not told,
        )

    def _take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return taken

    def _keep(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size > _LARGEST_BODY:
            self._pieces = [self._take()[-_END:]]
            self._size = len(self._pieces[0])

    def _look(self, events: bytes) -> None:
        """Whole lines of a stream."""
        pattern = _TEXT_OF_EVENT.get(self._format)
        if pattern is not None:
            self._text_bytes += sum(map(len, pattern.findall(events)))
        if _USAGE.search(events) is None:
            return
        for line in events.splitlines():
            if line.startswith(b"data:") and _USAGE.search(line) and (event := _decoded(_event_decoder, line[5:])):
                if event.message is not None and event.message.usage is not None:
                    self._add(event.message.usage)
                    self._output = None  # at its beginning a message has said nothing of what is to come
                for holder in (event.response, event):
                    if holder is not None and holder.usage is not None:
                        self._add(holder.usage)

    def _look_at_whole(self) -> None:
        is_whole = self._size == self._seen
        body = self._take()
        if self._encoded:
            inflated = _inflated(body) if is_whole and len(body) <= _LARGEST_ENCODED else None
            if inflated is None:
                self._text_bytes = self._seen
                return
            body = inflated
        if self._is_stream:
            self._look(body)
            return
        reply = _decoded(_reply_decoder, body) if is_whole and len(body) <= _SMALL else None
        if reply is None:
            reply = _from_end(body[-_END:]) or (_decoded(_reply_decoder, body) if is_whole else None)
        if reply is not None and reply.usage is not None:
            self._add(reply.usage)
        if self._output is None and (pattern := _TEXT_OF_WHOLE.get(self._format)) is not None:
            self._text_bytes = sum(map(len, pattern.findall(body))) if is_whole else self._seen

    def _add(self, counts: _Counts) -> None:
        """What is told later replaces what was told before."""
        given = counts.input_tokens if counts.prompt_tokens is None else counts.prompt_tokens
        answered = counts.output_tokens if counts.completion_tokens is None else counts.completion_tokens
        details = counts.input_tokens_details if counts.prompt_tokens_details is None else counts.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        if self._format == "messages" and given is not None:  # which counts what comes from or goes to the cache apart
            cached = counts.cache_read_input_tokens
            given += (counts.cache_creation_input_tokens or 0) + (cached or 0)
        if given is not None:
            self._input, self._cached = given, cached or 0
        if answered is not None:
            self._output = answered


def estimate_tokens(request_body: bytes) -> int:
    """By the rule of this module, of all texts in a request, tools' descriptions included; a number in a list is a token."""
    if len(request_body) > LARGEST_COUNTED:
        return LARGEST_COUNTED // BYTES_PER_TOKEN
    size = 0
    waiting = [_decoded(msgspec.json.Decoder(), request_body)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "surrogatepass")) if not value.startswith("data:") else 0
        elif isinstance(value, dict):
            waiting += [held for name, held in value.items() if name not in _NO_TEXT and not isinstance(held, int)]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and not isinstance(value, bool):
            size += BYTES_PER_TOKEN
    return -(-size // BYTES_PER_TOKEN)


def _from_end(end: bytes) -> _Reply | None:
    """A reply's usage by its last bytes. From the field on to the end they must make an object: then it is the reply's own
    field, and not one of an object within it."""
    start = end.rfind(b'"usage"')
    if start < 0 or not end[:start].rstrip().endswith((b"{", b",")) or _USAGE.match(end, start) is None:
        return None
    return _decoded(_reply_decoder, b"{" + end[start:])


def _decoded(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T | None:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _inflated(body: bytes) -> bytes | None:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either of gzip and deflate
    try:
        inflated = inflater.decompress(body, _LARGEST_BODY)
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else inflated
