"""The admin API on a live server: the application's own handler of errors, and nothing else beside it."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from routellm.errors import ConfigError, InvalidKeyError, RouteLLMError
from routellm.keys.guard import Guard
from routellm.keys.policy import KeyPolicy
from routellm.serving.admin import ADMIN_KEY, admin_routes
from routellm.serving.errors import render_error
from tests.keys.making import PATIENCE, bearer, guarding, made

ADMIN = "planted-admin-key-of-forty-characters-ok"


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: Any

    @property
    def code(self) -> str:
        found: str = self.body["error"]["code"]
        return found


class Served:
    """The routes on a free port of loopback."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        app = Starlette(routes=admin_routes(guard, {ADMIN_KEY: ADMIN}), exception_handlers={RouteLLMError: _render})
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([self._listener],))
        self.thread.start()

    def ask(self, method: str, path: str, content: Any = None, key: str | None = ADMIN) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, json.loads(response.read()))
        finally:
            connection.close()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        self._listener.close()


async def _render(request: Request, error: Exception) -> Response:
    rendered = render_error(error, "req-1")
    return Response(rendered.body, rendered.status, {name.decode(): value.decode() for name, value in rendered.headers})


@contextmanager
def serving(url: str) -> Iterator[Served]:
    with guarding(url, refresh_seconds=60.0) as guard:  # so that only the admin API's own call makes it look
        served = Served(guard)
        try:
            yield served
        finally:
            served.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(str(tmp_path / "ledger.sqlite")) as found:
        yield found


def test_from_the_making_of_a_key_to_its_end(served: Served) -> None:
    policy = {"routers": ["mf"], "requests_per_minute": 60, "over_budget": "weak"}
    created = served.ask("POST", "/admin/keys", {"name": "team a", "policy": policy, "expires": "2099-01-31T00:00:00Z"})
    assert (created.status, created.headers["cache-control"]) == (201, "no-store")
    id, text = created.body["id"], created.body.pop("key")
    assert text.startswith(f"rlk-{id}-")
    assert created.body["policy"] == policy
    assert (created.body["state"], created.body["expires"]) == ("active", "2099-01-31T00:00:00Z")
    assert served.ask("GET", "/admin/keys").body == {"object": "list", "data": [created.body]}
    assert served.ask("GET", f"/admin/keys/{id}").body == created.body
    assert served.guard.admit(bearer(text)).id == id, "the server itself knows it at once"
    rotated = served.ask("POST", f"/admin/keys/{id}/rotate", {"overlap_seconds": 60}).body
    assert rotated["key"].startswith(f"rlk-{id}-")
    assert rotated["key"] != text
    assert rotated["previous_until"] is not None
    assert {served.guard.admit(bearer(each)).id for each in (text, rotated["key"])} == {id}
    assert served.ask("POST", f"/admin/keys/{id}/rotate").status == 200
    revoked = served.ask("POST", f"/admin/keys/{id}/revoke")
    assert (revoked.status, revoked.body["state"]) == (200, "revoked")
    with pytest.raises(InvalidKeyError):
        served.guard.admit(bearer(rotated["key"]))


@pytest.mark.parametrize(
    "method_and_path", ["POST /admin/keys", "GET /admin/keys", "GET /admin/keys/x", "POST /admin/keys/x/revoke"]
)
def test_nothing_goes_without_the_admin_key(served: Served, method_and_path: str) -> None:
    client_key = served.guard.store.create("team a", KeyPolicy())[1]
    method, path = method_and_path.split()
    answers = {
        json.dumps([answer.status, answer.body])
        for given in (None, "", "wrong", ADMIN[:-1], ADMIN + "x", client_key)
        if (answer := served.ask(method, path, b"{}", given))
    }
    assert len(answers) == 1
    status, body = json.loads(answers.pop())
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"{", 400, "does not describe a key"),
        ({}, 400, "`name`"),
        ({"name": ""}, 400, "1 to 128 printable"),
        ({"name": "a", "policy": {"treshold_min": 0.5}}, 400, "treshold_min"),
        ({"name": "a", "policy": {"threshold_min": 2}}, 400, "threshold_min is 2.0; it must be from 0 to 1"),
        ({"name": "a", "policy": {"requests_per_minute": "60"}}, 400, "Expected `int | null`"),
        ({"name": "a", "expires": "yesterday"}, 400, "expires"),
        ({"name": "a", "expires": "2001-01-01T00:00:00Z"}, 400, "yet to come"),
        ({"name": "a" * 70_000}, 413, "over the limit"),
    ],
)
def test_what_describes_no_key_is_told(served: Served, content: Any, status: int, told: str) -> None:
    answer = served.ask("POST", "/admin/keys", content)
    assert answer.status == status
    assert told in answer.body["error"]["message"]
    assert served.ask("GET", "/admin/keys").body["data"] == []


def test_ids_that_nothing_has(served: Served) -> None:
    for path in ("/admin/keys/nosuchkey123", "/admin/keys/'%20OR%20'1'='1"):
        assert served.ask("GET", path).code == "key_not_found"
        assert served.ask("POST", f"{path}/revoke").status == 404
        assert served.ask("POST", f"{path}/rotate").status == 404


def test_sql_in_every_field_is_text(served: Served) -> None:
    hostile = "'); DROP TABLE keys; --"
    created = served.ask("POST", "/admin/keys", {"name": hostile, "policy": {"routers": [hostile], "models": [hostile]}})
    (key,) = served.ask("GET", "/admin/keys").body["data"]
    assert (key["name"], key["policy"]) == (hostile, {"routers": [hostile], "models": [hostile]})
    assert key["id"] == created.body["id"]


def test_neither_key_is_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = served.ask("POST", "/admin/keys", {"name": "team a"}).body["key"]
    served.ask("GET", "/admin/keys", key=text)
    assert text.split("-")[1] in caplog.text
    assert text not in caplog.text
    assert ADMIN not in caplog.text


def test_without_an_admin_key_or_without_keys_nothing_is_served(tmp_path: Path) -> None:
    assert admin_routes(None, {ADMIN_KEY: ADMIN}) == []
    with guarding(str(tmp_path / "ledger.sqlite")) as guard:
        assert admin_routes(guard, {}) == admin_routes(guard, {ADMIN_KEY: ""}) == []
        for weak in ("short", made(str(tmp_path / "ledger.sqlite"))[1]):
            with pytest.raises(ConfigError, match="32 characters or more, and not begin with rlk-") as caught:
                admin_routes(guard, {ADMIN_KEY: weak})
            assert weak not in str(caught.value)
