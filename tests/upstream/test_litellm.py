"""The LiteLLM adapter: with a stand-in for LiteLLM, and with the real one where it is installed."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai
import pytest

from routellm.errors import ConfigError, MissingExtraError, UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import ModelSpec, Timeouts
from routellm.upstream.litellm import COMPROMISED, LiteLLMUpstream, load_litellm
from routellm.upstream.providers import LITELLM_PROVIDERS
from tests.live import DIE, PATIENCE, STALL, LiveServer, Reply, closed_port_url, event
from tests.upstream.fake_litellm import FakeLiteLLM

CHAT = "/chat/completions"
SECRET = "sk-very-secret"
USER: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP", raising=False)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "")  # so that what the adapter sets is taken back afterwards
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLiteLLM:
    fake = FakeLiteLLM()
    monkeypatch.setitem(sys.modules, "litellm", fake)
    return fake


def send(upstream: LiteLLMUpstream, path: str = CHAT, **fields: Any) -> tuple[int, dict[str, str], Any]:
    async def main() -> tuple[int, dict[str, str], Any]:
        reply = await upstream.send(path, json.dumps({"messages": USER, **fields}).encode(), {})
        try:
            body = b"".join([chunk async for chunk in reply.chunks()])
        finally:
            await reply.aclose()
            await upstream.aclose()
        return reply.status, dict(reply.headers), json.loads(body)

    return asyncio.run(main())


def test_a_request_reaches_litellm_with_our_settings_and_no_retries(fake: FakeLiteLLM, live: LiveServer) -> None:
    upstream = LiteLLMUpstream(ModelSpec("litellm/azure/dep", live.base_url, SECRET, timeouts=Timeouts(read=9)), {})
    status, _, body = send(upstream, model="ignored", temperature=0.5, tools=[])
    assert (status, body["model"]) == (200, "dep")
    assert fake.calls == [
        {
            "model": "azure/dep",
            "messages": USER,
            "temperature": 0.5,
            "tools": [],
            "api_base": live.base_url,
            "api_key": SECRET,
            "timeout": 9,
            "num_retries": 0,
            "max_retries": 0,
        }
    ]


@pytest.mark.parametrize(
    "field",
    ["api_base", "base_url", "api_key", "custom_llm_provider", "extra_headers", "mock_response", "fallbacks", "timeout"],
)
def test_a_client_cannot_reach_litellms_own_settings(fake: FakeLiteLLM, live: LiveServer, field: str) -> None:
    upstream = LiteLLMUpstream(ModelSpec("azure/dep", live.base_url, SECRET), {})
    status, _, body = send(upstream, **{field: "http://elsewhere.example"})
    assert status == 400
    assert body["error"]["param"] == field
    assert not fake.calls
    assert not live.requests


def test_what_is_no_chat_request_gets_an_error_of_the_clients_own_kind(fake: FakeLiteLLM, live: LiveServer) -> None:
    upstream = LiteLLMUpstream(ModelSpec("azure/dep", live.base_url, SECRET), {})
    assert send(upstream, "/embeddings")[0] == 404
    with pytest.raises(openai.NotFoundError, match="/chat/completions only"):
        upstream.client().embeddings.create(model="dep", input="x")
    with pytest.raises(openai.BadRequestError, match="extra_thing"):
        upstream.client().chat.completions.create(model="dep", messages=USER, extra_body={"extra_thing": 1})

    async def broken() -> int:
        return (await upstream.send(CHAT, b"{", {})).status

    assert asyncio.run(broken()) == 400
    assert not fake.calls


def test_a_field_that_several_providers_share_is_passed_on(fake: FakeLiteLLM, live: LiveServer) -> None:
    live.replies = [Reply.json({"error": {"message": "no"}}, status=400)]
    upstream = LiteLLMUpstream(ModelSpec("azure/dep", live.base_url, SECRET), {})
    assert send(upstream, user="u-1", reasoning_effort="low")[0] == 400
    assert fake.calls[0]["reasoning_effort"] == "low"


def test_an_error_that_repeats_the_key_does_not_show_it(fake: FakeLiteLLM, live: LiveServer) -> None:
    live.replies = [Reply.json({"error": {"message": f"Incorrect API key: {SECRET}"}}, status=401)]
    status, _, body = send(LiteLLMUpstream(ModelSpec("azure/dep", live.base_url, SECRET), {}))
    assert status == 401
    assert "Incorrect API key: ***" in body["error"]["message"]


def test_the_prices_are_not_fetched_from_the_internet(fake: FakeLiteLLM) -> None:
    import os

    load_litellm("azure/dep")
    assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert vars(fake)["telemetry"] is False


def test_a_provider_that_litellm_does_not_know_is_named_with_the_nearest(fake: FakeLiteLLM) -> None:
    LiteLLMUpstream(ModelSpec("azure/dep"), {}).check()
    with pytest.raises(ConfigError, match="nosuch"):
        LiteLLMUpstream(ModelSpec("nosuch/x"), {}).check()


def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    upstream = LiteLLMUpstream(ModelSpec("azure/dep"), {})
    with pytest.raises(MissingExtraError, match=r'pip install "routellm\[providers\]"'):
        upstream.check()
    with pytest.raises(MissingExtraError):
        send(upstream)


@pytest.mark.parametrize("version", sorted(COMPROMISED))
def test_a_compromised_version_is_refused_before_it_is_imported(
    fake: FakeLiteLLM, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("routellm.upstream.litellm.metadata.version", lambda name: version)
    with pytest.raises(ConfigError, match=rf"LiteLLM {version} .*steal"):
        LiteLLMUpstream(ModelSpec("azure/dep"), {}).check()


def test_letting_go_of_a_stream_cancels_the_call(fake: FakeLiteLLM, live: LiveServer) -> None:
    live.replies = [Reply.sse(event(CHUNK), STALL)]
    upstream = LiteLLMUpstream(ModelSpec("azure/dep", live.base_url, SECRET), {})

    async def main() -> None:
        reply = await upstream.send(CHAT, json.dumps({"messages": USER, "stream": True}).encode(), {})
        await reply.aclose()

    asyncio.run(main())
    assert live.wait_for_request().gone.wait(PATIENCE)


CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "He"}, "finish_reason": None}],
}


# With the real LiteLLM. It is large (about 280 MB) and pins much of what it needs, so it has an environment of its own:
#   python -m venv .venv-litellm && .venv-litellm/bin/pip install -e ".[providers]" pytest hypothesis
#   .venv-litellm/bin/python -m pytest tests/upstream/test_litellm.py
@pytest.fixture
def real() -> Any:
    return pytest.importorskip("litellm", reason="LiteLLM has an environment of its own; see the comment above")


pytest_real = pytest.mark.filterwarnings("default")  # LiteLLM's warnings are its own


@pytest_real
def test_real_litellm_completes_and_streams(real: Any, live: LiveServer) -> None:
    upstream = LiteLLMUpstream(ModelSpec("litellm/openai/m", live.base_url, SECRET), {})
    upstream.check()
    reply = upstream.client().chat.completions.create(model=upstream.model, messages=USER, temperature=0.5)
    assert reply.choices[0].message.content == "Hello."
    assert reply.usage is not None
    assert live.wait_for_request().json == {"model": "m", "messages": USER, "temperature": 0.5}
    chunks = list(upstream.client().chat.completions.create(model=upstream.model, messages=USER, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."
    assert chunks[-1].choices[0].finish_reason == "stop"
    status, headers, body = send(upstream)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body["choices"][0]["message"]["content"] == "Hello."

    async def main() -> str:
        stream = await upstream.async_client().chat.completions.create(model=upstream.model, messages=USER, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        await upstream.aclose()
        return text

    assert asyncio.run(main()) == "Hello."


@pytest_real
def test_real_litellm_calls_tools(real: Any, live: LiveServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    live.replies = [Reply.json({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    _, _, body = send(LiteLLMUpstream(ModelSpec("litellm/openai/m", live.base_url, SECRET), {}), tools=tools)
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert live.wait_for_request().json["tools"] == tools


@pytest_real
def test_real_litellm_translates_for_a_provider_of_another_protocol(real: Any, live: LiveServer) -> None:
    content = [{"type": "text", "text": "Bonjour."}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": content}
    usage = {"input_tokens": 3, "output_tokens": 2}
    live.replies = [Reply.json({**message, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage})]
    upstream = LiteLLMUpstream(ModelSpec("litellm/anthropic/claude-x", live.url, SECRET), {})
    reply = upstream.client().chat.completions.create(model=upstream.model, messages=USER, max_tokens=9)
    request = live.wait_for_request()
    assert (request.path, request.headers["x-api-key"], request.json["max_tokens"]) == ("/v1/messages", SECRET, 9)
    assert reply.choices[0].message.content == "Bonjour."
    assert reply.usage is not None
    assert reply.usage.total_tokens == 5


@pytest_real
def test_real_litellm_knows_each_provider_that_is_left_to_it(real: Any) -> None:
    for prefix in sorted(LITELLM_PROVIDERS):
        LiteLLMUpstream(ModelSpec(f"{prefix}/model"), {}).check()


@pytest_real
def test_real_litellms_errors_become_replies_and_ours(real: Any, live: LiveServer) -> None:
    live.replies = [Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "7"})]
    spec = ModelSpec("litellm/openai/m", live.base_url, SECRET, timeouts=Timeouts(read=0.5))
    status, headers, body = send(LiteLLMUpstream(spec, {}))
    assert (status, headers["retry-after"]) == (429, "7")
    assert "slow down" in body["error"]["message"]
    assert len(live.requests) == 1
    with pytest.raises(openai.RateLimitError):
        LiteLLMUpstream(spec, {}).client().with_options(max_retries=0).chat.completions.create(model="m", messages=USER)
    live.replies = [Reply([STALL])]
    with pytest.raises(UpstreamTimeoutError):
        send(LiteLLMUpstream(spec, {}))
    with pytest.raises(UpstreamError, match="could not be reached"):
        send(LiteLLMUpstream(ModelSpec("litellm/openai/m", closed_port_url(), SECRET), {}))
    live.replies = [Reply.sse(event(CHUNK), DIE)]
    with pytest.raises(UpstreamError, match="broke off"):
        send(LiteLLMUpstream(spec, {}), stream=True)
    with pytest.raises(ConfigError, match="nosuch"):
        LiteLLMUpstream(ModelSpec("nosuch/x"), {}).check()
