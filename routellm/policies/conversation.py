"""What tells one conversation from another in a request, for every API alike.

Never a reason to refuse a request: what does not have the form that is looked for names no conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

NAMED_BY = ("header", "user", "start")
"""A header of the client's; a field of the body that names a conversation or a user; or the conversation's beginning."""

_NAMING_FIELDS = ("conversation", "prompt_cache_key", "metadata", "safety_identifier", "user")
"""From the narrowest to the widest: the first one that a request has names its conversation."""

_NOTHING = (b"null", b'""', b"{}")


class _Metadata(msgspec.Struct):
    user_id: msgspec.Raw = msgspec.Raw(b"null")


class _Turn(msgspec.Struct):
    role: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")


_decode_metadata = msgspec.json.Decoder(_Metadata).decode
_decode_turns = msgspec.json.Decoder(str | list[_Turn]).decode
_decode_content = msgspec.json.Decoder(str | list[dict[str, msgspec.Raw]] | None).decode
_decode_text = msgspec.json.Decoder(str).decode


def conversation_of(
    by: str, header: bytes, headers: Iterable[tuple[bytes, bytes]], fields: Mapping[str, msgspec.Raw]
) -> bytes | None:
    """What names the request's conversation; None where nothing does.

    Args:
        by: one of `NAMED_BY`.
        header: the name, in lower case, of the header that is looked at by "header".
        headers: the request's, names in lower case.
        fields: the body's, each as JSON.
    """
    if by == "header":
        return next((value for name, value in headers if name == header and value), None)
    try:
        return _by_field(fields) if by == "user" else _by_start(fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _by_field(fields: Mapping[str, msgspec.Raw]) -> bytes | None:
    for name in _NAMING_FIELDS:
        if name in fields:
            raw = bytes(_decode_metadata(fields[name]).user_id if name == "metadata" else fields[name])
            if raw not in _NOTHING:
                return name.encode() + b" " + raw
    return None


def _by_start(fields: Mapping[str, msgspec.Raw]) -> bytes | None:
    """The text that the model is set up with, and the first user message's: what later turns repeat."""
    if bytes(fields.get("previous_response_id", b"null")) not in _NOTHING:
        return None  # the beginning is at the provider's
    pieces = [_text(fields[name]) for name in ("system", "instructions") if name in fields]
    turns = _decode_turns(fields.get("messages") or fields.get("input") or b"[]")
    if isinstance(turns, str):  # the Responses API's short form of one user message
        return b"\0".join([*pieces, turns.encode()])
    for turn in turns:
        if turn.role in ("system", "developer", "user"):
            pieces.append(_text(turn.content))
        if turn.role == "user":
            return b"\0".join(pieces)
    return None


def _text(content: msgspec.Raw) -> bytes:
    """The text, however it is wrapped, and what else the parts hold but for marks of caching, which move from turn to turn."""
    decoded = _decode_content(content)
    if isinstance(decoded, str):
        return decoded.encode()
    pieces = []
    for part in decoded or ():
        if "text" in part:
            pieces.append(_decode_text(part["text"]).encode())
        else:
            pieces.extend(bytes(value) for name, value in part.items() if name != "cache_control")
    return b"\n".join(pieces)
