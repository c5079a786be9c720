"""What the official clients make of a refusal: which they try again, and which not."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from routellm.errors import BudgetError, InvalidKeyError, KeyNotAllowedError, RateLimitError, RequestError
from routellm.serving.apis.messages.errors import own_error
from routellm.serving.errors import render_error
from tests.live import LiveServer, Reply

NEVER: list[tuple[RequestError, str]] = [
    (InvalidKeyError("No."), "AuthenticationError"),
    (BudgetError("Spent."), "APIStatusError"),
    (KeyNotAllowedError("Not that.", code="router_not_allowed"), "PermissionDeniedError"),
    (RateLimitError("Too much at once.", "tokens", None), "RateLimitError"),
]


def reply(error: RequestError, *, to_anthropic: bool = False) -> Reply:
    rendered = render_error(error, "req-1")
    if to_anthropic:
        rendered = own_error(rendered, "req-1")
    headers = {name.decode(): value.decode() for name, value in rendered.headers if name != b"content-length"}
    return Reply([rendered.body], rendered.status, headers, whole=True)


def ask_openai(live: LiveServer) -> Any:
    with openai.OpenAI(base_url=live.base_url, api_key="rlk-x", max_retries=2) as client:
        return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello!"}])


def ask_anthropic(live: LiveServer) -> Any:
    with anthropic.Anthropic(base_url=live.url, api_key="rlk-x", max_retries=2) as client:
        return client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello!"}])


@pytest.mark.parametrize(("error", "raised"), NEVER, ids=[raised for _, raised in NEVER])
def test_what_no_second_try_can_mend_is_not_tried_again(live: LiveServer, error: RequestError, raised: str) -> None:
    live.replies = [reply(error)]
    with pytest.raises(openai.APIStatusError) as of_openai:
        ask_openai(live)
    assert type(of_openai.value).__name__ == raised
    assert of_openai.value.code == error.code
    live.replies = [reply(error, to_anthropic=True)]
    with pytest.raises(anthropic.APIStatusError) as of_anthropic:
        ask_anthropic(live)
    assert of_anthropic.value.status_code == error.status
    assert len(live.requests) == 2


def test_over_a_limit_is_tried_again_when_it_says(live: LiveServer) -> None:
    live.replies = [reply(RateLimitError("Slow down.", "requests", 0)), Reply.json({"choices": []})]
    assert ask_openai(live).choices == []
    assert len(live.requests) == 2
