"""Which part of a chat request decides, and how a model name asks for a router.

Both the server and the controllers read a request's `messages` here, so that the same request is decided in the same way
wherever it comes in. Message contents stay undecoded bytes until they are known to matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from routellm.errors import RequestError, did_you_mean
from routellm.types import check_threshold

T = TypeVar("T")

PromptFrom: TypeAlias = Literal["last", "first"] | int
"""Which user turns make the prompt that decides: the last one (default), the first one, or the last k joined."""

_PREFIX = "router-"
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_HALF_CHARACTER = re.compile(
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"  # msgspec's errors don't always say so
)
_TEXT_PARTS = frozenset({"text", "input_text"})
_PART_MODALITIES = {
    **dict.fromkeys(("image_url", "input_image", "image"), "image"),
    **dict.fromkeys(("file", "input_file", "document"), "file"),
    "input_audio": "audio",
    "video_url": "video",
}
_TOOL_RESULT = "tool_result"


class Message(msgspec.Struct):
    """One message, with only what a decision needs; every other field is passed by."""

    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


class PromptView(msgspec.Struct, frozen=True, gc=False):
    """What a router gets to see of a request.

    `text` is None where the user's turns hold no text. `modalities` are the kinds of parts other than text that any
    message of the request holds ("image", "audio", "video", "file").
    """

    text: str | None
    modalities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RouterTarget:
    """A model name that asks for a router; `threshold` is None where the router's default is asked for."""

    router: str
    threshold: float | None


_decode_messages = msgspec.json.Decoder(list[Message]).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_decode_any = msgspec.json.Decoder().decode


def parse_model_name(name: str, routers: Collection[str]) -> RouterTarget | None:
    """Read `router-<name>-<threshold>` or `router-<name>`; None where `name` does not start with `router-`.

    Router names may themselves hold hyphens, so the longest served name that fits is taken.

    Raises:
        RequestError: the router is not served, or the threshold is not a number in [0, 1].
    """
    if not name.startswith(_PREFIX):
        return None
    rest = name[len(_PREFIX) :]
    if rest in routers:
        return RouterTarget(rest, None)
    fitting = max((router for router in routers if rest.startswith(router + "-")), key=len, default=None)
    if fitting is None:
        asked = rest.rsplit("-", 1)[0] if _NUMBER.fullmatch(rest.rsplit("-", 1)[-1]) else rest
        raise RequestError(
            f"The model {name!r} asks for the router {asked!r}, which is not served{did_you_mean(asked, routers)}. "
            f"Served routers: {', '.join(sorted(routers)) or 'none'}. Write router-NAME-THRESHOLD, such as router-mf-0.5.",
            param="model",
            code="unknown_router",
        )
    given = rest[len(fitting) + 1 :]
    if not _NUMBER.fullmatch(given):
        raise RequestError(
            f"The model {name!r} gives the threshold {given!r}; it must be a number from 0 to 1, as in router-{fitting}-0.5.",
            param="model",
            code="invalid_threshold",
        )
    return RouterTarget(fitting, check_threshold(float(given), param="model"))


def encode_messages(messages: Iterable[Any]) -> bytes:
    """JSON of messages as a Python caller gives them: dicts, or the OpenAI client's own message objects.

    Raises:
        RequestError: a message holds something that JSON has no form for, a lone surrogate among them.
    """
    try:
        return msgspec.json.encode(list(messages), enc_hook=_dump_model)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"`messages` can't be written as JSON: {error}", param="messages") from error


