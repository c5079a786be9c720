"""A request of the messages API, typed as far as a chat can say it. What is not named here is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from routellm.errors import RequestError
from routellm.messages import decode_json
from routellm.serving.apis.fields import unsupported

Object: TypeAlias = dict[str, msgspec.Raw]
Nothing: TypeAlias = Annotated[list[Any], msgspec.Meta(max_length=0)]


class Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Refuses every field that it does not name."""


class Cacheable(Strict):
    """`cache_control` marks what a provider had better keep in its prompt cache. It changes the price of an answer and not
    the answer, so that a chat, which has no such marks, may do without: it is read and left out."""

    cache_control: Any = None


class TextBlock(Cacheable, kw_only=True, tag="text"):
    """Text. Citations, which only a document of Anthropic's own kind can back, can't go over."""

    text: str
    citations: Nothing | None = None


class Base64Source(Strict, tag="base64"):
    """Bytes of an image or a file."""

    media_type: str
    data: str


class UrlSource(Strict, tag="url"):
    """An image on the web."""

    url: str


class TextSource(Strict, tag="text"):
    """A document's text."""

    media_type: Literal["text/plain"]
    data: str


class ImageBlock(Cacheable, kw_only=True, tag="image"):
    """An image."""

    source: Base64Source | UrlSource


class ContentSource(Strict, tag="content"):
    """A document made of blocks."""

    content: str | list[TextBlock | ImageBlock]


class Citations(Strict):
    """Whether the answer is to cite its source."""

    enabled: bool = False


class DocumentBlock(Cacheable, kw_only=True, tag="document"):
    """A document."""

    source: Base64Source | TextSource | ContentSource
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None


class DirectCaller(Strict, tag="direct"):
    """The model itself asked for the tool, and no program of its own."""


class ToolUseBlock(Cacheable, kw_only=True, tag="tool_use"):
    """A tool that the assistant asked for."""

    id: str
    name: str
    input: Object
    caller: DirectCaller | None = None
    toolset_name: None = None


class ToolResultBlock(Cacheable, kw_only=True, tag="tool_result"):
    """What a tool gave back."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None
    toolset_name: None = None


Block: TypeAlias = TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock


class Message(Strict):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Cacheable, kw_only=True):
    """A tool that the client runs. `eager_input_streaming` only says how early a stream tells of its input."""

    name: str
    input_schema: Object
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    eager_input_streaming: bool | None = None


class AutoChoice(Strict, tag="auto"):
    """The model decides."""

    disable_parallel_tool_use: bool | None = None


class AnyChoice(Strict, tag="any"):
    """Some tool has to be asked for."""

    disable_parallel_tool_use: bool | None = None


class ToolChoice(Strict, tag="tool"):
    """This tool has to be asked for."""

    name: str
    disable_parallel_tool_use: bool | None = None


class NoneChoice(Strict, tag="none"):
    """No tool may be asked for."""


class ThinkingOff(Strict, tag="disabled"):
    """What a chat does anyway: its reply never holds thinking."""


class JsonSchema(Strict, tag="json_schema"):
    """The answer is to be JSON of this schema."""

    schema: Object


class OutputConfig(Strict):
    """How the answer is to be."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonSchema | None = None


class Metadata(Strict):
    """Who asks."""

    user_id: str | None = None


class MessagesRequest(Cacheable, kw_only=True):
    """A whole request."""

    model: str
    messages: list[Message]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    system: str | list[TextBlock] | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: int | float | None = None
    thinking: ThinkingOff | None = None
    tool_choice: AutoChoice | AnyChoice | ToolChoice | NoneChoice | None = None
    tools: list[Tool] | None = None
    top_p: int | float | None = None


_NULL = msgspec.Raw(b"null")
_decode = msgspec.json.Decoder(MessagesRequest).decode
_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_OTHER = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)


def read_request(fields: Mapping[str, msgspec.Raw]) -> MessagesRequest:
    """The request whose fields these are. A field that is null counts as one that is not there.

    Raises:
        RequestError: a field is not of the form that the API gives it, or a chat has no words for it.
    """
    given = {name: value for name, value in fields.items() if value != _NULL}
    return decode_json(_decode_strict, msgspec.json.encode(given), "The request's body can't be read", None)


def _decode_strict(data: bytes | msgspec.Raw) -> MessagesRequest:
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None


def _refused(text: str) -> RequestError:
    place = _PLACE.fullmatch(text)
    what, where = (place["what"], place["where"] or "") if place else (text, "")
    if unknown := _UNKNOWN.fullmatch(what):
        return unsupported(f"{where}.{unknown[1]}".lstrip("."))
    if other := _OTHER.fullmatch(what):
        return unsupported(where, f"It is {other[1]}.")
    named = f"`{where}`" if where else "The request's body"
    return RequestError(f"{named} can't be read: {what}.", param=where or None, code="invalid_value")
