"""What every upstream must do, whatever it is reached by: bytes through `send`, objects through the official clients."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import openai
import pytest

from routellm.errors import UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import ModelSpec, Timeouts, Upstream
from routellm.upstream.providers import open_upstream
from tests.live import DIE, STALL, LiveServer, Reply, closed_port_url, event
from tests.upstream.fake_litellm import FakeLiteLLM

T = TypeVar("T")
CHAT = "/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
SECRET = "sk-very-secret"
KINDS = ("http", "litellm", "demo")

LIMITED = Reply.json(
    {"error": {"message": "slow down", "type": "rate_limit_error"}}, status=429, headers={"retry-after": "0.01"}
)
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
FIRST = event({**CHUNK, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "He"}, "finish_reason": None}]})


@dataclass
class World:
    """One kind of upstream, and how to get it to behave in each way."""

    kind: str
    live: LiveServer

    def open(self, behaviour: str = "answers") -> Upstream:
        if self.kind == "demo":
            options = {
                "answers": "",
                "limited": "?status=429&retry_after=0.01",
                "refused": "?fail=connect",
                "silent": "?fail=timeout",
                "dies": "?fail=midstream",
            }
            return open_upstream(ModelSpec(f"demo/m{options[behaviour]}", api_key=SECRET), {})
        replies = {"limited": LIMITED, "silent": Reply([STALL]), "dies": Reply.sse(FIRST, DIE)}
        self.live.replies = [replies[behaviour]] if behaviour in replies else []
        base = closed_port_url() if behaviour == "refused" else self.live.base_url
        timeouts = Timeouts(read=0.2 if behaviour == "silent" else 20.0)
        prefix = "openai" if self.kind == "http" else "litellm/openai"
        return open_upstream(ModelSpec(f"{prefix}/m", base, SECRET, timeouts=timeouts), {})


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "litellm":
        monkeypatch.setitem(sys.modules, "litellm", FakeLiteLLM())
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the adapter sets it; put it back afterwards
    return World(request.param, live)


def run(upstream: Upstream, use: Callable[[Upstream], Awaitable[T]]) -> T:
    async def main() -> T:
        try:
            return await use(upstream)
        finally:
            await upstream.aclose()

    return asyncio.run(main())


def body_for(upstream: Upstream, **fields: Any) -> bytes:
    return json.dumps({"model": upstream.model, "messages": MESSAGES, **fields}).encode()


async def send(upstream: Upstream, **fields: Any) -> tuple[int, dict[str, str], bytes]:
    reply = await upstream.send(CHAT, body_for(upstream, **fields), {"accept": "application/json"})
    try:
        return reply.status, dict(reply.headers), b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.aclose()


def test_an_upstream_opens_without_any_network_and_has_what_it_takes(world: World) -> None:
    upstream = world.open()
    upstream.check()
    assert upstream.model
    assert not world.live.requests
    upstream.close()


def test_send_answers_in_openais_shape(world: World) -> None:
    status, headers, body = run(world.open(), send)
    reply = json.loads(body)
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    assert all(name == name.lower() for name in headers)
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"]["content"]
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]


def test_send_streams_events(world: World) -> None:
    status, headers, body = run(world.open(), lambda upstream: send(upstream, stream=True))
    events = body.decode().strip().split("\n\n")
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert all(each.startswith("data: ") for each in events)
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(each.removeprefix("data: ")) for each in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_send_gives_an_error_status_as_a_reply(world: World) -> None:
    status, headers, body = run(world.open("limited"), send)
    assert status == 429
    assert headers["retry-after"] == "0.01"
    assert json.loads(body)["error"]["message"]


def test_send_names_a_model_that_cannot_be_reached(world: World) -> None:
    with pytest.raises(UpstreamError, match="could not be reached") as caught:
        run(world.open("refused"), send)
    assert not isinstance(caught.value, UpstreamTimeoutError)
    assert "/m" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_send_times_out(world: World) -> None:
    with pytest.raises(UpstreamTimeoutError, match="did not answer"):
        run(world.open("silent"), send)


def test_a_reply_that_breaks_off_raises_while_it_is_read(world: World) -> None:
    with pytest.raises(UpstreamError, match="broke off"):
        run(world.open("dies"), lambda upstream: send(upstream, stream=True))


def test_a_reply_can_be_let_go_of_unread(world: World) -> None:
    async def use(upstream: Upstream) -> int:
        reply = await upstream.send(CHAT, body_for(upstream, stream=True), {})
        await reply.aclose()
        return reply.status

    assert run(world.open(), use) == 200


def test_the_blocking_client_completes(world: World) -> None:
    upstream = world.open()
    reply = upstream.client().chat.completions.create(model=upstream.model, messages=MESSAGES)
    assert isinstance(reply, openai.types.chat.ChatCompletion)
    assert reply.choices[0].message.content
    assert reply.usage is not None
    assert reply.usage.total_tokens > 0
    upstream.close()


def test_the_blocking_client_streams(world: World) -> None:
    upstream = world.open()
    with upstream.client().chat.completions.create(model=upstream.model, messages=MESSAGES, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    upstream.close()


def test_the_asynchronous_client_completes(world: World) -> None:
    async def use(upstream: Upstream) -> str | None:
        reply = await upstream.async_client().chat.completions.create(model=upstream.model, messages=MESSAGES)
        return reply.choices[0].message.content

    assert run(world.open(), use)


def test_the_asynchronous_client_streams(world: World) -> None:
    async def use(upstream: Upstream) -> str:
        client = upstream.async_client()
        async with await client.chat.completions.create(model=upstream.model, messages=MESSAGES, stream=True) as stream:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert run(world.open(), use)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [("limited", openai.RateLimitError), ("refused", openai.APIConnectionError), ("silent", openai.APITimeoutError)],
)
def test_failures_are_the_official_clients_own_exceptions(
    world: World, behaviour: str, error: type[openai.OpenAIError]
) -> None:
    upstream = world.open(behaviour)
    with pytest.raises(error) as caught:
        upstream.client().with_options(max_retries=0).chat.completions.create(model=upstream.model, messages=MESSAGES)
    assert SECRET not in str(caught.value)

    async def use(upstream: Upstream) -> None:
        client = upstream.async_client().with_options(max_retries=0)
        await client.chat.completions.create(model=upstream.model, messages=MESSAGES)

    with pytest.raises(error):
        run(upstream, use)


def test_the_official_client_tries_again_as_it_always_does(world: World) -> None:
    upstream = world.open("limited")
    with pytest.raises(openai.RateLimitError):
        upstream.client().with_options(max_retries=1).chat.completions.create(model=upstream.model, messages=MESSAGES)
    if world.kind != "demo":
        assert len(world.live.requests) == 2
    upstream.close()


def test_the_clients_are_made_once(world: World) -> None:
    upstream = world.open()
    assert upstream.client() is upstream.client()

    async def use(upstream: Upstream) -> bool:
        return upstream.async_client() is upstream.async_client()

    assert run(upstream, use)


def test_no_repr_shows_the_key(world: World) -> None:
    upstream = world.open()
    for value in (upstream, upstream.client()):
        assert SECRET not in repr(value)
        assert SECRET not in str(value)
    upstream.close()


def test_many_requests_at_once_each_get_their_answer(world: World) -> None:
    async def use(upstream: Upstream) -> list[int]:
        return [status for status, _, _ in await asyncio.gather(*(send(upstream) for _ in range(20)))]

    assert run(world.open(), use) == [200] * 20
