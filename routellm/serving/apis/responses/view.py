"""Which part of a request's `input` decides: the rules of `routellm.messages`, over items instead of messages."""

from __future__ import annotations

import msgspec

from routellm.errors import RequestError
from routellm.messages import Message, PromptFrom, PromptView, decode_json, read_turns

_ITEM_MODALITIES = {"computer_call_output": "image", "image_generation_call": "image"}


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")
    output: msgspec.Raw = msgspec.Raw(b"null")


_decode_input = msgspec.json.Decoder(str | list[_Item]).decode


def read_input(value: bytes | msgspec.Raw, prompt_from: PromptFrom) -> PromptView:
    """Find the prompt that decides in the JSON of `input`. Messages of the user are its turns, with or without a `type`.

    Raises:
        RequestError: `input` is neither a string nor a non-empty list of items, or a message's content can't be read.
    """
    items = decode_json(_decode_input, value, "`input` must be a string or a list of items", "input")
    if isinstance(items, str):
        return PromptView(items if items.strip() else None)
    if not items:
        raise RequestError("`input` is empty; send at least one item.", param="input")
    view = read_turns([_as_message(item) for item in items], prompt_from, "input")
    shown = {_ITEM_MODALITIES[item.type] for item in items if item.type in _ITEM_MODALITIES}
    return PromptView(view.text, view.modalities | shown) if shown else view


def _as_message(item: _Item) -> Message:
    """What a tool gave back is no turn of the user, but its pictures and files count as any others do."""
    if item.role is not None and item.type in (None, "message"):
        return Message(item.role, item.content)
    return Message("tool", item.output)
