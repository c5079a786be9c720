"""The fast path against a live server: what reaches the upstream, what comes back, and every way in which it can fail."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import openai
import pytest

from routellm.errors import MissingKeyError, UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import ModelSpec, Timeouts, UpstreamReply
from routellm.upstream.http import HttpUpstream
from tests.live import DIE, PATIENCE, STALL, Gate, LiveServer, Reply, closed_port_url, event

T = TypeVar("T")
CHAT = "/chat/completions"
PATIENT = Timeouts()
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


def spec_for(server: LiveServer, name: str = "openai/m", key: str | None = "sk-up", timeouts: Timeouts = PATIENT) -> ModelSpec:
    return ModelSpec(name, server.base_url, key, timeouts=timeouts)


def run(spec: ModelSpec, use: Callable[[HttpUpstream], Awaitable[T]], environ: dict[str, str] | None = None) -> T:
    """Open an upstream on a loop of its own, use it, close it."""

    async def main() -> T:
        upstream = HttpUpstream(spec, environ or {})
        try:
            return await use(upstream)
        finally:
            await upstream.aclose()

    return asyncio.run(main())


async def fetch(
    upstream: HttpUpstream, headers: dict[str, str] | None = None, body: bytes = BODY
) -> tuple[int, dict[str, str], bytes]:
    reply = await upstream.send(CHAT, body, headers or {})
    try:
        return reply.status, dict(reply.headers), b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.aclose()


async def collect(reply: UpstreamReply, into: list[bytes]) -> None:
    async for chunk in reply.chunks():
        into += [chunk]


def test_the_body_arrives_byte_for_byte_under_the_upstreams_key(live: LiveServer) -> None:
    body = b'{ "model":"m",\n"messages" : [{"role":"user","content":"\\u00e9\\ud83d\\ude00"}], "unknown":1.0 }'
    run(spec_for(live), lambda upstream: fetch(upstream, body=body))
    request = live.wait_for_request()
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat/completions", body)
    assert request.headers["authorization"] == "Bearer sk-up"
    assert request.headers["content-type"] == "application/json"


def test_end_to_end_headers_are_passed_on_and_the_callers_credentials_are_not(live: LiveServer) -> None:
    sent = {
        "X-Request-Id": "r-1",
        "user-agent": "curl/8",
        "accept": "text/event-stream",
        "openai-beta": "x=1",
        "authorization": "Bearer callers-own",
        "x-api-key": "callers-own",
        "api-key": "callers-own",
        "cookie": "session=callers-own",
        "host": "gateway.example",
        "content-length": "999",
        "connection": "keep-alive",
        "te": "trailers",
        "transfer-encoding": "chunked",
        "upgrade": "h2c",
        "proxy-authorization": "Basic callers-own",
        "expect": "100-continue",
    }
    run(spec_for(live), lambda upstream: fetch(upstream, sent))
    got = live.wait_for_request().headers
    assert got.pop("host") in live.url
    assert got == {
        "x-request-id": "r-1",
        "user-agent": "curl/8",
        "accept": "text/event-stream",
        "openai-beta": "x=1",
        "authorization": "Bearer sk-up",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
    }


def test_nothing_is_added_on_our_own_account(live: LiveServer) -> None:
    run(spec_for(live, key=None), fetch)
    assert set(live.wait_for_request().headers) == {"host", "content-type", "content-length"}


def test_a_compressed_reply_comes_back_as_it_is(live: LiveServer) -> None:
    packed = gzip.compress(b'{"a": 1}')
    headers = {
        "content-type": "application/json",
        "content-encoding": "gzip",
        "x-ratelimit-remaining": "7",
        "set-cookie": "a=b",
    }
    live.replies = [Reply([packed], headers=headers, whole=True)]
    status, got, body = run(spec_for(live), fetch)
    assert (status, body) == (200, packed)
    assert got["content-encoding"] == "gzip"
    assert got["x-ratelimit-remaining"] == "7"
    assert "set-cookie" not in got
    assert "connection" not in got


def test_an_error_status_is_a_reply_with_its_headers(live: LiveServer) -> None:
    live.replies = [Reply.json({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "7"})]
    status, headers, body = run(spec_for(live), fetch)
    assert (status, headers["retry-after"], json.loads(body)) == (429, "7", {"error": {"message": "slow down"}})


def test_a_redirect_is_a_reply_and_the_key_does_not_follow_it(live: LiveServer) -> None:
    live.replies = [Reply((), 307, {"location": live.url + "/elsewhere"})]
    status, headers, _ = run(spec_for(live), fetch)
    assert (status, headers["location"]) == (307, live.url + "/elsewhere")
    assert len(live.requests) == 1


def test_a_stream_comes_in_piece_by_piece_as_it_is_sent(live: LiveServer) -> None:
    first, second, gate = event({"n": 1}), event("[DONE]"), Gate()
    live.replies = [Reply.sse(first, gate, second)]

    async def use(upstream: HttpUpstream) -> list[bytes]:
        reply = await upstream.send(CHAT, BODY, {})
        chunks = reply.chunks()
        got = [await anext(chunks)]
        gate.open()  # only now may the server go on: the first piece did not wait for the second
        got += [chunk async for chunk in chunks]
        await reply.aclose()
        return got

    assert run(spec_for(live), use) == [first, second]


def test_a_large_body_arrives_whole(live: LiveServer) -> None:
    body = b'{"messages": "' + b"x" * 3_000_000 + b'"}'
    run(spec_for(live), lambda upstream: fetch(upstream, body=body))
    request = live.wait_for_request()
    assert request.body == body
    assert request.headers["content-length"] == str(len(body))


def test_a_connection_is_used_again(live: LiveServer) -> None:
    async def use(upstream: HttpUpstream) -> None:
        for _ in range(3):
            await fetch(upstream)

    run(spec_for(live), use)
    assert len({request.connection for request in live.requests}) == 1


def test_one_upstream_serves_one_event_loop_after_another(live: LiveServer) -> None:
    upstream = HttpUpstream(spec_for(live), {})

    async def main() -> int:
        status, _, _ = await fetch(upstream)
        reply = await upstream.async_client().chat.completions.create(model="m", messages=[])
        assert reply.choices[0].message.content == "Hello."
        await upstream.aclose()
        return status

    assert [asyncio.run(main()), asyncio.run(main())] == [200, 200]


def test_a_refused_connection_is_named_with_its_address(live: LiveServer) -> None:
    url = closed_port_url()
    with pytest.raises(UpstreamError, match=r"'openai/m' could not be reached at .*Check that the endpoint is up") as caught:
        run(ModelSpec("openai/m", url, "sk-up"), fetch)
    assert not isinstance(caught.value, UpstreamTimeoutError)
    assert url in str(caught.value)
    assert "sk-up" not in str(caught.value)


def test_a_host_that_does_not_exist_is_unreachable() -> None:
    with pytest.raises(UpstreamError, match="could not be reached"):
        run(ModelSpec("openai/m", "http://no-such-host.invalid/v1"), fetch)


def test_a_connection_cut_before_any_answer_is_an_error_and_is_not_tried_again(live: LiveServer) -> None:
    live.replies = [Reply([DIE])]
    with pytest.raises(UpstreamError, match="could not be reached"):
        run(spec_for(live), fetch)
    assert len(live.requests) == 1


@pytest.mark.parametrize("steps", [[b"half", DIE], [b"data: {}\n\n", b"data: ", DIE]])
def test_an_upstream_that_dies_in_the_middle_is_an_error_after_what_came(live: LiveServer, steps: list[bytes]) -> None:
    live.replies = [Reply(steps)]

    async def use(upstream: HttpUpstream) -> bytes:
        reply = await upstream.send(CHAT, BODY, {})
        got: list[bytes] = []

        with pytest.raises(UpstreamError, match="broke off"):
            await collect(reply, got)
        await reply.aclose()
        return b"".join(got)

    assert run(spec_for(live), use) == b"".join(step for step in steps if isinstance(step, bytes))


def test_an_upstream_that_does_not_answer_times_out(live: LiveServer) -> None:
    live.replies = [Reply([STALL])]
    with pytest.raises(UpstreamTimeoutError, match=r"did not answer within 0\.05 s"):
        run(spec_for(live, timeouts=Timeouts(read=0.05)), fetch)


def test_an_upstream_that_falls_silent_in_the_middle_times_out(live: LiveServer) -> None:
    live.replies = [Reply.sse(event({}), STALL)]
    with pytest.raises(UpstreamTimeoutError, match=r"fell silent for 0\.05 s"):
        run(spec_for(live, timeouts=Timeouts(read=0.05)), fetch)


def test_a_connection_that_never_opens_times_out() -> None:
    import socket

    with socket.socket() as full:  # its backlog is taken, so that a further connection is never accepted
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            host, port = full.getsockname()
            spec = ModelSpec("openai/m", f"http://{host}:{port}/v1", timeouts=Timeouts(connect=0.2, read=0.2))
            with pytest.raises(UpstreamTimeoutError, match="did not"):
                run(spec, fetch)


def test_letting_go_of_a_reply_cancels_the_upstreams_call(live: LiveServer) -> None:
    live.replies = [Reply.sse(event({}), STALL)]

    async def use(upstream: HttpUpstream) -> None:
        reply = await upstream.send(CHAT, BODY, {})
        await anext(reply.chunks())
        await reply.aclose()

    run(spec_for(live), use)
    assert live.wait_for_request().gone.wait(PATIENCE)


def test_a_cancelled_send_cancels_the_upstreams_call(live: LiveServer) -> None:
    live.replies = [Reply([STALL])]

    async def use(upstream: HttpUpstream) -> None:
        task = asyncio.create_task(upstream.send(CHAT, BODY, {}))
        await asyncio.to_thread(live.wait_for_request)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(spec_for(live), use)
    assert live.wait_for_request().gone.wait(PATIENCE)


def test_a_proxy_of_the_environment_is_used(live: LiveServer) -> None:
    spec = ModelSpec("openai/m", "http://model.invalid/v1")
    status, _, _ = run(spec, fetch, {"http_proxy": live.url.replace("http://", "http://me:hunter2@")})
    request = live.wait_for_request()
    assert status == 200
    assert request.target == "http://model.invalid/v1/chat/completions"
    assert request.headers["proxy-authorization"].startswith("Basic ")


def test_a_proxys_password_is_in_no_error(live: LiveServer) -> None:
    live.replies = [Reply((), 407)]
    for scheme, proxy in (("https", live.url), ("http", closed_port_url().removesuffix("/v1"))):
        environ = {f"{scheme}_proxy": proxy.replace("http://", "http://me:hunter2@")}
        with pytest.raises(UpstreamError, match="could not be reached") as caught:
            run(ModelSpec("openai/m", f"{scheme}://model.invalid/v1"), fetch, environ)
        assert "hunter2" not in str(caught.value)


def test_without_a_needed_key_nothing_is_sent() -> None:
    with pytest.raises(MissingKeyError, match="GROQ_API_KEY"):
        run(ModelSpec("groq/x"), fetch)


def test_official_clients_of_a_keyless_endpoint_send_no_key(live: LiveServer) -> None:
    upstream = HttpUpstream(spec_for(live, key=None), {})
    upstream.client().chat.completions.create(model="m", messages=[])

    async def use() -> None:
        await upstream.async_client().chat.completions.create(model="m", messages=[])
        await upstream.aclose()

    asyncio.run(use())
    assert len(live.requests) == 2
    assert not any("authorization" in request.headers for request in live.requests)


def test_official_clients_send_the_key_and_no_organisation_from_elsewhere(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-openai")
    upstream = HttpUpstream(spec_for(live), {})
    upstream.client().chat.completions.create(model="m", messages=[])
    upstream.close()
    headers = live.wait_for_request().headers
    assert headers["authorization"] == "Bearer sk-up"
    assert "openai-organization" not in headers
    assert "openai-project" not in headers


def test_official_clients_keep_the_timeouts(live: LiveServer) -> None:
    live.replies = [Reply([STALL])]
    upstream = HttpUpstream(spec_for(live, timeouts=Timeouts(connect=3.0, read=0.05)), {})
    client = upstream.client().with_options(max_retries=0)
    assert client.timeout == openai.Timeout(0.05, connect=3.0)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="m", messages=[])
    upstream.close()


def test_clients_are_made_once_and_anew_after_closing(live: LiveServer) -> None:
    upstream = HttpUpstream(spec_for(live), {})
    first = upstream.client()
    assert upstream.client() is first
    upstream.close()
    assert upstream.client() is not first
    upstream.client().chat.completions.create(model="m", messages=[])
    upstream.close()


def test_headers_that_repeat_are_joined(live: LiveServer) -> None:
    reply = Reply.json({})
    live.replies = [replace(reply, headers={**reply.headers, "Vary": "Accept", "vary": "Origin"})]
    _, headers, _ = run(spec_for(live), fetch)
    assert headers["vary"] == "Accept, Origin"
