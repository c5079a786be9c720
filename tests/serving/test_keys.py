"""Keys, limits and budgets through the whole server, as clients meet them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from routellm.costs import PriceSettings
from routellm.keys.settings import KeysSettings
from routellm.ledger.settings import LedgerSettings
from routellm.serving.settings import GatewaySettings
from tests.live import LiveServer
from tests.serving.running import STRONG, WEAK, RunningServer, chat_body, get, post, request, settings_for

ADMIN = "an-admin-key-of-more-than-32-characters"
PRICES = {
    STRONG: PriceSettings(input_per_million=1_000_000, output_per_million=1_000_000),  # a dollar a token
    WEAK: PriceSettings(input_per_million=0, output_per_million=0),
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def guarded(live: LiveServer, database: Path) -> Iterator[RunningServer]:
    gateway = GatewaySettings(
        keys=KeysSettings(refresh_seconds=60),  # so that only the admin API makes it look
        ledger=LedgerSettings(url=str(database), batch_seconds=0.05),
        prices=PRICES,
    )
    environ = {"ROUTELLM_ADMIN_KEY": ADMIN}
    with RunningServer(settings_for(live.base_url, gateway=gateway), environ) as server:
        yield server


def make(server: RunningServer, **policy: Any) -> tuple[str, str]:
    """A key's text and id, made over the admin API."""
    body = json.dumps({"name": "team", "policy": policy}).encode()
    reply = post(server, body, {"authorization": f"Bearer {ADMIN}"}, "/admin/keys")
    assert reply.status == 201, reply.body
    made = json.loads(reply.body)
    return made["key"], made["id"]


def ask(server: RunningServer, key: str, model: str = "router-fixed-0.4") -> Any:
    return post(server, json.dumps(chat_body(model, max_tokens=20)).encode(), {"authorization": f"Bearer {key}"})


def test_without_a_key_nothing_is_served_and_nothing_is_told(guarded: RunningServer, live: LiveServer) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/route"):
        assert post(guarded, json.dumps(chat_body()).encode(), path=path).status == 401
    assert request(guarded, "GET", "/v1/models").status == 401
    assert live.requests == []
    assert get(guarded, "/health") == {"status": "ok"}


def test_a_key_opens_the_server_to_official_clients_and_stays_here(guarded: RunningServer, live: LiveServer) -> None:
    key, _ = make(guarded)
    with openai.OpenAI(base_url=guarded.base_url, api_key=key, max_retries=0) as client:
        client.chat.completions.create(**chat_body())
        assert len(client.models.list().data) == 4
    assert key not in str(live.requests[0].raw_headers)
    wrong = openai.OpenAI(base_url=guarded.base_url, api_key="rlk-wrong", max_retries=0)
    with wrong as client, pytest.raises(openai.AuthenticationError, match="wrong, revoked or expired"):
        client.chat.completions.create(**chat_body())


def test_a_revoked_key_is_refused_like_a_wrong_one(guarded: RunningServer) -> None:
    key, id = make(guarded)
    assert ask(guarded, key).status == 200
    assert post(guarded, b"", {"authorization": f"Bearer {ADMIN}"}, f"/admin/keys/{id}/revoke").status == 200
    refused = ask(guarded, key)
    assert refused.status == 401
    assert json.loads(refused.body)["error"] == json.loads(ask(guarded, "rlk-aaaaaaaaaaaa-wrong").body)["error"]


def test_what_a_key_does_not_allow_is_refused_before_any_call(guarded: RunningServer, live: LiveServer) -> None:
    key, _ = make(guarded, routers=["fixed"], models=[], threshold_min=0.3)
    assert ask(guarded, key).status == 200
    refused = [ask(guarded, key, model) for model in ("router-random-0.4", "router-fixed-0.2", STRONG)]
    assert [reply.status for reply in refused] == [403] * 3
    assert [json.loads(reply.body)["error"]["code"] for reply in refused] == [
        "router_not_allowed",
        "threshold_not_allowed",
        "model_not_allowed",
    ]
    assert len(live.requests) == 1


