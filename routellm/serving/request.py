"""Reading a request: its body within a limit, the fields that decide, and the body again with another model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from routellm.errors import BodyTooLargeError, RequestError
from routellm.messages import decode_json

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from routellm.serving.exchange import Exchange

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode

# What stands before a field's value: `{` or `,`, the field's name, and a colon.
_FIELD = re.compile(rb'\s*[{,]\s*"([^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*')
_END = re.compile(rb"\s*}\s*")


class ClientGoneError(Exception):
    """The client closed its connection before its request was complete. There is nobody to answer."""


class ApiRequest(msgspec.Struct, frozen=True):
    """A request of any API, of which only `model` was looked at. `fields` holds every field's bytes as sent."""

    body: bytes
    model: str
    fields: dict[str, msgspec.Raw]

    def body_for(self, model: str) -> bytes:
        """The body with `model` in place of the one that was asked for, every other byte as sent.

        Raises:
            RequestError: a field is given twice: this server and a model might each read another one of the two.
        """
        start = self._place_of_model()
        if start is None:
            start = self._find_model()
        stop = start + len(self.fields["model"])
        return b"".join((self.body[:start], msgspec.json.encode(model), self.body[stop:]))

    def _place_of_model(self) -> int | None:
        """Where the value of `model` begins in a body without any white space between fields, as official clients write it.

        The fields that were read then account for each byte, so that none is given twice. None where they don't.
        """
        position, place = 1, 0  # behind the brace
        for name, value in self.fields.items():
            if name == "model":
                place = position
            position += len(name) + len(value) + 4  # two quotes, a colon, and a comma or the last brace
        return place + len('"model":') if position == len(self.body) else None

    def _find_model(self) -> int:
        """Where the value of `model` begins in a body of any form; raises as `body_for` does."""
        body, position, start = self.body, 0, 0
        for name, value in self.fields.items():
            field = _FIELD.match(body, position)
            raw = bytes(value)
            if field is None or not _is_name(field[1], name) or not body.startswith(raw, position := field.end()):
                raise _given_twice()
            if name == "model":
                start = position
            position += len(raw)
        if _END.fullmatch(body, position) is None:
            raise _given_twice()
        return start


def whole_body(exchange: Exchange, limit: int) -> bytes | None:
    """The body, where all of it has come in already, as with most requests; else None, and `read_body` waits for it.

    Raises:
        BodyTooLargeError: it is over `limit` bytes.
    """
    body = exchange.whole()
    if body is not None and len(body) > limit:
        raise BodyTooLargeError(limit)
    return body


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: it is over `limit` bytes, by its Content-Length (then not a byte is read) or by what came.
        ClientGoneError: the client left before the end.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            raise BodyTooLargeError(limit)
    pieces: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = event.get("body", b"")
        size += len(piece)
        if size > limit:
            raise BodyTooLargeError(limit)
        pieces.append(piece)
        if not event.get("more_body", False):
            return b"".join(pieces)  # a single piece as it is


def parse_request(body: bytes, required: Sequence[str]) -> ApiRequest:
    """Look at `model`; leave every other field as bytes.

    Raises:
        RequestError: the body is not a JSON object, has no `model` or lacks one of the `required` fields, or its `model` is no
            string.
    """
    fields = decode_json(_decode_fields, body, "The request's body must be a JSON object", None)
    for name in ("model", *required):
        if name not in fields:
            raise RequestError(f"The request has no `{name}`.", param=name, code="missing_required_parameter")
    model = decode_json(_decode_string, fields["model"], "`model` must be a string such as 'router-mf-0.5'", "model")
    return ApiRequest(body, model, fields)


def _is_name(written: bytes, name: str) -> bool:
    return written == name.encode() or (b"\\" in written and _decode_string(b'"' + written + b'"') == name)


def _given_twice() -> RequestError:
    return RequestError("The request's body gives a field twice; give each field once.", code="duplicate_field")
