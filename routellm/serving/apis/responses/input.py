"""The conversation of a request: `input`'s items as a chat's messages.

What an item says goes over whole or not at all. Left out are only the ids and states under which OpenAI's own store knows an
item, and the log probabilities of text that was already written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from routellm.serving.apis.fields import invalid, known_fields, string_in, unsupported

Fields: TypeAlias = dict[str, Any]
Part: TypeAlias = Callable[[object, str], Fields]

_BREAKPOINT = "prompt_cache_breakpoint"


def to_messages(value: object) -> list[Fields]:
    """The messages that `input` stands for.

    Raises:
        RequestError: an item is not of the form that the API gives it, or a chat has no place for it.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise invalid("input", "a string or a list of at least one item")
    messages: list[Fields] = []
    for index, item in enumerate(value):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            raise invalid(where, "an object")
        kind = item.get("type") or ("message" if "role" in item else "item_reference")
        translate = _ITEMS.get(kind) if isinstance(kind, str) else None
        if translate is None:
            raise unsupported(where, f"It is of the type {kind!r}; {_ADVICE.get(str(kind), _TRANSLATED)}")
        translate(item, where, messages)
    return messages


def _message(item: Fields, where: str, messages: list[Fields]) -> None:
    item = known_fields(item, where, ("type", "id", "status", "role", "content"))
    role = item.get("role")
    parts = _PARTS.get(role) if isinstance(role, str) else None
    if parts is None:
        raise invalid(f"{where}.role", f"one of {', '.join(_PARTS)}")
    content = _content(item.get("content"), f"{where}.content", parts)
    last = messages[-1] if messages else {}
    if role == "assistant" and last.get("role") == role and last["content"] is None:
        last["content"] = content  # a text that came after calls is of the same turn
    else:
        messages.append({"role": role, "content": content})


def _function_call(item: Fields, where: str, messages: list[Fields]) -> None:
    item = known_fields(item, where, ("type", "id", "status", "call_id", "name", "arguments"))
    function = {name: string_in(item, name, where) for name in ("name", "arguments")}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    calls = messages[-1].setdefault("tool_calls", [])
    calls.append({"id": string_in(item, "call_id", where), "type": "function", "function": function})


def _function_call_output(item: Fields, where: str, messages: list[Fields]) -> None:
    item = known_fields(item, where, ("type", "id", "status", "call_id", "output"))
    call_id = string_in(item, "call_id", where)
    content = _content(item.get("output"), f"{where}.output", {"input_text": _input_text})
    messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def _content(value: object, where: str, parts: Mapping[str, Part]) -> str | list[Fields]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid(where, "a string or a list of parts")
    translated = []
    for number, part in enumerate(value):
        at = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise invalid(at, "an object with a `type`")
        if kind not in parts:
            raise unsupported(at, f"It is of the type {kind!r}; here go over: {', '.join(parts)}.")
        translated.append(parts[kind](part, at))
    if not translated:
        return ""
    if len(translated) == 1 and translated[0].keys() == {"type", "text"}:
        return str(translated[0]["text"])  # which every endpoint takes, in any role
    return translated


def _input_text(part: object, where: str) -> Fields:
    given = known_fields(part, where, ("type", "text", _BREAKPOINT))
    return {"type": "text", "text": string_in(given, "text", where), **_kept(given, _BREAKPOINT)}


def _input_image(part: object, where: str) -> Fields:
    given = known_fields(part, where, ("type", "image_url", "detail", _BREAKPOINT))
    image = {"url": string_in(given, "image_url", where), **_kept(given, "detail")}
    return {"type": "image_url", "image_url": image, **_kept(given, _BREAKPOINT)}


def _input_file(part: object, where: str) -> Fields:
    given = known_fields(part, where, ("type", "file_data", "file_id", "filename", _BREAKPOINT))
    if "file_data" not in given and "file_id" not in given:
        raise invalid(where, "a file with `file_data` or `file_id`")
    return {"type": "file", "file": _kept(given, "file_data", "file_id", "filename"), **_kept(given, _BREAKPOINT)}


def _input_audio(part: object, where: str) -> Fields:
    given = known_fields(part, where, ("type", "input_audio"))
    if not isinstance(given.get("input_audio"), dict):
        raise invalid(f"{where}.input_audio", "an object with `data` and `format`")
    return given


def _output_text(part: object, where: str) -> Fields:
    given = known_fields(part, where, ("type", "text", "annotations", "logprobs"))
    if given.get("annotations"):
        raise unsupported(f"{where}.annotations", "Send the text without them.")
    return {"type": "text", "text": string_in(given, "text", where)}


def _refusal(part: object, where: str) -> Fields:
    given = known_fields(part, where, ("type", "refusal"))
    return {"type": "refusal", "refusal": string_in(given, "refusal", where)}


def _kept(given: Fields, *names: str) -> Fields:
    return {name: given[name] for name in names if name in given}


_ITEMS: Mapping[str, Callable[[Fields, str, list[Fields]], None]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
}
_TRANSLATED = f"these types go over: {', '.join(_ITEMS)}."
_ADVICE = {
    "reasoning": "leave reasoning items out of a conversation that may go on with another model.",
    "item_reference": "this server stores no items; send the item itself.",
}
_PARTS: Mapping[str, Mapping[str, Part]] = {
    "user": {
        "input_text": _input_text,
        "input_image": _input_image,
        "input_file": _input_file,
        "input_audio": _input_audio,
    },
    "assistant": {"output_text": _output_text, "refusal": _refusal},
    "system": {"input_text": _input_text},
    "developer": {"input_text": _input_text},
}
