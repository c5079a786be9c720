"""`/v1/completions` through a live server: the prompt decides, and every byte is passed on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routellm.errors import RequestError
from routellm.serving.apis.completions import CompletionsApi
from tests.live import LiveServer, Reply, event
from tests.serving.running import STRONG, WEAK, RunningServer, post

PATH = "/v1/completions"
COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_700_000_000,
    "model": "big",
    "choices": [{"index": 0, "text": " world", "finish_reason": "stop", "logprobs": None}],
}


@pytest.mark.parametrize(("threshold", "model"), [("0.4", STRONG), ("0.6", WEAK)])
def test_the_threshold_decides(server: RunningServer, live: LiveServer, threshold: str, model: str) -> None:
    live.replies = [Reply.json(COMPLETION)]
    with server.client() as client:
        raw = client.completions.with_raw_response.create(model=f"router-fixed-{threshold}", prompt="Hello")
    assert live.requests[0].path == PATH
    assert live.requests[0].json == {"model": model.partition("/")[2], "prompt": "Hello"}
    assert raw.headers["x-routellm-model"] == model
    assert raw.headers["x-routellm-reason"] == "threshold"
    assert raw.parse().choices[0].text == " world"


def test_every_byte_arrives_and_comes_back(server: RunningServer, live: LiveServer) -> None:
    pieces = [b'data: {"choices": [{"te', b'xt": "\xff"}]}\n', b"\ndata: [DONE]\n\n"]
    live.replies = [Reply.sse(*pieces)]
    body = b'{ "prompt":"Hello" ,"model":"router-fixed-0.4", "stream" :true,"top_k":1e1}'
    response = post(server, body, path=PATH)
    assert live.requests[0].body == body.replace(b"router-fixed-0.4", b"big")
    assert response.body == b"".join(pieces)


def test_a_stream_by_the_official_client(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(event(COMPLETION), event("[DONE]"))]
    with server.client() as client:
        stream = client.completions.create(model="router-fixed-0.4", prompt="Hello", stream=True)
        assert "".join(each.choices[0].text for each in stream) == " world"


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]], "", [], None])
def test_without_a_text_the_strong_model_answers(server: RunningServer, live: LiveServer, prompt: Any) -> None:
    live.replies = [Reply.json(COMPLETION)]
    body = json.dumps({"model": "router-fixed-0.9", "prompt": prompt}).encode()
    response = post(server, body, path=PATH)
    assert response.headers["x-routellm-reason"] == "no-text"
    assert live.requests[0].json["model"] == "big"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("Hello", "Hello"), (["Hello", "world"], "Hello\n\nworld"), ([" ", "Hello"], "Hello"), ([[1, 2], "Hello"], "Hello")],
)
def test_the_prompt_that_decides(prompt: Any, text: str) -> None:
    api = CompletionsApi()
    assert api.view(api.parse(json.dumps({"model": "m", "prompt": prompt}).encode()), "last").text == text


@pytest.mark.parametrize("prompt", [5, {"text": "Hello"}, [{"text": "Hello"}], [1.5], True])
def test_a_prompt_of_the_wrong_form_is_refused(prompt: Any) -> None:
    api = CompletionsApi()
    with pytest.raises(RequestError, match="`prompt` must be") as caught:
        api.view(api.parse(json.dumps({"model": "m", "prompt": prompt}).encode()), "last")
    assert caught.value.param == "prompt"


def test_a_request_without_a_prompt_is_refused(server: RunningServer) -> None:
    response = post(server, b'{"model": "router-fixed-0.4"}', path=PATH)
    assert response.status == 400
    assert json.loads(response.body)["error"]["param"] == "prompt"


def test_a_model_that_takes_no_completions_says_so(lasting: RunningServer) -> None:
    response = post(lasting, b'{"model": "router-fixed-0.4", "prompt": "Hello"}', path=PATH)
    error = json.loads(response.body)["error"]
    assert (response.status, error["code"]) == (400, "unsupported_api")
    assert "chat requests only, not completions" in error["message"]
