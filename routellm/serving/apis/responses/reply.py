"""A chat's answer as a response: the object around it, its items, and how it ended."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from routellm.errors import UpstreamReplyError
from routellm.serving.apis.chat_reply import ChatUsage, Choice, Completion, read_completion
from routellm.serving.apis.responses.request import Asked

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Response:
    """The object that holds an answer, before and after it is known.

    Args:
        asked: the request, of which a response tells the settings.
        model: the name to give where the endpoint names no model.
    """

    def __init__(self, asked: Asked, model: str) -> None:
        self._echo = dict(asked.echo)
        self._head = {"id": new_id("resp"), "object": "response", "created_at": int(time.time())}
        self._model = model

    def learn(self, completion: Completion) -> None:
        """Take over what the endpoint says of the answer as a whole."""
        if completion.created:
            self._head["created_at"] = int(completion.created)
        self._model = completion.model or self._model
        if completion.service_tier is not None:
            self._echo["service_tier"] = completion.service_tier

    def as_dict(
        self,
        status: str,
        output: Sequence[dict[str, Any]],
        usage: ChatUsage | None = None,
        *,
        reason: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The whole object. `reason` says why an incomplete answer is, `error` why a failed one has."""
        return {
            **self._head,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "background": False,
            "error": error,
            "incomplete_details": None if reason is None else {"reason": reason},
            **self._echo,
            "model": self._model,
            "output": list(output),
            "usage": None if usage is None else usage_of(usage),
        }


def whole_response(body: bytes, asked: Asked, model: str) -> dict[str, Any]:
    """The response that a chat completion amounts to.

    Raises:
        UpstreamReplyError: `body` is no chat completion.
    """
    completion = read_completion(body)
    choice = completion.choices[0] if completion.choices else None
    if choice is None or choice.message is None:
        raise UpstreamReplyError("The model's reply is no chat completion: it holds no message.")
    status, reason = ending(choice.finish_reason)
    response = Response(asked, model)
    response.learn(completion)
    return response.as_dict(status, _items(choice, status), completion.usage, reason=reason)


def ending(finish_reason: str | None) -> tuple[str, str | None]:
    """A response's status, and why it is incomplete where it is."""
    reason = _INCOMPLETE.get(finish_reason or "")
    return ("completed" if reason is None else "incomplete"), reason


def _items(choice: Choice, status: str) -> list[dict[str, Any]]:
    message = choice.message
    assert message is not None
    parts: list[dict[str, Any]] = []
    if message.content:
        parts.append(text_part(message.content, logprobs_of(choice)))
    if message.refusal:
        parts.append(refusal_part(message.refusal))
    calls = message.tool_calls or []
    if not parts and not calls:
        parts.append(text_part("", []))
    items = [message_item(new_id("msg"), parts, "completed")] if parts else []
    for call in calls:
        if call.function is None or not call.function.name:
            raise UpstreamReplyError("The model's reply is no chat completion: it calls a function without a name.")
        name, arguments = call.function.name, call.function.arguments or ""
        items.append(call_item(new_id("fc"), call.id or new_id("call"), name, arguments, "completed"))
    items[-1]["status"] = status
    return items


def message_item(item_id: str, parts: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """An output item that holds what the model said."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": parts}


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    """An output item that calls a function."""
    item = {"id": item_id, "type": "function_call", "status": status}
    return {**item, "call_id": call_id, "name": name, "arguments": arguments}


def text_part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Text of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_part(refusal: str) -> dict[str, Any]:
    """A message's refusal."""
    return {"type": "refusal", "refusal": refusal}


def logprobs_of(choice: Choice) -> list[dict[str, Any]]:
    """Each token's log probability; a response has a list where a chat may say null."""
    given = choice.logprobs.content if choice.logprobs is not None else None
    return [
        {**_with_bytes(token), "top_logprobs": [_with_bytes(other) for other in token.get("top_logprobs") or []]}
        for token in given or []
    ]


def usage_of(usage: ChatUsage) -> dict[str, Any]:
    """Tokens by the names that a response gives them."""
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    total = usage.prompt_tokens + usage.completion_tokens if usage.total_tokens is None else usage.total_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": (prompt and prompt.cached_tokens) or 0,
            "cache_write_tokens": (prompt and prompt.cache_write_tokens) or 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": (completion and completion.reasoning_tokens) or 0},
        "total_tokens": total,
    }


def new_id(prefix: str) -> str:
    """An id in the form that OpenAI's have; nothing is stored under it."""
    return f"{prefix}_{secrets.token_hex(24)}"


def _with_bytes(token: dict[str, Any]) -> dict[str, Any]:
    return {**token, "bytes": token.get("bytes") or []}
