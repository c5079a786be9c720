"""`/v1/embeddings` through a live server: passed on to the model that is named, never routed."""

from __future__ import annotations

import json

import openai
import pytest

from tests.live import LiveServer, Reply
from tests.serving.running import STRONG, WEAK, RunningServer, post

PATH = "/v1/embeddings"
EMBEDDING = {
    "object": "list",
    "model": "small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}


@pytest.mark.parametrize("name", [STRONG, WEAK])
def test_a_model_by_its_own_name_embeds(server: RunningServer, live: LiveServer, name: str) -> None:
    live.replies = [Reply.json(EMBEDDING)]
    with server.client() as client:
        raw = client.embeddings.with_raw_response.create(model=name, input=["Hello"], encoding_format="float", dimensions=2)
    assert live.requests[0].path == PATH
    assert live.requests[0].json == {
        "model": name.partition("/")[2],
        "input": ["Hello"],
        "encoding_format": "float",
        "dimensions": 2,
    }
    assert raw.headers["x-routellm-reason"] == "pinned"
    assert raw.parse().data[0].embedding == [0.25, -0.5]


def test_every_byte_arrives_and_comes_back(server: RunningServer, live: LiveServer) -> None:
    reply = b'{"data": [ {"embedding" :[2.50e-1]}]}'
    live.replies = [Reply([reply], headers={"content-type": "application/json"}, whole=True)]
    body = b'{ "input":[[1,2]] ,"model":"openai/small", "odd":1e1}'
    response = post(server, body, path=PATH)
    assert live.requests[0].body == body.replace(b"openai/small", b"small")
    assert response.body == reply


@pytest.mark.parametrize("name", ["router-fixed-0.4", "router-fixed"])
def test_a_router_is_not_asked(server: RunningServer, live: LiveServer, name: str) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError, match="can't be compared") as caught:
        client.embeddings.create(model=name, input="Hello")
    assert (caught.value.param, caught.value.code) == ("model", "not_routed")
    assert live.requests == []


def test_a_request_without_input_is_refused(server: RunningServer) -> None:
    response = post(server, json.dumps({"model": WEAK}).encode(), path=PATH)
    assert response.status == 400
    assert json.loads(response.body)["error"]["param"] == "input"


def test_a_model_that_takes_no_embeddings_says_so(lasting: RunningServer) -> None:
    response = post(lasting, b'{"model": "demo/weak", "input": "Hello"}', path=PATH)
    error = json.loads(response.body)["error"]
    assert (response.status, error["code"]) == (400, "unsupported_api")
    assert "chat requests only, not embeddings" in error["message"]
