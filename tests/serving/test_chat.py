"""Chat completions through a live server to a live upstream: with the official client, with curl, and byte for byte."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routellm.routers.routers import ROUTER_CLS
from tests.live import PATIENCE, Gate, LiveServer, Reply, event
from tests.serving.running import KEY, STRONG, WEAK, FixedRouter, RunningServer, chat_body, post, settings_for

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "strict": True,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False},
        },
    }
]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize(("threshold", "model"), [("0.4", STRONG), ("0.5", STRONG), ("0.6", WEAK), ("0", STRONG), ("1", WEAK)])
def test_the_threshold_decides(server: RunningServer, live: LiveServer, threshold: str, model: str) -> None:
    with server.client() as client:
        raw = client.chat.completions.with_raw_response.create(**chat_body(f"router-fixed-{threshold}"))
    assert live.requests[0].path == "/v1/chat/completions"
    assert live.requests[0].json["model"] == model.partition("/")[2]
    assert raw.headers["x-routellm-model"] == model
    assert raw.headers["x-routellm-router"] == "fixed"
    assert float(raw.headers["x-routellm-threshold"]) == float(threshold)
    assert raw.headers["x-routellm-win-rate"] == "0.500000"
    assert raw.headers["x-routellm-reason"] == "threshold"
    assert int(raw.headers["x-routellm-decision-us"]) >= 0
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello."
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7


def test_a_router_without_a_threshold_uses_its_default(server: RunningServer) -> None:
    with server.client() as client:
        raw = client.chat.completions.with_raw_response.create(**chat_body("router-fixed"))
    assert raw.headers["x-routellm-threshold"] == "0.5"


@pytest.mark.parametrize("name", [STRONG, WEAK])
def test_a_model_of_the_pair_can_be_pinned(server: RunningServer, live: LiveServer, name: str) -> None:
    with server.client() as client:
        raw = client.chat.completions.with_raw_response.create(**chat_body(name))
    assert live.requests[0].json["model"] == name.partition("/")[2]
    assert raw.headers["x-routellm-reason"] == "pinned"
    assert raw.headers["x-routellm-model"] == name
    assert "x-routellm-win-rate" not in raw.headers


def test_a_stream_comes_back_as_it_was_sent(server: RunningServer, live: LiveServer) -> None:
    with server.client() as client:
        stream = client.chat.completions.create(**chat_body(stream=True, stream_options={"include_usage": True}))
        assert stream.response.headers["x-routellm-win-rate"] == "0.500000"
        assert stream.response.headers["x-routellm-model"] == STRONG
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "Hello."
    assert live.requests[0].json["stream_options"] == {"include_usage": True}


def test_a_chunk_is_passed_on_before_the_next_one_exists(server: RunningServer, live: LiveServer) -> None:
    gate = Gate()
    first = {"choices": [{"index": 0, "delta": {"content": "one"}}]}
    live.replies = [Reply.sse(event(first), gate, event({**first, "last": True}), event("[DONE]"))]
    with server.client() as client:
        stream = client.chat.completions.create(**chat_body(stream=True))
        assert next(stream).choices[0].delta.content == "one"  # the upstream has not sent more than this
        gate.open()
        assert [chunk.model_extra for chunk in stream] == [{"last": True}]


def test_the_asynchronous_client_in_both_forms(server: RunningServer) -> None:
    async def ask() -> tuple[str | None, str]:
        async with server.async_client() as client:
            answer = await client.chat.completions.create(**chat_body())
            stream = await client.chat.completions.create(**chat_body(stream=True))
            return answer.choices[0].message.content, "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == ("Hello.", "Hello.")


def test_every_field_of_a_rich_request_arrives(server: RunningServer, live: LiveServer) -> None:
    fields: dict[str, Any] = {
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": SCHEMA,
        "max_completion_tokens": 12,
        "temperature": 0.0,
        "logit_bias": {"50256": -100},
        "metadata": {"model": "router-fixed-0.4"},
    }
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Ulm?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    with server.client() as client:
        client.chat.completions.create(
            model="router-fixed-0.4", messages=messages, extra_body={"top_k": 5, "provider": {"order": ["a"]}}, **fields
        )
    assert live.requests[0].json == {
        **fields,
        "model": "big",
        "messages": messages,
        "top_k": 5,
        "provider": {"order": ["a"]},
    }


def test_structured_output_by_the_client_s_own_helper(server: RunningServer, live: LiveServer) -> None:
    message = {"role": "assistant", "content": '{"n": 4}', "refusal": None}
    live.replies = [
        Reply.json(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "big",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
        )
    ]
    with server.client() as client:
        answer = client.chat.completions.create(**chat_body(response_format=SCHEMA))
    assert json.loads(answer.choices[0].message.content or "") == {"n": 4}
    assert live.requests[0].json["response_format"] == SCHEMA


def test_an_image_goes_to_the_strong_model_whatever_the_score(server: RunningServer, live: LiveServer) -> None:
    content: Any = [{"type": "text", "text": "What is this?"}, PICTURE]
    with server.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="router-fixed-1", messages=[{"role": "user", "content": content}]
        )
    assert raw.headers["x-routellm-reason"] == "modality"
    assert raw.headers["x-routellm-model"] == STRONG
    assert live.requests[0].json["messages"][0]["content"] == content


def test_an_image_is_scored_by_its_text_where_the_weak_model_sees(live: LiveServer) -> None:
    body = json.dumps(
        {"model": "router-fixed-1", "messages": [{"role": "user", "content": [PICTURE, {"type": "text", "text": "?"}]}]}
    )
    with RunningServer(settings_for(live.base_url, weak_modalities=frozenset({"image"}))) as server:
        response = post(server, body.encode())
    assert response.headers["x-routellm-model"] == WEAK


def test_a_request_without_text_goes_to_the_strong_model(server: RunningServer) -> None:
    response = post(server, b'{"model": "router-fixed-1", "messages": [{"role": "system", "content": "s"}]}')
    assert (response.headers["x-routellm-reason"], response.headers["x-routellm-model"]) == ("no-text", STRONG)


@pytest.mark.parametrize(
    ("prompt_from", "wanted"), [("last", "third"), ("first", "first"), (2, "second\n\nthird"), (9, "first\n\nsecond\n\nthird")]
)
def test_which_turns_decide(live: LiveServer, monkeypatch: pytest.MonkeyPatch, prompt_from: Any, wanted: str) -> None:
    routers: list[FixedRouter] = []

    class Kept(FixedRouter):
        def __init__(self) -> None:
            super().__init__()
            routers.append(self)

    monkeypatch.setitem(ROUTER_CLS, "fixed", Kept)
    turns: list[Any] = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "second"}]},
        {"role": "user", "content": "third"},
        {"role": "tool", "tool_call_id": "x", "content": "result"},
    ]
    with RunningServer(settings_for(live.base_url, prompt_from=prompt_from)) as server:
        post(server, json.dumps({"model": "router-fixed", "messages": turns}).encode())
    assert routers[0].seen == [wanted]


ODD = (
    b' {"stream" : false,\t"messages":[ {"role":"user","content":"\\u0048i \\"router-fixed-0.4\\"","x":1.0} ],'
    b'\n"model":"router-fixed-0.4","n":1e0, "seed":12345678901234567890123,"metadata":{"model":"router-fixed-0.4"},"":null } '
)


def test_every_byte_but_the_model_arrives_as_sent(server: RunningServer, live: LiveServer) -> None:
    assert post(server, ODD).status == 200
    assert live.requests[0].body == ODD.replace(b'"model":"router-fixed-0.4"', b'"model":"big"', 1)


def test_the_reply_s_bytes_come_back_as_sent(server: RunningServer, live: LiveServer) -> None:
    body = b'{"not even": a completion, \xff'
    live.replies = [Reply([body], 200, {"content-type": "application/json", "x-own": "kept", "set-cookie": "a=b"}, whole=True)]
    response = post(server, ODD)
    assert response.body == body
    assert response.headers["content-length"] == str(len(body))
    assert response.headers["x-own"] == "kept"
    assert "set-cookie" not in response.headers


def test_a_compressed_reply_stays_compressed(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply([b"\x1f\x8b..."], 200, {"content-encoding": "gzip"}, whole=True)]
    response = post(server, ODD, {"accept-encoding": "gzip, br"})
    assert live.requests[0].headers["accept-encoding"] == "gzip, br"
    assert (response.headers["content-encoding"], response.body) == ("gzip", b"\x1f\x8b...")


def test_headers_on_their_way(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.json({}, headers={"x-request-id": "theirs", "x-routellm-model": "forged"})]
    private = {
        "cookie": "s=1",
        "x-forwarded-for": "10.0.0.7",
        "x-api-key": "k",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
    }
    response = post(server, ODD, {"authorization": "Bearer sk-client", "x-request-id": "mine-1", "x-title": "t", **private})
    seen = live.requests[0].headers
    assert seen["authorization"] == f"Bearer {KEY}"
    assert seen["x-request-id"] == "mine-1"
    assert seen["x-title"] == "t"
    assert not {"cookie", "x-forwarded-for", "x-api-key", "x-hop"} & seen.keys()
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-upstream-request-id"] == "theirs"
    assert response.headers.get_all("x-routellm-model") == [STRONG]
    assert response.headers.get_all("date") is not None  # the upstream's own
    assert response.headers.get_all("server") is not None


@pytest.mark.parametrize("given_id", ["", "two words", "x" * 129, "é", "<script>"])
def test_an_odd_request_id_is_replaced(lasting: RunningServer, given_id: str) -> None:
    response = post(lasting, ODD, {"x-request-id": given_id})
    assert response.headers["x-request-id"].startswith("req-")


def test_model_names_that_no_header_could_hold(live: LiveServer) -> None:
    name = "openai/größe 模型%\u2028"
    with RunningServer(settings_for(live.base_url, strong=name)) as server:
        response = post(server, json.dumps(chat_body(name)).encode())
        with server.client() as client:
            listed = client.models.list().data
    assert response.headers["x-routellm-model"] == "openai/gr%C3%B6%C3%9Fe%20%E6%A8%A1%E5%9E%8B%25%E2%80%A8"
    assert live.requests[0].json["model"] == name.partition("/")[2]
    assert name in [model.id for model in listed]


@pytest.mark.parametrize(
    "text", ["नमस्ते", "日本語のテキスト", "مرحبا", "👩‍🚀\u200b", "\u0000\u0001", "a" * 1_000_000, "é\u0301" * 9]
)
def test_prompts_in_any_script_and_length(server: RunningServer, live: LiveServer, text: str) -> None:
    with server.client() as client:
        client.chat.completions.create(**chat_body(text=text))
    assert live.requests[0].json["messages"][0]["content"] == text


keys = st.text().filter(lambda key: key not in ("model", "messages", "stream"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
lenient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@lenient
@given(fields=st.dictionaries(keys, values, max_size=4), text=st.text(min_size=1).filter(str.strip))
def test_the_other_fields_of_any_valid_request_arrive_as_sent(
    server: RunningServer, live: LiveServer, fields: dict[str, Any], text: str
) -> None:
    body = json.dumps({**fields, **chat_body(text=text)}, ensure_ascii=False).encode()
    response = post(server, body)
    assert response.status == 200
    assert live.requests[-1].body == body.replace(b'"model": "router-fixed-0.4", "mess', b'"model": "big", "mess')


@lenient
@given(
    body=values | st.dictionaries(st.sampled_from(["model", "messages", "stream", "n"]), values | st.just("router-fixed-0.4"))
)
def test_no_json_makes_the_server_fail(lasting: RunningServer, body: Any) -> None:
    response = post(lasting, json.dumps(body).encode())
    assert response.status in (200, 400, 404)
    if response.status != 200:
        assert set(json.loads(response.body)["error"]) == {"message", "type", "param", "code"}


def test_curl(server: RunningServer) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    command = [curl, "-sN", "-D", "-", f"{server.base_url}/chat/completions", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        [*command, "-d", json.dumps(chat_body(stream=True))], capture_output=True, timeout=PATIENCE, check=True
    )
    head, _, stream = done.stdout.partition(b"\r\n\r\n")
    assert b"x-routellm-model: openai/big" in head
    assert stream.endswith(b"data: [DONE]\n\n")


class SlowRouter(FixedRouter):
    """Holds its score back until told, and says when it was asked."""

    blocking = True
    asked = threading.Event()
    told = threading.Event()

    def calculate_strong_win_rate(self, prompt: str) -> float:
        if prompt == "slow":
            self.asked.set()
            assert self.told.wait(PATIENCE)
        return 0.5


def test_a_slow_score_does_not_hold_up_other_requests(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTER_CLS, "fixed", SlowRouter)
    with RunningServer(settings_for(live.base_url)) as server:
        answers: list[int] = []
        waiting = threading.Thread(
            target=lambda: answers.append(post(server, json.dumps(chat_body(text="slow")).encode()).status)
        )
        waiting.start()
        assert SlowRouter.asked.wait(PATIENCE)
        assert post(server, json.dumps(chat_body("router-random-0.5")).encode()).status == 200
        assert answers == []
        SlowRouter.told.set()
        waiting.join(PATIENCE)
        assert answers == [200]
