"""Which part of a messages request decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routellm.messages import PromptFrom, PromptView
from routellm.serving.apis.messages.api import MessagesApi

CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def result(content: Any = "rain") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def view(*given: dict[str, Any], prompt_from: PromptFrom = "last") -> PromptView:
    api = MessagesApi()
    body = {"model": "router-fixed", "max_tokens": 9, "messages": list(given)}
    return api.view(api.parse(json.dumps(body).encode()), prompt_from)


ASKED = {"role": "assistant", "content": [CALL]}


@pytest.mark.parametrize(
    ("prompt_from", "prompt"), [("last", "second"), ("first", "first"), (2, "first\n\nsecond"), (9, "first\n\nsecond")]
)
def test_a_tool_result_is_no_turn_of_the_user(prompt_from: PromptFrom, prompt: str) -> None:
    turns = [user(text("first")), ASKED, user(result(), result()), ASKED, {"role": "user", "content": "second"}]
    assert view(*turns, ASKED, user(result("a secret")), prompt_from=prompt_from).text == prompt


def test_text_beside_a_tool_result_is_one() -> None:
    assert view(user(text("first")), ASKED, user(result(), text("second"))).text == "second"


def test_nothing_but_tool_results_holds_no_text() -> None:
    assert view(user(result())).text is None
    assert view(user(text("first")), user(PNG)) == PromptView(None, frozenset({"image"}))


@pytest.mark.parametrize(
    ("block", "modalities"),
    [
        (PNG, {"image"}),
        (PDF, {"file"}),
        (result([text("a"), PNG, PDF, 5, {"type": []}]), {"image", "file"}),
        (result("a string"), set()),
        ({"type": "thinking", "thinking": ""}, set()),
    ],
)
def test_what_the_weak_model_may_not_take_is_seen(block: dict[str, Any], modalities: set[str]) -> None:
    assert view({"role": "user", "content": "first"}, user(block)).modalities == modalities
