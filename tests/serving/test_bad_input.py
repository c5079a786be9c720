"""Whatever a client sends, it gets an error of OpenAI's shape that says what is wrong, and never a 500."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from routellm.errors import CheckpointError
from routellm.routers.routers import ROUTER_CLS
from tests.live import PATIENCE, LiveServer
from tests.serving.running import KEY, FixedRouter, RunningServer, chat_body, post, request, settings_for

USER = '[{"role": "user", "content": "secret prompt"}]'


def error_of(response: Any) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = json.loads(response.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
@pytest.mark.parametrize(
    ("body", "status", "param", "code", "words"),
    [
        ("", 400, None, None, "JSON object"),
        ('{"model": "router-fixed"', 400, None, None, "JSON object"),
        ("[1]", 400, None, None, "JSON object"),
        ('{"messages": %s}', 400, "model", "missing_required_parameter", "no `model`"),
        ('{"model": 3, "messages": %s}', 400, "model", None, "string"),
        ('{"model": "router-fixed"}', 400, "messages", "missing_required_parameter", "no `messages`"),
        ('{"model": "router-fixed", "messages": []}', 400, "messages", None, "at least one"),
        ('{"model": "router-fixed", "messages": null}', 400, "messages", None, "list of objects"),
        ('{"model": "router-fixed", "messages": "hi"}', 400, "messages", None, "list of objects"),
        ('{"model": "router-fixed", "messages": ["hi"]}', 400, "messages", None, "list of objects"),
        ('{"model": "router-fixed", "messages": [{"content": "hi"}]}', 400, "messages", None, "role"),
        ('{"model": "router-fixed", "messages": [{"role": 1, "content": "hi"}]}', 400, "messages", None, "role"),
        (
            '{"model": "router-fixed", "messages": [{"role": "user", "content": 5}]}',
            400,
            "messages[0].content",
            None,
            "string",
        ),
        (
            '{"model": "router-fixed", "messages": [{"role": "user", "content": [1]}]}',
            400,
            "messages[0].content[0]",
            None,
            "type",
        ),
        (
            '{"model": "router-fixed", "messages": [{"role": "user", "content": "\\ud83d!"}]}',
            400,
            None,
            None,
            "lone surrogate",
        ),
        ('{"model": "router-fixed", "messages": [{"role": "user", "content": "\x00"}]}', 400, None, None, "JSON"),
        ('{"model": "router-fixt-0.5", "messages": %s}', 400, "model", "unknown_router", "did you mean 'fixed'"),
        ('{"model": "router-", "messages": %s}', 400, "model", "unknown_router", "Served routers: fixed, random"),
        ('{"model": "router-fixed-1.5", "messages": %s}', 400, "model", "invalid_threshold", "from 0"),
        ('{"model": "router-fixed--1", "messages": %s}', 400, "model", "invalid_threshold", "from 0"),
        ('{"model": "router-fixed-nan", "messages": %s}', 400, "model", "invalid_threshold", "number"),
        ('{"model": "router-fixed-", "messages": %s}', 400, "model", "invalid_threshold", "number"),
        ('{"model": "router-fixed-high", "messages": %s}', 400, "model", "invalid_threshold", "number"),
        ('{"model": "gpt-4", "messages": %s}', 404, "model", "model_not_found", "router-fixed-THRESHOLD"),
        ('{"model": "", "messages": %s}', 404, "model", "model_not_found", "demo/strong"),
        ('{"model": "\\u0000\\ud83d\\ude00", "messages": %s}', 404, "model", "model_not_found", "demo/strong"),
    ],
)
def test_a_wrong_request(
    lasting: RunningServer, path: str, body: str, status: int, param: str | None, code: str | None, words: str
) -> None:
    response = post(lasting, body.replace("%s", USER).encode(), path=path)
    assert response.status == status
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]


def test_a_field_given_twice(server: RunningServer, live: LiveServer) -> None:
    response = post(server, b'{"model": "other", "model": "router-fixed", "messages": %s}' % USER.encode())
    assert (response.status, error_of(response)["code"]) == (400, "duplicate_field")
    assert live.requests == []


def test_deep_nesting(lasting: RunningServer) -> None:
    deep = f'{{"model": "router-fixed", "messages": {USER}, "x": {"[" * 200_000}1{"]" * 200_000}}}'
    response = post(lasting, deep.encode())
    assert (response.status, error_of(response)["message"]) == (
        400,
        "The request's body must be a JSON object: it is nested too deeply.",
    )


def test_the_official_client_raises_its_own_errors(lasting: RunningServer) -> None:
    with lasting.client() as client:
        with pytest.raises(openai.NotFoundError, match="did you mean 'demo/strong'"):
            client.chat.completions.create(**chat_body("demo/strogn"))
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**chat_body("router-fixed-2", stream=True))
    assert (caught.value.code, caught.value.param) == ("invalid_threshold", "model")


@pytest.fixture
def narrow(live: LiveServer) -> Iterator[RunningServer]:
    with RunningServer(settings_for(live.base_url, max_body_bytes=1000)) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
def test_a_body_over_the_limit(narrow: RunningServer, live: LiveServer, path: str) -> None:
    response = post(narrow, json.dumps(chat_body(text="x" * 5_000_000)).encode(), path=path)
    assert response.status == 413
    assert error_of(response)["code"] == "request_too_large"
    assert "1,000 bytes" in error_of(response)["message"]
    assert post(narrow, json.dumps(chat_body()).encode(), path=path).status == 200


def test_a_body_of_unknown_length_over_the_limit(narrow: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), PATIENCE) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"64\r\n" + b"x" * 100 + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_over_the_limit_is_refused_by_its_announced_length(narrow: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), PATIENCE) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
def test_a_client_that_leaves_while_sending_is_no_failure(server: RunningServer, live: LiveServer, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert post(server, json.dumps(chat_body()).encode()).status == 200
    assert len(live.requests) == 1
    assert server.complaints == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2", 404, "unknown_path"),
        ("POST", "/v1/images/generations", 404, "unknown_path"),
        ("POST", "/chat/completions", 404, "unknown_path"),
        ("POST", "/v1/chat/completions/", 404, "unknown_path"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/route", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-4", 404, "model_not_found"),
        ("GET", "/v1/models/router-fixed-7", 400, "invalid_threshold"),
    ],
)
def test_a_wrong_path_or_method(lasting: RunningServer, method: str, path: str, status: int, code: str) -> None:
    response = request(lasting, method, path)
    assert (response.status, error_of(response)["code"]) == (status, code)
    if code == "unknown_path":
        message = error_of(response)["message"]
        assert all(f" {path}," in message for path in ("/v1/chat/completions", "/v1/responses", "/v1/route", "/v1/models"))
    if code == "method_not_allowed":
        assert response.headers["allow"] in error_of(response)["message"]


def test_a_base_url_without_v1_is_recognised(lasting: RunningServer) -> None:
    assert "base_url ends in /v1" in error_of(post(lasting, b"{}", path="/chat/completions"))["message"]


class BrokenRouter(FixedRouter):
    """Fails as nobody foresaw."""

    def calculate_strong_win_rate(self, prompt: str) -> float:
        raise CheckpointError(f"internal detail {KEY}") if prompt == "known" else ZeroDivisionError("internal detail")


@pytest.mark.parametrize("text", ["known", "unknown"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
def test_what_nobody_foresaw_is_logged_and_not_told(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch, path: str, text: str
) -> None:
    monkeypatch.setitem(ROUTER_CLS, "fixed", BrokenRouter)
    with RunningServer(settings_for(live.base_url)) as server:
        response = post(server, json.dumps(chat_body(text=text)).encode(), {"x-request-id": "r-77"}, path)
    assert response.status == 500
    assert response.headers["x-should-retry"] == "false"
    error = error_of(response)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "r-77" in error["message"]
    assert "detail" not in error["message"]
    [record] = server.complaints
    assert "r-77" in record.getMessage()
    assert record.exc_info is not None
