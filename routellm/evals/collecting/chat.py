"""One call to a model: messages in, text and usage out, and every way to fail as one typed error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from routellm.errors import RouteLLMError, UpstreamError
from routellm.evals.collecting.journal import Usage
from routellm.upstream.base import Upstream

_PATH = "/chat/completions"
_SHOWN = 500
_SHORTEST_SECRET = 6  # a shorter one would be struck out of ordinary words

_PASSING = frozenset({408, 409, 429})
_HOPELESS = frozenset({401, 402, 404})
_NO_MONEY = "insufficient_quota"
"""OpenAI's code for a 429 that no waiting mends."""


class CallError(RouteLLMError):
    """A call failed.

    Attributes:
        status: the endpoint's status; None where it gave no whole answer.
        retry_after: seconds that the endpoint asks to wait, None where it does not say.
        passing: whether the same call may succeed later.
        hopeless: whether every other call would fail too: no key, no money, no such model.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        passing: bool = False,
        hopeless: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after, self.passing, self.hopeless = status, retry_after, passing, hopeless


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer. `usage` is None where the reply holds none."""

    text: str
    finish_reason: str | None
    model: str | None
    usage: Usage | None


class ChatModel:
    """A model that is asked with the same parameters each time.

    Args:
        upstream: how it is reached.
        parameters: fields of the request. `system` is no field, but the text of an opening system message.
        secrets: texts that must not turn up in an error, though an endpoint may repeat them: keys.
    """

    def __init__(self, upstream: Upstream, parameters: Mapping[str, Any], secrets: Sequence[str] = ()) -> None:
        self._upstream = upstream
        self._fields = {name: value for name, value in parameters.items() if name != "system"}
        self._system = parameters.get("system")
        self._secrets = sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)

    def body(self, turns: Sequence[str], answers: Sequence[str]) -> bytes:
        """The request that asks the last of `turns`, the others having been answered with `answers`."""
        messages = [] if self._system is None else [{"role": "system", "content": self._system}]
        for number, turn in enumerate(turns):
            messages.append({"role": "user", "content": turn})
            if number < len(answers):
                messages.append({"role": "assistant", "content": answers[number]})
        return msgspec.json.encode({"model": self._upstream.model, "messages": messages, **self._fields})

    async def ask(self, body: bytes) -> Answer:
        """Send a request that `body` made, once.

        Raises:
            CallError: it failed.
            MissingKeyError: the model needs a key that nobody gave.
        """
        try:
            reply = await self._upstream.send(_PATH, body, {"accept": "application/json"})
            try:
                content = b"".join([chunk async for chunk in reply.chunks()])
            finally:
                await reply.aclose()
        except UpstreamError as error:
            raise CallError(self._clean(str(error)), passing=True) from None  # a cause may hold what is cleaned away here
        if reply.status != 200:
            raise self._refusal(reply.status, reply.headers, content)
        return self._answer(content)

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> CallError:
        text, code = _explained(content)
        no_money = status == 429 and code == _NO_MONEY
        return CallError(
            self._clean(f"The endpoint answered {status}: {text}"),
            status=status,
            retry_after=retry_after(headers, datetime.now(UTC)),
            passing=(status in _PASSING or status >= 500) and not no_money,
            hopeless=status in _HOPELESS or no_money,
        )

    def _answer(self, content: bytes) -> Answer:
        try:
            reply = msgspec.json.decode(content)
            choice = reply["choices"][0]
            text = choice["message"].get("content")
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            shown = content[:_SHOWN].decode("utf-8", "replace")
            raise CallError(
                self._clean(f"The endpoint answered 200, but not with a chat completion: {shown!r}"), status=200
            ) from None
        if not isinstance(text, str):
            reason = choice.get("finish_reason") or choice["message"].get("refusal") or "no reason given"
            raise CallError(self._clean(f"The answer holds no text ({reason!s:.{_SHOWN}})."), status=200)
        finish, model = choice.get("finish_reason"), reply.get("model")
        return Answer(
            text.encode("utf-8", "replace").decode(),  # an answer that was cut off may end in half a character
            finish if isinstance(finish, str) else None,
            model if isinstance(model, str) else None,
            _usage(reply.get("usage")),
        )

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds to wait that a reply's headers (in lower case) ask for, as a number or a date; None for none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        given = headers.get(name, "").strip()
        try:
            seconds = float(given) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds(), 0.0)


def _explained(content: bytes) -> tuple[str, str | None]:
    """The message and the code of an error as OpenAI words it, else the start of the body."""
    try:
        error = msgspec.json.decode(content)["error"]
        message, code = error["message"], error.get("code")
        if isinstance(message, str):
            return message[:_SHOWN], code if isinstance(code, str) else None
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        pass
    return content[:_SHOWN].decode("utf-8", "replace") or "(nothing)", None


def _usage(given: object) -> Usage | None:
    if not isinstance(given, dict):
        return None
    prompt, completion = _count(given.get("prompt_tokens")), _count(given.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = given.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, completion, min(cached or 0, prompt))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
