"""Models that are away, slow, busy, wrong or dying, and clients that leave: each side learns what happened, in time."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import Any

import openai
import pytest

from routellm.errors import EmbeddingError
from routellm.routers.routers import ROUTER_CLS
from routellm.upstream.base import Timeouts
from tests.live import DIE, PATIENCE, STALL, Gate, LiveServer, Reply, closed_port_url, event
from tests.serving.running import KEY, STRONG, FixedRouter, RunningServer, chat_body, post, settings_for

BODY = json.dumps(chat_body()).encode()
CHUNK = event({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "one"}}]})


def error_of(response: Any) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(response.body)["error"]
    return error


def test_an_unreachable_model() -> None:
    with RunningServer(settings_for(closed_port_url())) as server:
        response = post(server, BODY)
        assert response.status == 502
        assert response.headers["x-routellm-model"] == STRONG
        assert (error_of(response)["type"], error_of(response)["code"]) == ("upstream_error", "upstream_unreachable")
        assert STRONG in error_of(response)["message"]
        with server.client() as client, pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**chat_body(stream=True))


def test_a_slow_model(live: LiveServer) -> None:
    live.replies = [Reply([STALL])]
    with RunningServer(settings_for(live.base_url, timeouts=Timeouts(read=0.05))) as server:
        response = post(server, BODY)
        assert response.status == 504
        assert error_of(response)["code"] == "upstream_timeout"
        assert live.wait_for_request().gone.wait(PATIENCE)


def test_a_missing_key_is_named_and_the_official_client_does_not_try_again() -> None:
    settings = settings_for(None, strong="gpt-4o", weak="demo/weak")
    keyless = settings.__class__(settings.routers, settings.strong.__class__("gpt-4o"), settings.weak)
    with RunningServer(keyless) as server:
        with (
            server.client(max_retries=2) as client,
            pytest.raises(openai.AuthenticationError, match="OPENAI_API_KEY") as caught,
        ):
            client.chat.completions.create(**chat_body())
        assert caught.value.code == "missing_upstream_key"
        assert post(server, json.dumps(chat_body("router-fixed-0.9")).encode()).status == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503, 529])
def test_an_error_of_the_model_comes_back_as_it_is(server: RunningServer, live: LiveServer, status: int) -> None:
    body = b'{"error": {"message": "theirs", "type": "their_type", "param": null, "code": "their_code"}}\n'
    live.replies = [Reply([body], status, {"content-type": "application/json", "retry-after": "7"}, whole=True)]
    response = post(server, BODY)
    assert (response.status, response.body) == (status, body)
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-routellm-model"] == STRONG
    assert len(live.requests) == 1


def test_the_official_client_sees_the_model_s_own_error(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.json({"error": {"message": "slow down", "code": "rate"}}, status=429, headers={"retry-after": "2"})]
    with server.client() as client, pytest.raises(openai.RateLimitError, match="slow down") as caught:
        client.chat.completions.create(**chat_body(stream=True))
    assert caught.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize("end", [DIE, STALL])
def test_a_stream_that_dies_between_events_ends_with_an_error_event(live: LiveServer, end: Any) -> None:
    live.replies = [Reply.sse(CHUNK, end)]
    with RunningServer(settings_for(live.base_url, timeouts=Timeouts(read=0.2))) as server:
        with server.client() as client:
            stream = client.chat.completions.create(**chat_body(stream=True))
            assert next(stream).choices[0].delta.content == "one"
            with pytest.raises(openai.APIError, match=STRONG):
                next(stream)
        response = post(server, BODY)
        before, _, last = response.body.partition(CHUNK)
        assert before == b""
        assert last.startswith(b'data: {"error":')
        assert last.endswith(b"\n\n")
        assert b"[DONE]" not in last
        assert all(KEY not in record.getMessage() for record in server.log)


def test_a_stream_that_dies_within_an_event_is_cut(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(CHUNK, b'data: {"half', DIE)]
    with server.client() as client:
        stream = client.chat.completions.create(**chat_body(stream=True))
        assert next(stream).choices[0].delta.content == "one"
        with pytest.raises(openai.APIConnectionError):
            next(stream)


def test_a_compressed_stream_that_dies_is_cut(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(b"gzipped\n\n", DIE, headers={"content-encoding": "gzip"})]
    assert raw_exchange(server).endswith(b"gzipped\n\n\r\n")


def test_a_whole_reply_that_dies_is_cut(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply([b'{"half', DIE], headers={"content-type": "application/json", "content-length": "100"})]
    answer = raw_exchange(server)
    assert b"content-length: 100\r\n" in answer
    assert answer.endswith(b'\r\n\r\n{"half')
    [warning] = server.complaints  # ours, and not uvicorn's complaint beside it
    assert "upstream broke off" in warning.getMessage()
    live.replies = []
    assert post(server, BODY).status == 200


def raw_exchange(server: RunningServer) -> bytes:
    """All bytes of an answer up to the end of the connection, which the server must bring about."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
        )
        with connection.makefile("rb") as stream:
            return stream.read()


