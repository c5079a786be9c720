"""What a live server leaves in its ledger: one row for each request, right, whatever became of it; and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routellm.config import load_gateway_section, stamp_of
from routellm.costs import PriceSettings
from routellm.dispatch.settings import ModelSettings
from routellm.keys.settings import KeysSettings
from routellm.ledger.settings import LedgerSettings
from routellm.serving.settings import GatewaySettings, Settings, read_gateway_settings
from routellm.telemetry.logs import JsonFormatter
from routellm.upstream.base import ModelSpec, Timeouts
from tests.ledger.making import stored
from tests.live import DIE, PATIENCE, STALL, LiveServer, Reply, closed_port_url, event
from tests.serving.raw import ask, connect, request_bytes
from tests.serving.running import KEY, STRONG, WEAK, RunningServer, chat_body, post, request, settings_for
from tests.serving.test_reload import eventually, write

PRICES = {
    STRONG: PriceSettings(input_per_million=2.5, output_per_million=10, cached_input_per_million=1.25),
    WEAK: PriceSettings(input_per_million=0.15, output_per_million=0.6),
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
PRICE_OF_USAGE = 60 * 2500 + 40 * 1250 + 10 * 10_000
"""In nano-dollars, with the strong model."""
TOLD = {"input_tokens": 100, "output_tokens": 10, "cached_input_tokens": 40, "estimated": False, "nanodollars": PRICE_OF_USAGE}
NOTHING = dict.fromkeys(TOLD)
STRONG_ANSWERS = {
    "outcome": "answered",
    "status": 200,
    "model": STRONG,
    "role": "strong",
    "reason": "threshold",
    "attempts": 1,
}

CHUNK = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "twelve bytes"}}]}
ENDED = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "twelve bytes"}, "finish_reason": "stop"}
WHOLE = {"id": "c", "object": "chat.completion", "model": "big", "choices": [CHOICE], "usage": USAGE}
STREAM = Reply.sse(event(CHUNK), event(ENDED), event("[DONE]"))
STREAM_WITH_USAGE = Reply.sse(event(CHUNK), event(ENDED), event({"choices": [], "usage": USAGE}), event("[DONE]"))

HELLO = {"role": "user", "content": "Hello!"}
ASKED = chat_body()
STREAMED = chat_body(stream=True)
MESSAGE = {"model": "router-fixed-0.4", "max_tokens": 50, "messages": [HELLO]}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ESTIMATED = {"input_tokens": 2, "output_tokens": 3, "cached_input_tokens": 0, "estimated": True, "nanodollars": 35_000}
"""Of 6 bytes in the request, and the chunk's 12."""

