"""What the offline demo model answers: a pure function from a request to the pieces of a reply.

Nothing here is a language model. The answer repeats the start of the prompt, behind a mark that says so.

Tokens are counted by a plain rule: a run of letters, digits and underscores is one token, and so is any other character that
is not white space. A prompt's count is that of all text in its messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from routellm.errors import RequestError
from routellm.messages import decode_json

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])")
_QUOTED_CHARACTERS = 200
_MOST_CHOICES = 16

_decode_request = msgspec.json.Decoder(dict[str, Any]).decode

ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class DemoReply:
    """A whole reply: for a stream one piece for each event, else the body as one piece."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    """One choice: either tokens of text, or a tool call."""

    tokens: Sequence[str]
    tool: str | None
    finish_reason: str


def mark(model: str) -> str:
    """What every answer of the demo model begins with."""
    return f"[demo/{model}: offline demo model, not a real LLM]"


def count_tokens(text: str) -> int:
    """Tokens of `text` by the rule at the head of this module."""
    return len(_TOKEN.findall(text))


def reply_to(body: bytes, model: str, *, created: int, chunks: int | None = None) -> DemoReply:
    """Answer a chat request.

    Args:
        body: the request's JSON.
        model: the demo model's name, which the answer bears.
        created: the answer's time, in seconds since the epoch.
        chunks: into how many pieces of text a stream is cut at most; None gives one a token.
    """
    try:
        request = decode_json(_decode_request, body, "The request's body must be a JSON object", None)
        messages = _messages(request)
        answer = _answer(request, messages, model)
        choices = _number(request, "n", 1, _MOST_CHOICES)
    except RequestError as error:
        return error_reply(400, str(error), param=error.param)
    prompt_tokens = sum(count_tokens(text) for message in messages for text in _texts(message))
    completion_tokens = choices * len(answer.tokens)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    head = {"id": f"chatcmpl-demo-{created}", "created": created, "model": model, "system_fingerprint": "offline-demo"}
    if request.get("stream"):
        options = request.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        head["object"] = "chat.completion.chunk"
        events = _events(head, answer, choices, chunks, usage if wants_usage else None)
        return DemoReply(200, {"content-type": "text/event-stream; charset=utf-8"}, tuple(events))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.tokens), "refusal": None}
    if answer.tool is not None:
        message |= {"content": None, "tool_calls": [_tool_call(answer)]}
    completion = {
        **head,
        "object": "chat.completion",
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(choices)
        ],
        "usage": usage,
    }
    return DemoReply(200, {"content-type": "application/json"}, (msgspec.json.encode(completion),))


def error_reply(status: int, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> DemoReply:
    """An error as OpenAI's API words one."""
    error = {"message": message, "type": ERROR_TYPES.get(status, "server_error"), "param": param, "code": None}
    return DemoReply(status, {"content-type": "application/json", **(headers or {})}, (msgspec.json.encode({"error": error}),))


def _messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise RequestError("`messages` must be a non-empty list of objects.", param="messages")
    return messages


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _number(request: Mapping[str, Any], name: str, default: int, most: int | None = None) -> int:
    value = request.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        allowed = "a positive integer" if most is None else f"an integer from 1 to {most}"
        raise RequestError(f"`{name}` must be {allowed}, not {value!r}.", param=name)
    return value


def _answer(request: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], model: str) -> _Answer:
    tool = _forced_tool(request)
    prompt = next((" ".join(_texts(message)) for message in reversed(messages) if message.get("role") == "user"), "")
    said = prompt[:_QUOTED_CHARACTERS] + ("..." if len(prompt) > _QUOTED_CHARACTERS else "")
    if tool is not None:
        function = tool["function"]
        text = _json_text(instance_of(function.get("parameters") or {}, mark(model)))
        return _Answer(_TOKEN.findall(text), function["name"], "tool_calls")
    text = _structured(request, said, model) or f"{mark(model)} You said: {said or '(nothing)'}"
    tokens = _TOKEN.findall(text)
    most = _number(request, "max_tokens", len(tokens))
    most = _number(request, "max_completion_tokens", most)
    return _Answer(tokens[:most], None, "length" if most < len(tokens) else "stop")


