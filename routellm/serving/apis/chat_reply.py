"""What a chat endpoint sends, as far as a translation needs it: typed, so that a reply of another form is noticed."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from routellm.errors import UpstreamReplyError

T = TypeVar("T")


class Function(msgspec.Struct):
    """A call's function; in a stream any of its fields may be missing."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A call, or in a stream a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Text(msgspec.Struct):
    """A message, or in a stream a piece of one."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Logprobs(msgspec.Struct):
    """Of each token; as sent."""

    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    """One of the answers; only one is ever asked for."""

    message: Text | None = None
    delta: Text | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    index: int | None = None
    stop_reason: Any = None
    """vLLM's: which of the stop sequences it was, or a token's number."""


class PromptDetails(msgspec.Struct):
    """Which of the prompt's tokens cost less or more."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Which of the answer's tokens nobody sees."""

    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    """Tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Completion(msgspec.Struct):
    """A chat completion, or a chunk of one. `error` stands in a stream where the endpoint gave up."""

    id: str | None = None
    choices: list[Choice] | None = None
    model: str | None = None
    created: float | None = None
    service_tier: str | None = None
    usage: ChatUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Completion).decode


def read_completion(data: bytes) -> Completion:
    """Decode a completion or a chunk.

    Raises:
        UpstreamReplyError: it is neither, or tells an error.
    """
    try:
        completion = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamReplyError(f"The model's reply is no chat completion: {error}") from error
    if completion.error is not None:
        raise UpstreamReplyError(f"The model broke off its answer with an error: {_told(completion.error)}")
    return completion


def _told(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else msgspec.json.encode(error).decode()