def test_the_models_are_those_that_the_key_allows(guarded: RunningServer) -> None:
    def found(key: str, path: str = "/v1/models") -> Any:
        return json.loads(request(guarded, "GET", path, headers={"authorization": f"Bearer {key}"}).body)

    def names(key: str) -> list[str]:
        return [model["id"] for model in found(key)["data"]]

    everything, _ = make(guarded)
    one_router, _ = make(guarded, routers=["fixed"], models=[])
    one_model, _ = make(guarded, routers=[], models=[WEAK, "elsewhere/unserved"])
    assert names(everything) == ["router-fixed", "router-random", STRONG, WEAK]
    assert names(one_router) == ["router-fixed"]
    assert names(one_model) == [WEAK]
    assert found(one_router, "/v1/models/router-fixed-0.3")["threshold"] == 0.3
    for name in ("router-random", "router-random-0.3", WEAK):
        assert found(one_router, f"/v1/models/{name}")["error"]["message"].endswith("Served: router-fixed.")


def test_what_is_refused_is_counted(guarded: RunningServer) -> None:
    key, _ = make(guarded, dollars_per_day=0.5)
    assert ask(guarded, key).status == 402
    assert ask(guarded, "rlk-aaaaaaaaaaaa-wrong").status == 401
    told = request(guarded, "GET", "/metrics").body.decode()
    assert 'routellm_keys_refused_total{why="over_budget"} 1.0' in told
    assert 'routellm_keys_refused_total{why="unauthorized"} 1.0' in told


def test_over_the_requests_of_a_minute(guarded: RunningServer, live: LiveServer) -> None:
    key, _ = make(guarded, requests_per_minute=2)
    statuses = [ask(guarded, key).status for _ in range(5)]  # a minute may begin in between
    assert statuses.count(429) in (1, 2, 3)
    assert len(live.requests) == statuses.count(200)
    limited = next(reply for reply in (ask(guarded, key) for _ in range(9)) if reply.status == 429)
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert "2 requests a minute" in json.loads(limited.body)["error"]["message"]


def test_a_spent_budget_stops_or_leaves_the_weak_model(guarded: RunningServer, live: LiveServer) -> None:
    stops, _ = make(guarded, dollars_per_day=0.5)
    refused = ask(guarded, stops)
    error = json.loads(refused.body)["error"]
    assert refused.status == 402  # which official clients don't try again
    assert "budget" in error["message"]
    assert live.requests == []
    weakens, _ = make(guarded, dollars_per_day=0.5, over_budget="weak")
    answered = ask(guarded, weakens)
    assert answered.status == 200
    assert (answered.headers["x-routellm-model"], answered.headers["x-routellm-reason"]) == (WEAK, "budget")


def test_what_was_spent_is_booked_by_what_the_model_told(guarded: RunningServer, database: Path) -> None:
    key, id = make(guarded, dollars_per_day=100)
    assert ask(guarded, key).status == 200  # 5 tokens in, 2 out, by the upstream's usage
    end = time.monotonic() + 10
    while True:
        with sqlite3.connect(database) as connection:
            rows = connection.execute("SELECT key, nanodollars FROM requests").fetchall()
            spent = connection.execute("SELECT amount FROM spent WHERE key = ? AND kind = 'day'", (id,)).fetchall()
        if rows and spent == [(7_000_000_000,)]:
            break
        assert time.monotonic() < end, (rows, spent)
        time.sleep(0.05)
    assert rows == [(id, 7_000_000_000)]


def test_the_admin_api_takes_the_admin_key_alone(guarded: RunningServer) -> None:
    key, _ = make(guarded)
    for given in (key, "wrong", ""):
        assert request(guarded, "GET", "/admin/keys", headers={"authorization": f"Bearer {given}"}).status == 401
    assert ask(guarded, ADMIN).status == 401