KINDS: Mapping[str, tuple[str, Any, Sequence[Reply], dict[str, Any]]] = {
    "whole": (CHAT, ASKED, [Reply.json(WHOLE)], {**STRONG_ANSWERS, **TOLD, "streamed": False, "win_rate": 0.5}),
    "weak": (
        *(CHAT, chat_body("router-fixed-0.6"), [Reply.json(WHOLE)]),
        {"model": WEAK, "role": "weak", "nanodollars": 100 * 150 + 10 * 600, "strong_nanodollars": PRICE_OF_USAGE},
    ),
    "pinned": (CHAT, chat_body(STRONG), [Reply.json(WHOLE)], {**STRONG_ANSWERS, **TOLD, "reason": "pinned", "router": None}),
    "stream": (CHAT, STREAMED, [STREAM_WITH_USAGE], {**STRONG_ANSWERS, **TOLD, "streamed": True}),
    "stream that tells no tokens": (CHAT, STREAMED, [STREAM], {**STRONG_ANSWERS, **ESTIMATED}),
    "message": (MESSAGES, MESSAGE, [Reply.json(WHOLE)], {**STRONG_ANSWERS, **TOLD, "api": "messages"}),
    "streamed message": (MESSAGES, {**MESSAGE, "stream": True}, [STREAM_WITH_USAGE], {**STRONG_ANSWERS, **TOLD}),
    "response": (
        *(RESPONSES, {"model": "router-fixed-0.4", "input": "Hello!"}, [Reply.json(WHOLE)]),
        {**STRONG_ANSWERS, **TOLD, "api": "responses", "streamed": False},
    ),
    "streamed response": (
        *(RESPONSES, {"model": "router-fixed-0.4", "input": "Hello!", "stream": True}, [STREAM_WITH_USAGE]),
        {**STRONG_ANSWERS, **TOLD, "api": "responses", "streamed": True},
    ),
    "completion": (
        *("/v1/completions", {"model": "router-fixed-0.4", "prompt": "Hello!"}, [Reply.json({"usage": USAGE})]),
        {**STRONG_ANSWERS, **TOLD, "api": "completions"},
    ),
    "embeddings": (
        *("/v1/embeddings", {"model": STRONG, "input": "Hello!"}, [Reply.json({"data": [], "usage": {"prompt_tokens": 100}})]),
        {"api": "embeddings", "reason": "pinned", "input_tokens": 100, "output_tokens": 0, "nanodollars": 250_000},
    ),
    "error of the model": (CHAT, ASKED, [Reply.json({}, status=429)], {**STRONG_ANSWERS, **NOTHING, "status": 429}),
    "tried again": (
        *(CHAT, ASKED, [Reply.json({}, status=503, headers={"retry-after": "0"}), Reply.json(WHOLE)]),
        {**STRONG_ANSWERS, **TOLD, "attempts": 2},
    ),
    "broken off": (
        *(CHAT, STREAMED, [Reply.sse(event(CHUNK), DIE)]),
        {**ESTIMATED, "outcome": "broken-off", "status": 200, "attempts": 1, "error": "upstream_broke_off"},
    ),
    "silent": (
        *(CHAT, ASKED, [Reply([STALL])]),
        {**NOTHING, "outcome": "failed", "status": 504, "attempts": 1, "error": "upstream_timeout", "model": STRONG},
    ),
    "no such model": (
        *(CHAT, chat_body("nobody"), []),
        {**NOTHING, "outcome": "refused", "status": 404, "error": "model_not_found", "attempts": 0, "model": None},
    ),
    "no such threshold": (
        *(CHAT, chat_body("router-fixed-7"), []),
        {**NOTHING, "outcome": "refused", "status": 400, "error": "invalid_threshold", "asked": "router-fixed-7"},
    ),
    "not translatable": (
        *(MESSAGES, {**MESSAGE, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, []),
        {**NOTHING, "outcome": "refused", "status": 400, "attempts": 0, "model": STRONG},
    ),
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


def keeping(live_url: str | None, database: str, *, more: Mapping[str, Any] | None = None, **changes: Any) -> Settings:
    """A server with a ledger. `more` is for the section `gateway`, `ledger` for the ledger's, the rest for `settings_for`."""
    ledger = LedgerSettings(url=database, batch_seconds=0.05, **changes.pop("ledger", {}))
    return settings_for(live_url, gateway=GatewaySettings(ledger=ledger, prices=PRICES, **(more or {})), **changes)


def only_row(database: str) -> dict[str, Any]:
    [row] = stored(database)
    return row


def of(row: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a row of which something is expected."""
    return {name: row[name] for name in expected}


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_leaves_one_row(live: LiveServer, database: str, kind: str) -> None:
    path, fields, live.replies, expected = KINDS[kind]
    timeouts = Timeouts(read=0.2 if kind == "silent" else PATIENCE)
    with RunningServer(keeping(live.base_url, database, timeouts=timeouts)) as server:
        seen = ask(server.port, fields, path, **{"x-request-id": "id-of-the-client"})
    row = only_row(database)
    assert of(row, expected) == expected
    assert (row["request_id"], row["status"]) == ("id-of-the-client", seen.status)
    assert row["attempts"] == len(live.requests)
    assert seen.headers.get("x-routellm-model") == row["model"]


def test_what_can_not_be_read_leaves_a_row_too(live: LiveServer, database: str) -> None:
    with RunningServer(keeping(live.base_url, database)) as server:
        assert post(server, b'{"model": ').status == 400
    expected = {"outcome": "refused", "status": 400, "asked": "", "model": None, **NOTHING}
    assert of(only_row(database), expected) == expected


def test_a_compressed_reply_is_counted(live: LiveServer, database: str) -> None:
    live.replies = [Reply([gzip.compress(json.dumps(WHOLE).encode())], headers={"content-encoding": "gzip"}, whole=True)]
    with RunningServer(keeping(live.base_url, database)) as server:
        assert ask(server.port, ASKED, **{"accept-encoding": "gzip, br"}).status == 200
    assert live.requests[0].headers["accept-encoding"] == "gzip"  # of what was offered, all that can be read
    assert of(only_row(database), TOLD) == TOLD


def test_an_upstream_that_can_not_be_reached(database: str) -> None:
    with RunningServer(keeping(closed_port_url(), database)) as server:
        assert ask(server.port, ASKED).status == 502
    expected = {"outcome": "failed", "status": 502, "error": "upstream_unreachable", "model": STRONG, "attempts": 2, **NOTHING}
    assert of(only_row(database), expected) == expected


def test_a_fallback_is_booked_on_the_model_that_answered(live: LiveServer, database: str) -> None:
    live.replies = [Reply.json(WHOLE)]
    settings = keeping(live.base_url, database, more={"fallback": "both"})
    settings = replace(settings, strong=ModelSpec(STRONG, closed_port_url(), KEY))
    with RunningServer(settings) as server:
        assert ask(server.port, ASKED).headers["x-routellm-reason"] == "fallback"
    expected = {"outcome": "answered", "model": WEAK, "role": "weak", "reason": "fallback", "nanodollars": 21_000}
    row = only_row(database)
    assert of(row, expected) == expected
    assert row["attempts"] >= 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply([STALL]), {"status": 499, "first_byte_ms": None, **NOTHING}),
        (Reply.sse(event(CHUNK), STALL), {"status": 200, **ESTIMATED}),
    ],
    ids=["before the reply", "within it"],
)
def test_a_client_that_leaves(live: LiveServer, database: str, reply: Reply, expected: Mapping[str, Any]) -> None:
    live.replies = [reply]
    with RunningServer(keeping(live.base_url, database)) as server:
        with connect(server.port) as connection:
            connection.sendall(request_bytes(json.dumps(STREAMED).encode()))
            recorded = live.wait_for_request()
            received = b""
            while reply.headers and b"twelve bytes" not in received:
                received += connection.recv(4096)
        assert recorded.gone.wait(PATIENCE)
    row = only_row(database)
    assert of(row, expected) == dict(expected)
    assert (row["outcome"], row["model"], row["attempts"]) == ("client-gone", STRONG, 1)


def test_a_count_of_tokens_takes_none(live: LiveServer, database: str) -> None:
    live.replies = [Reply.json({"input_tokens": 14})]
    models = {name: ModelSettings(formats=("messages",)) for name in (STRONG, WEAK)}
    with RunningServer(keeping(live.base_url, database, more={"models": models})) as server:
        assert ask(server.port, MESSAGE, "/v1/messages/count_tokens").json == {"input_tokens": 14}
    expected = {**STRONG_ANSWERS, **dict.fromkeys(TOLD, 0), "estimated": False}
    assert of(only_row(database), expected) == expected


def test_a_request_without_a_key_leaves_a_row_without_one(live: LiveServer, database: str) -> None:
    with RunningServer(keeping(live.base_url, database, more={"keys": KeysSettings()})) as server:
        assert ask(server.port, ASKED).status == 401
    expected = {"outcome": "refused", "status": 401, "key": None, "model": None, "asked": "", "attempts": 0}
    assert of(only_row(database), expected) == expected
    assert live.requests == []


def test_dry_decisions_and_lists_leave_no_row(live: LiveServer, database: str) -> None:
    with RunningServer(keeping(live.base_url, database)) as server:
        assert ask(server.port, ASKED, "/v1/route").status == 200
        for path in ("/v1/models", "/metrics", "/health", "/nowhere"):
            request(server, "GET", path)
    assert stored(database) == []


def test_sums_of_the_metrics_are_those_of_the_rows(live: LiveServer, database: str) -> None:
    live.replies = [Reply.json(WHOLE), STREAM, Reply.json({}, status=500), STREAM_WITH_USAGE]
    with RunningServer(keeping(live.base_url, database)) as server:
        for model in ("router-fixed-0.4", "router-fixed-0.6", STRONG, WEAK, "nobody"):
            ask(server.port, chat_body(model, stream=True))

        def metrics() -> dict[str, float]:
            lines = request(server, "GET", "/metrics").body.decode().splitlines()
            return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

        def sum_of(family: str, *labels: str) -> float:
            return sum(
                value
                for name, value in metrics().items()
                if name.split("{")[0] == family and all(each in name for each in labels)
            )

        eventually(lambda: sum_of("routellm_requests_total") == 5)
        counted = {kind: sum_of("routellm_tokens_total", f'kind="{kind}"') for kind in ("input", "cached_input", "output")}
        dollars, calls = sum_of("routellm_cost_dollars_total"), sum_of("routellm_upstream_calls_total")
    rows = stored(database)
    assert len(rows) == 5
    sums = {name: sum(row[name] or 0 for row in rows) for name in (*TOLD, "attempts")}
    assert counted["input"] + counted["cached_input"] == sums["input_tokens"]
    assert (counted["cached_input"], counted["output"]) == (sums["cached_input_tokens"], sums["output_tokens"])
    assert dollars == pytest.approx(sums["nanodollars"] / 1e9)
    assert calls == sums["attempts"] == len(live.requests)


def test_changed_prices_hold_from_then_on(live: LiveServer, database: str, tmp_path: Path) -> None:
    live.replies = [Reply.json(WHOLE)]
    config = tmp_path / "config.yaml"

    def text(price: float) -> str:
        prices = {STRONG: {"input_per_million": price, "output_per_million": price}}
        return json.dumps({"gateway": {"ledger": {"url": database}, "prices": prices}})

    config.write_text(text(1))
    gateway = read_gateway_settings(load_gateway_section(config), {}, str(config))
    settings = settings_for(live.base_url, gateway=gateway, config_path=str(config), config_stamp=stamp_of(config))
    with RunningServer(settings) as server:
        ask(server.port, ASKED)
        write(config, text(3))
        eventually(lambda: any("again, for requests" in line.getMessage() for line in server.complaints))
        ask(server.port, ASKED)
    assert [row["nanodollars"] for row in stored(database)] == [110_000, 330_000]


SECRET = "the planted secret of a prompt"
TEXT = f"My number is 4711. {SECRET}"


def redact(prompt: str) -> str | None:
    """What the configuration of a test names."""
    return None if "nothing" in prompt else prompt.replace("4711", "[number]")


def everything_on_disk(database: str) -> bytes:
    return b"".join(path.read_bytes() for path in Path(database).parent.rglob("*") if path.is_file())


@pytest.mark.parametrize("api", [CHAT, MESSAGES, RESPONSES])
def test_prompts_are_kept_where_that_is_switched_on_and_as_redacted(live: LiveServer, database: str, api: str) -> None:
    live.replies = [Reply.json(WHOLE)]
    kept = {"prompts": True, "redact": "tests.serving.test_ledger:redact"}
    with RunningServer(keeping(live.base_url, database, ledger=kept)) as server:
        for text in (TEXT, "nothing of this"):
            fields = {**MESSAGE, "messages": [{"role": "user", "content": text}]}
            if api == RESPONSES:
                fields = {"model": MESSAGE["model"], "input": text}
            assert ask(server.port, fields, api).status == 200
    assert [row["prompt"] for row in stored(database)] == [TEXT.replace("4711", "[number]"), None]
    assert b"4711" not in everything_on_disk(database)


@pytest.mark.parametrize("kept", [False, True])
def test_planted_texts_and_keys_appear_nowhere_else(
    live: LiveServer, database: str, kept: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("routellm"), "propagate", True)
    answer = {**WHOLE, "choices": [{**CHOICE, "message": {"role": "assistant", "content": "the planted answer"}}]}
    live.replies = [Reply.json(answer), Reply.json({}, status=500), Reply.sse(event(CHUNK), DIE), Reply([DIE])]
    settings = keeping(live.base_url, database, ledger={"prompts": kept}, verbose=True, log_format="json")
    told: list[str] = []
    with RunningServer(settings) as server, caplog.at_level(logging.DEBUG):
        for model in ("router-fixed-0.4", "router-fixed-0.6", STRONG, "router-fixed-0.1", "nobody", "router-fixed-9"):
            seen = ask(server.port, chat_body(model, TEXT), **{"authorization": "Bearer sk-client-secret"})
            told.append(str(seen.headers) + (seen.body.decode() if seen.status != 200 else ""))
        told.append(request(server, "GET", "/metrics").body.decode())
        told.append(request(server, "GET", "/health/ready").body.decode())
    lines = [JsonFormatter().format(record) for record in [*server.log, *caplog.records]]
    assert len(lines) > 6
    on_disk = everything_on_disk(database).decode("latin-1")
    assert (SECRET in on_disk) is kept
    for text in (*told, *lines, on_disk):
        assert not any(planted in text for planted in (KEY, "sk-client-secret", "the planted answer"))
        assert SECRET not in text or text is on_disk


def test_a_ledger_that_fails_harms_no_request(live: LiveServer, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ledger today")

    monkeypatch.setattr("routellm.ledger.ledger.Ledger.record", fail)
    with RunningServer(keeping(live.base_url, database)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            for _ in range(2):
                connection.request("POST", CHAT, json.dumps(ASKED))
                response = connection.getresponse()
                assert (response.status, json.loads(response.read())["object"]) == (200, "chat.completion")
    assert ["could not be recorded" in line.getMessage() for line in server.complaints] == [True, True]