def _forced_tool(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tool that `tool_choice` insists on, if any."""
    choice = request.get("tool_choice")
    if choice in (None, "auto", "none"):
        return None
    given = request.get("tools")
    tools = [
        tool
        for tool in (given if isinstance(given, list) else ())
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict) and isinstance(tool["function"].get("name"), str)
    ]
    if choice == "required" and tools:
        return tools[0]
    named = choice.get("function") if isinstance(choice, dict) else None
    wanted = named.get("name") if isinstance(named, dict) else None
    for tool in tools:
        if tool["function"]["name"] == wanted:
            return tool
    raise RequestError(f"`tool_choice` is {choice!r}, and no tool of the request answers to it.", param="tool_choice")


def _structured(request: Mapping[str, Any], said: str, model: str) -> str | None:
    """JSON where `response_format` asks for it, which then carries the mark inside."""
    wanted = request.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return _json_text({"demo": mark(model), "you_said": said})
    if kind == "json_schema":
        schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
        inner = schema.get("schema") if isinstance(schema, dict) else None
        return _json_text(instance_of(inner or {}, mark(model)))
    return None


def instance_of(schema: Any, text: str) -> Any:
    """A small instance of a simple JSON schema, with `text` wherever a string is free.

    Knows const, enum, default, type, properties with required, items with minItems, minimum, maximum, the lengths of strings,
    the first of anyOf, oneOf and allOf, and references into the schema itself. Patterns and formats are beyond a demo.

    Raises:
        RequestError: it is no JSON schema, or one that asks for thousands of values.
    """
    try:
        return _Instance(schema, text).of(schema, 0)
    except (AttributeError, KeyError, TypeError, ValueError):  # wrong types anywhere inside
        raise RequestError("A JSON schema of the request can't be read.") from None


class _Instance:
    def __init__(self, root: Any, text: str) -> None:
        self._root, self._text = root, text
        self._left = 2000

    def of(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise RequestError("A JSON schema of the request asks for too many values for a demo.")
        if depth > 20:  # a schema that needs itself has no finite instance
            return None
        if "$ref" in schema:
            return self.of(self._resolve(str(schema["$ref"])), depth + 1)
        for fixed in ("const", "default"):
            if fixed in schema:
                return schema[fixed]
        if schema.get("enum"):
            return schema["enum"][0]
        for union in ("anyOf", "oneOf", "allOf"):
            if schema.get(union):
                return self.of(schema[union][0], depth + 1)
        kind = schema.get("type", "object")
        return self._typed(kind[0] if isinstance(kind, list) and kind else kind, schema, depth)

    def _typed(self, kind: Any, schema: Mapping[str, Any], depth: int) -> Any:
        if kind == "object":
            properties = schema.get("properties") or {}
            return {name: self.of(properties.get(name) or {}, depth + 1) for name in schema.get("required") or []}
        if kind == "array":
            return [self.of(schema.get("items") or {}, depth + 1) for _ in range(schema.get("minItems") or 0)]
        if kind == "string":
            return self._text[: schema.get("maxLength")].ljust(min(schema.get("minLength") or 0, 10_000), ".")
        if kind in ("integer", "number"):
            least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return min(least, schema.get("maximum", least))
        return False if kind == "boolean" else None

    def _resolve(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(step, {}) if step and isinstance(found, Mapping) else found
        return found if isinstance(found, Mapping) else {}


def _events(
    head: Mapping[str, Any], answer: _Answer, choices: int, chunks: int | None, usage: Mapping[str, int] | None
) -> Iterator[bytes]:
    extra = {} if usage is None else {"usage": None}
    for index in range(choices):
        for delta, finish_reason in _deltas(answer, chunks):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            yield _event({**head, "choices": [choice], **extra})
    if usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _deltas(answer: _Answer, chunks: int | None) -> Iterator[tuple[dict[str, Any], str | None]]:
    texts = ["".join(answer.tokens[start:stop]) for start, stop in _cuts(len(answer.tokens), chunks)]
    if answer.tool is None:
        yield {"role": "assistant", "content": "", "refusal": None}, None
        for text in texts:
            yield {"content": text}, None
    else:
        opening = _tool_call(answer)
        opening["function"]["arguments"] = ""
        yield {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **opening}]}, None
        for text in texts:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}, None
    yield {}, answer.finish_reason


def _cuts(tokens: int, chunks: int | None) -> Iterator[tuple[int, int]]:
    pieces = tokens if chunks is None else min(chunks, tokens)
    for piece in range(pieces):
        yield piece * tokens // pieces, (piece + 1) * tokens // pieces


def _tool_call(answer: _Answer) -> dict[str, Any]:
    arguments = "".join(answer.tokens)
    return {"id": "call_demo_0", "type": "function", "function": {"name": answer.tool, "arguments": arguments}}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
