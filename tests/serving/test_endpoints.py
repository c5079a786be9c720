"""The routes beside chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

import routellm
from tests.live import LiveServer
from tests.serving.running import STRONG, WEAK, RunningServer, chat_body, get, post, request


def test_the_models_are_listed_for_the_official_client(server: RunningServer) -> None:
    with server.client() as client:
        models = {model.id: model for model in client.models.list()}
        assert list(models) == ["router-fixed", "router-random", STRONG, WEAK]
        assert client.models.retrieve("router-random").model_extra == {"threshold": 0.5}
        assert client.models.retrieve(STRONG).model_extra == {"role": "strong"}
        assert client.models.retrieve("router-fixed-0.25").model_extra == {"threshold": 0.25}


def test_the_list_has_openai_s_shape(lasting: RunningServer) -> None:
    listed = get(lasting, "/v1/models")
    assert listed["object"] == "list"
    for entry in listed["data"]:
        assert {"id", "object", "created", "owned_by"} <= entry.keys()
        assert entry["object"] == "model"


def test_a_decision_without_a_call(server: RunningServer, live: LiveServer) -> None:
    body = json.dumps(chat_body("router-fixed-0.6", stream=True)).encode()
    decision = json.loads(post(server, body, path="/v1/route").body)
    assert decision.pop("decision_us") >= 0
    assert decision == {
        "object": "route.decision",
        "model": WEAK,
        "reason": "threshold",
        "router": "fixed",
        "threshold": 0.6,
        "win_rate": 0.5,
    }
    assert live.requests == []


def test_a_decision_is_the_one_that_a_chat_request_gets(server: RunningServer) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    bodies: list[Any] = [
        chat_body("router-fixed-0.5"),
        chat_body(STRONG),
        {"model": "router-fixed-1", "messages": [{"role": "user", "content": picture}]},
        {"model": "router-fixed-1", "messages": [{"role": "assistant", "content": "text"}]},
    ]
    for body in bodies:
        data = json.dumps(body).encode()
        decision = json.loads(post(server, data, path="/v1/route").body)
        headers = post(server, data).headers
        assert (headers["x-routellm-model"], headers["x-routellm-reason"]) == (decision["model"], decision["reason"])
        assert headers.get("x-routellm-win-rate", None) == (None if decision["win_rate"] is None else "0.500000")


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health(lasting: RunningServer, path: str) -> None:
    ready = {"status": "ready", "problems": []}
    assert get(lasting, path) == (ready if path.endswith("ready") else {"status": "ok"})
    assert request(lasting, "HEAD", path).status == 200


def test_the_root_says_where_to_go(lasting: RunningServer) -> None:
    root = get(lasting, "/")
    assert root["version"] == routellm.__version__
    assert {"/v1/chat/completions", "/v1/route", "/v1/models", "/health"} <= set(root["paths"])


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nowhere"])
def test_a_request_id_goes_in_and_out(lasting: RunningServer, path: str) -> None:
    assert request(lasting, "GET", path, headers={"x-request-id": "abc-1"}).headers.get_all("x-request-id") == ["abc-1"]
    assert request(lasting, "GET", path).headers["x-request-id"].startswith("req-")


def test_the_server_does_not_say_what_it_runs_on(lasting: RunningServer) -> None:
    assert {"server", "date"} & {name.lower() for name in request(lasting, "GET", "/health").headers} == set()