def test_a_client_that_leaves_before_the_answer_cancels_the_model_s_call(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply([STALL])]
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
        )
        recorded = live.wait_for_request()
        assert not recorded.gone.is_set()
    assert recorded.gone.wait(PATIENCE)
    assert server.complaints == []


def test_a_client_that_leaves_a_stream_cancels_the_model_s_call(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(CHUNK, STALL)]
    with server.client() as client:
        stream = client.chat.completions.create(**chat_body(stream=True))
        next(stream)
        recorded = live.wait_for_request()
        assert not recorded.gone.is_set()
        stream.close()
        assert recorded.gone.wait(PATIENCE)
    assert server.complaints == []


def test_a_cancelled_asynchronous_call_cancels_the_model_s_call(server: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply([STALL])]

    async def ask_and_give_up() -> None:
        async with server.async_client() as client:
            call = asyncio.ensure_future(client.chat.completions.create(**chat_body()))
            await asyncio.to_thread(live.wait_for_request)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    asyncio.run(ask_and_give_up())
    assert live.requests[0].gone.wait(PATIENCE)


def test_other_streams_go_on_when_one_client_leaves(server: RunningServer, live: LiveServer) -> None:
    gate = Gate()
    live.replies = [Reply.sse(CHUNK, STALL), Reply.sse(CHUNK, gate, CHUNK, event("[DONE]"))]
    with server.client() as client:
        leaving = client.chat.completions.create(**chat_body(stream=True))
        staying = client.chat.completions.create(**chat_body(stream=True))
        next(leaving)
        next(staying)
        leaving.close()
        assert live.requests[0].gone.wait(PATIENCE)
        gate.open()
        assert [chunk.choices[0].delta.content for chunk in staying] == ["one"]


def test_a_client_that_reads_slowly_holds_the_model_back_and_gets_everything(server: RunningServer, live: LiveServer) -> None:
    piece, count = b"data: " + b"x" * 65_536 + b"\n\n", 400
    live.replies = [Reply.sse(*[piece] * count)]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", BODY)
    response = connection.getresponse()
    assert not live.wait_for_request().done.is_set()  # 26 MB: more than the sockets on the way hold
    assert response.read() == piece * count
    connection.close()


class NoEmbedding(FixedRouter):
    """Its embedding endpoint is away."""

    def calculate_strong_win_rate(self, prompt: str) -> float:
        raise EmbeddingError("The embedding endpoint http://e answered 503.")


def test_an_embedding_endpoint_that_fails(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTER_CLS, "fixed", NoEmbedding)
    with RunningServer(settings_for(live.base_url)) as server:
        response = post(server, BODY)
    assert (response.status, error_of(response)["code"]) == (502, "embedding_failed")


def test_keys_appear_nowhere(live: LiveServer) -> None:
    live.replies = [Reply.json({}), Reply.json({}, status=500), Reply.sse(CHUNK, DIE), Reply([DIE])]
    settings = settings_for(live.base_url, verbose=True, config={"random": {"seed": 1}})
    with RunningServer(settings) as server:
        replies = [post(server, BODY, {"authorization": "Bearer sk-client-secret"}) for _ in live.replies]
    said = [str(response.headers) + response.body.decode() for response in replies]
    said += [record.getMessage() + str(record.exc_text) for record in server.log]
    said.append(repr(settings))
    assert len(server.log) >= len(live.replies)
    assert [text for text in said if KEY in text or "sk-client-secret" in text or "Hello!" in text] == []
