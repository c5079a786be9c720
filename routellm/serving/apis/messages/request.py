"""A request of the messages API as one of chat completions.

What a request says goes over whole or not at all: where a chat has no words for it, the error names the field. Three things
are said in other words. A tool that failed (`is_error`) is told by "Error: " before its result, since a chat's tool messages
have no such mark. A document's title and context, which the model is to read, become text before a plain document, and a
PDF's title its file name. In a message of the assistant, text comes before its tool calls, since a chat knows no order there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from routellm.errors import RequestError
from routellm.messages import decode_json
from routellm.serving.apis.fields import invalid, unsupported
from routellm.serving.apis.messages.types import (
    AnyChoice,
    AutoChoice,
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    MessagesRequest,
    NoneChoice,
    TextBlock,
    TextSource,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from routellm.upstream.base import Format

Fields: TypeAlias = dict[str, Any]

_SERVICE_TIERS = {"auto": "auto", "standard_only": "default"}
_LONGEST_USER = 64
"""Characters; OpenAI refuses a longer `user`, and clients such as Claude Code send longer ids."""


def to_chat(request: MessagesRequest, formats: frozenset[Format]) -> Fields:
    """The fields of the chat request, `model` excepted.

    Raises:
        RequestError: a chat has no words for something, or the conversation is not one.
    """
    chat: Fields = {"messages": _messages(request)}
    # OpenAI's newer models refuse `max_tokens`, and other endpoints don't know its successor. An endpoint that speaks OpenAI's
    # newer API takes the newer name.
    chat["max_completion_tokens" if "responses" in formats else "max_tokens"] = request.max_tokens
    for name in ("temperature", "top_p"):
        if (value := getattr(request, name)) is not None:
            chat[name] = value
    if request.stop_sequences:  # chat endpoints refuse an empty list, here and in `tools`
        chat["stop"] = request.stop_sequences
    if request.stream:
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True}  # a message always tells its usage
    if request.tools:
        chat["tools"] = [_tool(tool) for tool in request.tools]
    if request.tools or not isinstance(request.tool_choice, AutoChoice | NoneChoice):  # which say nothing where there are none
        chat |= _tool_choice(request.tool_choice)
    if request.output_config is not None and request.output_config.effort is not None:
        chat["reasoning_effort"] = request.output_config.effort
    if request.output_config is not None and request.output_config.format is not None:
        schema = {"name": "output", "schema": request.output_config.format.schema, "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.service_tier is not None:
        chat["service_tier"] = _SERVICE_TIERS[request.service_tier]
    if request.metadata is not None and request.metadata.user_id is not None:
        chat["user"] = _user_id(request.metadata.user_id)
    return chat


def _messages(request: MessagesRequest) -> list[Fields]:
    if not request.messages:
        raise invalid("messages", "a list of at least one message")
    last = len(request.messages) - 1
    if request.messages[last].role == "assistant":
        raise unsupported(f"messages[{last}]", "It begins the answer (prefill); let the last message be the user's.")
    messages: list[Fields] = []
    if request.system:
        messages.append({"role": "system", "content": _said(request.system)})
    for index, message in enumerate(request.messages):
        messages += _message(message, f"messages[{index}].content")
    return messages


def _message(message: Message, where: str) -> list[Fields]:
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    match message.role:
        case "user":
            return _user(message.content, where)
        case "assistant":
            return [_assistant(message.content, where)]
        case "system":
            return [{"role": "system", "content": _said(_only_text(message.content, where))}]


def _user(blocks: Sequence[Block], where: str) -> list[Fields]:
    results: list[Fields] = []
    parts: list[Fields] = []
    for index, block in enumerate(blocks):
        place = f"{where}[{index}]"
        match block:
            case ToolResultBlock():
                if parts:
                    raise RequestError(f"`{place}` is a tool's result behind other content; results come first.", param=place)
                results.append(_tool_result(block, place))
            case TextBlock():
                parts.append(_text(block.text))
            case ImageBlock():
                parts.append(_image(block))
            case DocumentBlock():
                parts += _document(block, place)
            case ToolUseBlock():
                raise unsupported(place, "Only the assistant asks for tools.")
    if parts or not results:
        results.append({"role": "user", "content": _plain(parts)})
    return results


def _assistant(blocks: Sequence[Block], where: str) -> Fields:
    calls = [_tool_call(block, f"{where}[{index}]") for index, block in enumerate(blocks) if isinstance(block, ToolUseBlock)]
    texts = _only_text(blocks, where, besides=ToolUseBlock)
    message: Fields = {"role": "assistant", "content": _said(texts) if texts or not calls else None}
    if calls:
        message["tool_calls"] = calls
    return message


def _only_text(blocks: Sequence[Block], where: str, besides: type[Block] | None = None) -> list[TextBlock]:
    texts: list[TextBlock] = []
    for index, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            texts.append(block)
        elif besides is None or not isinstance(block, besides):
            raise unsupported(f"{where}[{index}]", f"It is of the type {_type(block)!r}, where a chat takes text.")
    return texts


def _tool_call(block: ToolUseBlock, where: str) -> Fields:
    encoded = msgspec.json.encode(block.input)
    arguments = decode_json(lambda data: bytes(data).decode(), encoded, f"`{where}.input` is not UTF-8", f"{where}.input")
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _tool_result(block: ToolResultBlock, where: str) -> Fields:
    if block.content is None or isinstance(block.content, str):
        texts = [block.content or ""]
    else:
        texts = []
        for index, inner in enumerate(block.content):
            place = f"{where}.content[{index}]"
            parts = [_text(inner.text)] if isinstance(inner, TextBlock) else []
            parts = _document(inner, place) if isinstance(inner, DocumentBlock) else parts
            if not parts or any(part["type"] != "text" for part in parts):
                raise unsupported(place, f"It is of the type {_type(inner)!r}; in a chat a tool's result is text.")
            texts += [part["text"] for part in parts]
    if block.is_error:
        texts = [f"Error: {texts[0]}" if texts else "Error", *texts[1:]]
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": _plain([_text(text) for text in texts])}


def _image(block: ImageBlock) -> Fields:
    source = block.source
    url = source.url if isinstance(source, UrlSource) else f"data:{source.media_type};base64,{source.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: DocumentBlock, where: str) -> list[Fields]:
    if block.citations is not None and block.citations.enabled:
        raise unsupported(f"{where}.citations")
    source = block.source
    context = [] if block.context is None else [_text(block.context)]
    if isinstance(source, Base64Source):
        if source.media_type != "application/pdf":
            raise unsupported(f"{where}.source.media_type", f"It is {source.media_type!r}; of files only PDFs go over.")
        file = {"filename": block.title or "document.pdf", "file_data": f"data:application/pdf;base64,{source.data}"}
        return [*context, {"type": "file", "file": file}]
    head = context if block.title is None else [_text(block.title), *context]
    if isinstance(source, TextSource):
        return [*head, _text(source.data)]
    if isinstance(source.content, str):
        return [*head, _text(source.content)]
    return [*head, *(_text(part.text) if isinstance(part, TextBlock) else _image(part) for part in source.content)]


def _tool(tool: Tool) -> Fields:
    function: Fields = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: AutoChoice | AnyChoice | ToolChoice | NoneChoice | None) -> Fields:
    match choice:
        case None:
            return {}
        case NoneChoice():
            return {"tool_choice": "none"}
        case AutoChoice():
            chosen: Fields = {"tool_choice": "auto"}
        case AnyChoice():
            chosen = {"tool_choice": "required"}
        case ToolChoice():
            chosen = {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
    return {**chosen, "parallel_tool_calls": False} if choice.disable_parallel_tool_use else chosen


def _user_id(given: str) -> str:
    """An opaque id; its hash tells users apart just as well."""
    return given if len(given) <= _LONGEST_USER else hashlib.sha256(given.encode()).hexdigest()


def _said(content: str | Sequence[TextBlock]) -> str | list[Fields]:
    return content if isinstance(content, str) else _plain([_text(block.text) for block in content])


def _plain(parts: list[Fields]) -> str | list[Fields]:
    """One text as a string, which every endpoint takes; anything else in parts."""
    if not parts:
        return ""
    only = parts[0]
    text = only["text"] if len(parts) == 1 and only["type"] == "text" else None
    return parts if text is None else str(text)


def _text(text: str) -> Fields:
    return {"type": "text", "text": text}


def _type(block: Block) -> str:
    return str(block.__struct_config__.tag)
