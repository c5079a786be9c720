"""A chat completion as a message of Anthropic's.

A reply never holds thinking: what some endpoints tell of their reasoning has no signature, without which it could not be sent
back. Text that is nothing but white space, as some models put before a tool call, is left out: Anthropic's own endpoints send
none and would refuse it in the next request.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any, TypeAlias

import msgspec

from routellm.errors import UpstreamReplyError
from routellm.serving.apis.chat_reply import (
    ChatUsage,
    Choice,
    Completion,
    Function,
    PromptDetails,
    ToolCall,
    read_completion,
)

Fields: TypeAlias = dict[str, Any]

_STOP_REASONS = {"length": "max_tokens", "model_length": "max_tokens", "content_filter": "refusal"}
_decode_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def to_message(body: bytes, stop_sequences: Collection[str]) -> bytes:
    """The message that a whole completion stands for.

    Raises:
        UpstreamReplyError: `body` is no chat completion, or calls a tool with arguments that are no JSON object.
    """
    completion = read_completion(body)
    choice = completion.choices[0] if completion.choices else None
    if choice is None or choice.message is None:
        raise UpstreamReplyError("The model's reply is no chat completion: it holds no message.")
    said = choice.message
    content: list[Fields] = [{"type": "text", "text": text} for text in (said.content, said.refusal) if text and text.strip()]
    for call in said.tool_calls or ():
        block = tool_use(call)
        arguments = read_arguments((call.function or Function()).arguments or "")
        if arguments is not None:
            content.append({**block, "input": arguments})
        elif choice.finish_reason != "length":  # the token limit cut it off, which `max_tokens` tells: there is no call to run
            raise bad_arguments(block["name"])
    called = any(block["type"] == "tool_use" for block in content)
    end = stop_of(choice, called, bool(said.refusal), stop_sequences)
    return msgspec.json.encode({**head(completion), "content": content, **end, "usage": usage_of(completion.usage)})


def head(completion: Completion) -> Fields:
    """What a message begins with: its id and model are the endpoint's."""
    identity = completion.id or f"msg_{secrets.token_hex(12)}"
    return {"id": identity, "type": "message", "role": "assistant", "model": completion.model or ""}


def tool_use(call: ToolCall) -> Fields:
    """The block that asks for a tool, its input empty.

    Raises:
        UpstreamReplyError: the call names no tool.
    """
    if call.function is None or not call.function.name:
        raise UpstreamReplyError("The model's reply is no chat completion: a tool call in it has no name.")
    identity = call.id or f"toolu_{secrets.token_hex(12)}"
    return {"type": "tool_use", "id": identity, "name": call.function.name, "input": {}}


def read_arguments(text: str) -> dict[str, msgspec.Raw] | None:
    """A call's arguments, none where there is no text; None where it is not, or not yet, a JSON object."""
    try:
        return _decode_arguments(text) if text.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        return None


def bad_arguments(name: str | None) -> UpstreamReplyError:
    """The error for a call that no client could run: a message's `input` has to be an object."""
    return UpstreamReplyError(f"The model called the tool {name!r} with arguments that are no JSON object.")


def stop_of(choice: Choice, called: bool, refused: bool, stop_sequences: Collection[str]) -> Fields:
    """`stop_reason` and `stop_sequence`. Which sequence it was is known where the endpoint says so, as vLLM does.

    Raises:
        UpstreamReplyError: the endpoint says that its answer failed.
    """
    if choice.finish_reason == "error":
        raise UpstreamReplyError("The model broke off its answer with an error.")
    reason = _STOP_REASONS.get(choice.finish_reason or "")
    sequence = None
    if reason is None and refused:
        reason = "refusal"
    elif reason is None and called:  # some endpoints say "stop" all the same
        reason = "tool_use"
    elif reason is None and isinstance(choice.stop_reason, str) and choice.stop_reason in stop_sequences:
        reason, sequence = "stop_sequence", choice.stop_reason
    return {"stop_reason": reason or "end_turn", "stop_sequence": sequence}


def usage_of(usage: ChatUsage | None) -> Fields:
    """Tokens; where the endpoint told none, 0, since the API has no word for "unknown"."""
    usage = usage or ChatUsage()
    details = usage.prompt_tokens_details or PromptDetails()
    read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    told: Fields = {
        "input_tokens": max(usage.prompt_tokens - read - written, 0),  # a chat counts the cached ones among the prompt's
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.completion_tokens,
    }
    hidden = usage.completion_tokens_details
    if hidden is not None and hidden.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": hidden.reasoning_tokens}
    return told