def decode_json(decode: Callable[[bytes | msgspec.Raw], T], data: bytes | msgspec.Raw, what: str, param: str | None) -> T:
    """Apply a msgspec decoder to JSON that came from outside.

    Raises:
        RequestError: it is not valid JSON, or not of the decoder's type; `what` begins the message.
    """
    try:
        return decode(data)
    except RecursionError:
        raise RequestError(f"{what}: it is nested too deeply.", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # wrong types, broken JSON, bytes that are not UTF-8
        raise RequestError(f"{what}: {_explained(error, bytes(data))}", param=param) from None


def read_prompt(messages: bytes | msgspec.Raw, prompt_from: PromptFrom = "last") -> PromptView:
    """Find the prompt that decides in the JSON of a request's `messages`.

    Raises:
        RequestError: `messages` is not a non-empty list of messages with a role, or a content is neither a string, a list
            of parts, nor null.
    """
    parsed = decode_json(
        _decode_messages, messages, "`messages` must be a list of objects, each with a `role` and a `content`", "messages"
    )
    if not parsed:
        raise RequestError("`messages` is empty; send at least one message.", param="messages")
    return read_turns(parsed, prompt_from, "messages")


def read_turns(messages: Sequence[Message], prompt_from: PromptFrom, field: str) -> PromptView:
    """Find the prompt that decides in messages whose contents are not decoded yet.

    Anthropic's messages have no role for tool results, so that a user's message of nothing but these is no turn of the user's.

    Args:
        messages: all that the request's `field` holds, in order.
        prompt_from: which user turns make the prompt.
        field: what errors name.

    Raises:
        RequestError: a content is neither a string, a list of parts, nor null.
    """
    modalities: set[str] = set()
    turns: list[tuple[int, str | None]] = []  # and the text, where it is known already
    for index, message in enumerate(messages):
        content = bytes(message.content)
        if content[:1] == b"[":
            text = _read_parts(content, f"{field}[{index}].content", modalities)
            if message.role == "user" and text is not None:
                turns.append((index, text))
        elif message.role == "user":
            turns.append((index, None))
    texts = [
        _read_text(bytes(messages[index].content), field, index) if text is None else text
        for index, text in _wanted(turns, prompt_from)
    ]
    prompt = "\n\n".join([text for text in texts if text.strip()])
    return PromptView(prompt or None, frozenset(modalities))


def _explained(error: Exception, data: bytes) -> str:
    text = str(error)
    if any(words in text for words in ("surrogate", "hex escape", "truncated")) and _HALF_CHARACTER.search(data):
        return f"it holds half a character (a lone surrogate such as \\ud83d); send whole characters. {text}"
    return text


def _wanted(turns: list[T], prompt_from: PromptFrom) -> list[T]:
    if prompt_from == "first":
        return turns[:1]
    return turns[-1:] if prompt_from == "last" else turns[-prompt_from:]


def _read_text(content: bytes, field: str, index: int) -> str:
    try:
        return _decode_text(content) or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        where = f"{field}[{index}].content"
        kind = type(_decode(content, where)).__name__  # raises where it is no JSON at all
        raise RequestError(f"{where} must be a string, a list of parts or null, not {kind}.", param=where) from None


def _read_parts(content: bytes, list_name: str, modalities: set[str]) -> str | None:
    """The parts' text, or None where they are tool results and nothing else."""
    texts: list[str] = []
    kinds: set[str] = set()
    for number, part in enumerate(_decode(content, list_name)):
        where = f"{list_name}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise RequestError(f"{where} must be an object with a `type`, such as 'text'.", param=where)
        kinds.add(kind)
        if kind in _TEXT_PARTS:
            text = part.get("text")
            if not isinstance(text, str):
                raise RequestError(f"{where}.text must be a string.", param=f"{where}.text")
            texts.append(text)
        elif kind in _PART_MODALITIES:
            modalities.add(_PART_MODALITIES[kind])
        elif kind == _TOOL_RESULT and isinstance(part.get("content"), list):
            modalities |= _modalities_inside(part["content"])
    return None if kinds == {_TOOL_RESULT} else "\n".join(texts)


def _modalities_inside(blocks: list[Any]) -> set[str]:
    kinds = (block.get("type") for block in blocks if isinstance(block, dict))
    return {_PART_MODALITIES[kind] for kind in kinds if isinstance(kind, str) and kind in _PART_MODALITIES}


def _decode(content: bytes, where: str) -> Any:
    return decode_json(_decode_any, content, f"{where} is not valid JSON", where)


def _dump_model(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_unset=True)
    raise TypeError(f"a {type(value).__name__} is not JSON")
