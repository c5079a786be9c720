"""A request of the responses API as one of chat completions, field by field, and what of it the reply tells again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from routellm.messages import decode_json
from routellm.serving.apis.fields import invalid, known_fields, string_in, unsupported
from routellm.serving.apis.responses.input import to_messages

T = TypeVar("T")
Raw = msgspec.Raw

LOGPROBS = "message.output_text.logprobs"
"""The one thing of `include` that a chat can give."""

HELD_ELSEWHERE = ("previous_response_id", "conversation", "prompt")
"""Fields that name a conversation which the provider holds; with one of them `input` may be left out."""

_NULL = Raw(b"null")
_AS_SENT = frozenset(
    {
        *("temperature", "top_p", "parallel_tool_calls", "metadata", "user", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
    }
)
_STORES_NOTHING = "This server stores no responses, and says so by `store: false` in its replies; leave the field out."
_SEND_ALL = "This server stores nothing; send the whole conversation as `input`."
_ONLY_FUNCTIONS = "Of tools, only those of the type 'function' go over."

_decode_any = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_bool = msgspec.json.Decoder(bool).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode
_decode_count = msgspec.json.Decoder(int).decode


@dataclass(slots=True)
class Asked:
    """A request in its two forms.

    Attributes:
        chat: the fields of the chat request, `model` excepted.
        echo: the fields that a response tells again.
        stream: whether the reply is to be a stream.
    """

    chat: dict[str, Any] = field(default_factory=dict)
    echo: dict[str, Any] = field(default_factory=dict)
    stream: bool = False


def translate_request(fields: Mapping[str, Raw]) -> Asked:
    """Turn every field into what a chat calls it. A field that is null counts as one that is not there.

    Raises:
        RequestError: a field is not of the form that the API gives it, or a chat has no place for it.
    """
    given = {name: value for name, value in fields.items() if value != _NULL}
    asked = Asked(echo=_defaults())
    asked.chat["messages"] = _messages(given)
    for name, value in given.items():
        if name in _AS_SENT:
            asked.chat[name] = asked.echo[name] = value
        elif name in _TRANSLATED:
            _TRANSLATED[name](value, asked)
        elif name not in ("model", "input"):
            raise unsupported(name, _HINTS.get(name, ""))
    if "tools" not in asked.chat:  # then these say nothing, and many endpoints refuse them
        asked.chat.pop("parallel_tool_calls", None)
        if asked.chat.get("tool_choice") in ("auto", "none"):
            del asked.chat["tool_choice"]
    return asked


def _defaults() -> dict[str, Any]:
    return {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }


def _messages(given: Mapping[str, Raw]) -> list[dict[str, Any]]:
    if "input" not in given:
        for elsewhere in HELD_ELSEWHERE:
            if elsewhere in given:
                raise unsupported(elsewhere, _HINTS[elsewhere])
        raise invalid("input", "a string or a list of items")
    messages = to_messages(_decoded(_decode_any, given["input"], "input", "a string or a list of items"))
    if "instructions" in given:
        text = _decoded(_decode_string, given["instructions"], "instructions", "a string")
        messages.insert(0, {"role": "system", "content": text})
    return messages


def _instructions(value: Raw, asked: Asked) -> None:
    asked.echo["instructions"] = value  # `_messages` has put it before the others


def _max_output_tokens(value: Raw, asked: Asked) -> None:
    asked.chat["max_completion_tokens"] = asked.echo["max_output_tokens"] = value


def _stream(value: Raw, asked: Asked) -> None:
    asked.stream = _decoded(_decode_bool, value, "stream", "true or false")
    if asked.stream:
        asked.chat["stream"] = True
        asked.chat["stream_options"] = {"include_usage": True}  # a response tells its usage, streamed or not


def _stream_options(value: Raw, asked: Asked) -> None:
    options = known_fields(_object(value, "stream_options"), "stream_options", ("include_obfuscation",))
    where = "stream_options.include_obfuscation"
    for padded in options.values():
        if _decoded(_decode_bool, padded, where, "true or false"):
            raise unsupported(where)


def _include(value: Raw, asked: Asked) -> None:
    for index, name in enumerate(_decoded(_decode_strings, value, "include", "a list of strings")):
        if name != LOGPROBS:
            raise unsupported(f"include[{index}]", f"It is {name!r}; only {LOGPROBS!r} goes over.")
        asked.chat["logprobs"] = True


def _top_logprobs(value: Raw, asked: Asked) -> None:
    count = _decoded(_decode_count, value, "top_logprobs", "a whole number")
    asked.echo["top_logprobs"] = count
    if count:
        asked.chat["logprobs"] = True
        asked.chat["top_logprobs"] = count


def _tools(value: Raw, asked: Asked) -> None:
    tools = []
    for index, tool in enumerate(_decoded(_decode_objects, value, "tools", "a list of objects")):
        where = f"tools[{index}]"
        if (kind := _type(tool, where)) != "function":
            raise unsupported(where, f"It is of the type {kind!r}. {_ONLY_FUNCTIONS}")
        function = known_fields(tool, where, ("type", "name", "description", "parameters", "strict"))
        del function["type"]
        tools.append({"type": "function", "function": function})
    asked.echo["tools"] = value
    if tools:  # an empty list means none here, and is refused by chat endpoints
        asked.chat["tools"] = tools


def _tool_choice(value: Raw, asked: Asked) -> None:
    choice = _decoded(_decode_any, value, "tool_choice", "a string or an object")
    asked.echo["tool_choice"] = value
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise invalid("tool_choice", "'auto', 'none', 'required' or a function")
        asked.chat["tool_choice"] = choice
        return
    if not isinstance(choice, dict) or choice.get("type") != "function":
        raise unsupported("tool_choice", _ONLY_FUNCTIONS)
    named = known_fields(choice, "tool_choice", ("type", "name"))
    asked.chat["tool_choice"] = {"type": "function", "function": {"name": string_in(named, "name", "tool_choice")}}


def _text(value: Raw, asked: Asked) -> None:
    text = known_fields(_object(value, "text"), "text", ("format", "verbosity"))
    asked.echo["text"] = {**asked.echo["text"], **text}
    if "verbosity" in text:
        asked.chat["verbosity"] = text["verbosity"]
    if "format" not in text:
        return
    where = "text.format"
    form = _object(text["format"], where)
    match _type(form, where):
        case "text":
            known_fields(form, where, ("type",))
        case "json_object":
            known_fields(form, where, ("type",))
            asked.chat["response_format"] = {"type": "json_object"}
        case "json_schema":
            schema = known_fields(form, where, ("type", "name", "description", "schema", "strict"))
            del schema["type"]
            asked.chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            raise invalid(f"{where}.type", "'text', 'json_object' or 'json_schema'")


def _reasoning(value: Raw, asked: Asked) -> None:
    reasoning = known_fields(_object(value, "reasoning"), "reasoning", ("effort",))
    if "effort" in reasoning:
        asked.chat["reasoning_effort"] = asked.echo["reasoning"]["effort"] = reasoning["effort"]


def _false_only(name: str) -> Callable[[Raw, Asked], None]:
    def check(value: Raw, asked: Asked) -> None:
        if _decoded(_decode_bool, value, name, "true or false"):
            raise unsupported(name, _HINTS[name])

    return check


def _truncation(value: Raw, asked: Asked) -> None:
    if _decoded(_decode_string, value, "truncation", "'auto' or 'disabled'") != "disabled":
        raise unsupported("truncation", "Shorten the conversation before it is sent.")


def _object(value: Raw, where: str) -> dict[str, Raw]:
    return _decoded(_decode_object, value, where, "an object")


def _type(fields: Mapping[str, Raw], where: str) -> str:
    if "type" not in fields:
        raise invalid(f"{where}.type", "a string")
    return _decoded(_decode_string, fields["type"], f"{where}.type", "a string")


def _decoded(decode: Callable[[bytes | Raw], T], value: Raw, where: str, allowed: str) -> T:
    return decode_json(decode, value, f"`{where}` must be {allowed}", where)


_HINTS = {
    **dict.fromkeys(("previous_response_id", "conversation"), _SEND_ALL),
    "prompt": "Send what the template says as `instructions` and `input`.",
    "store": _STORES_NOTHING,
    "background": "Ask for a stream, or wait for the reply.",
}
_TRANSLATED: Mapping[str, Callable[[Raw, Asked], None]] = {
    "background": _false_only("background"),
    "include": _include,
    "instructions": _instructions,
    "max_output_tokens": _max_output_tokens,
    "reasoning": _reasoning,
    "store": _false_only("store"),
    "stream": _stream,
    "stream_options": _stream_options,
    "text": _text,
    "tool_choice": _tool_choice,
    "tools": _tools,
    "top_logprobs": _top_logprobs,
    "truncation": _truncation,
}
