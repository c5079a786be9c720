"""The messages API before a model whose endpoint speaks it too: passed through byte for byte, signed in as Anthropic's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import anthropic
import pytest

from tests.live import DIE, LiveServer, Reply
from tests.serving.apis.messages_client import ASK, CHUNK, CLIENT_KEY, HI, WEATHER, client_of
from tests.serving.running import KEY, STRONG, WEAK, RunningServer, post, settings_for

CLAUDE = "anthropic/claude-big"


@pytest.fixture
def native(live: LiveServer) -> Iterator[RunningServer]:
    """A server whose strong model speaks messages, and whose weak model speaks chat only."""
    with RunningServer(settings_for(live.base_url, strong=CLAUDE)) as running:
        yield running


NATIVE = (
    b'{"stream" : false,\t"max_tokens":9, "thinking": {"type":"adaptive"}, "top_k":5,"messages":[ {"role":"user","content":'
    b'[{"type":"search_result","title":"t","source":"s","content":[]},{"text":"Hi","type":"text"}]} ],'
    b'\n"model":"router-fixed-0.4","of_the_future":1e0}'
)


def test_every_byte_but_the_model_goes_up_as_sent(native: RunningServer, live: LiveServer) -> None:
    theirs = b'{"not even": a message, \xff'
    live.replies = [Reply([theirs], 200, {"content-type": "application/json", "request-id": "req_theirs"}, whole=True)]
    betas = "a-2025-01-01,b-2025-02-02"
    sent = {
        "x-api-key": CLIENT_KEY,
        "anthropic-version": "2024-01-01",
        "anthropic-beta": betas,
        "authorization": "Bearer mine",
    }
    response = post(native, NATIVE, sent, "/v1/messages")
    assert (response.status, response.body) == (200, theirs)
    assert response.headers["x-routellm-model"] == CLAUDE
    assert response.headers["request-id"] == "req_theirs"
    seen = live.requests[0]
    assert seen.path == "/v1/messages"
    assert seen.body == NATIVE.replace(b'"model":"router-fixed-0.4"', b'"model":"claude-big"')
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["anthropic-version"] == "2024-01-01"
    assert seen.headers["anthropic-beta"] == betas
    assert "authorization" not in seen.headers
    assert CLIENT_KEY not in str(seen.raw_headers)


def test_the_query_goes_up_where_the_body_does(native: RunningServer, live: LiveServer) -> None:
    for query in ("?beta=true", "?a=%2Fb%20c&a=%zz&d", "?x=<%C3%A9>"):
        post(native, NATIVE, path="/v1/messages" + query)
    assert [seen.target for seen in live.requests] == [
        "/v1/messages?beta=true",
        "/v1/messages?a=%2Fb%20c&a=%zz&d",
        "/v1/messages?x=%3C%C3%A9%3E",
    ]
    with client_of(native) as client:
        client.beta.messages.create(**ASK | {"model": "router-fixed-0.6"})
    assert live.requests[-1].target == "/v1/chat/completions"


def test_a_client_that_names_no_version_gets_the_usual_one(native: RunningServer, live: LiveServer) -> None:
    post(native, NATIVE, path="/v1/messages")
    assert live.requests[0].headers["anthropic-version"] == "2023-06-01"


EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    b'"content":[],"model":"claude-big","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello."}}\n\n',
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)


def test_a_native_stream_comes_back_as_sent(native: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(*EVENTS)]
    with client_of(native) as client, client.messages.stream(**ASK, thinking={"type": "adaptive"}) as stream:
        assert stream.get_final_text() == "Hello."
    assert live.requests[0].json["thinking"] == {"type": "adaptive"}
    assert post(native, NATIVE, path="/v1/messages").body == b"".join(EVENTS)


def test_a_native_stream_that_dies_ends_with_an_error_of_its_kind(native: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(EVENTS[0], DIE)]
    with client_of(native) as client, client.messages.stream(**ASK) as stream:
        with pytest.raises(anthropic.APIStatusError, match="broke off") as caught:
            stream.get_final_text()
        assert caught.value.type == "api_error"


def test_an_error_of_a_native_model_comes_back_as_it_is(native: RunningServer, live: LiveServer) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_theirs"}\n'
    live.replies = [Reply([body], 529, {"content-type": "application/json", "request-id": "req_theirs"}, whole=True)]
    assert post(native, NATIVE, path="/v1/messages").body == body
    with client_of(native) as client, pytest.raises(anthropic.OverloadedError) as caught:
        client.messages.create(**ASK)
    assert caught.value.request_id == "req_theirs"


def test_the_weak_model_of_a_mixed_pair_is_translated_to(native: RunningServer, live: LiveServer) -> None:
    with client_of(native) as client:
        raw = client.messages.with_raw_response.create(**ASK | {"model": "router-fixed-0.6"})
    assert raw.headers["x-routellm-model"] == WEAK
    assert live.requests[0].path == "/v1/chat/completions"
    assert live.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_what_chat_has_no_words_for_goes_to_the_model_that_speaks_messages(native: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.json({"type": "message", "content": []})]
    with client_of(native) as client:
        raw = client.messages.with_raw_response.create(**ASK | {"model": "router-fixed-0.6"}, extra_body={"top_k": 5})
        assert (raw.headers["x-routellm-model"], raw.headers["x-routellm-reason"]) == (CLAUDE, "api")
        assert live.requests[0].json["top_k"] == 5
        with pytest.raises(anthropic.BadRequestError, match="top_k"):
            client.messages.create(**ASK | {"model": WEAK}, extra_body={"top_k": 5})  # the client's own choice stands


def test_chat_completions_still_reach_the_model_that_speaks_both(native: RunningServer, live: LiveServer) -> None:
    with native.client() as client:
        client.chat.completions.create(model=CLAUDE, messages=[HI])
    seen = live.requests[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert not {"x-api-key", "anthropic-version"} & seen.headers.keys()


def test_any_endpoint_can_be_said_to_speak_messages(live: LiveServer) -> None:
    settings = settings_for(live.base_url)
    speaking = replace(settings, strong=replace(settings.strong, formats=frozenset({"chat", "messages"})))
    with RunningServer(speaking) as server:
        post(server, NATIVE, path="/v1/messages")
    seen = live.requests[0]
    assert (seen.path, seen.json["top_k"]) == ("/v1/messages", 5)
    assert (seen.headers["x-api-key"], seen.headers["authorization"]) == (KEY, f"Bearer {KEY}")  # some take only the one


def test_tokens_are_counted_by_the_model_that_would_answer(native: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.json({"input_tokens": 12})]
    with client_of(native) as client:
        raw = client.messages.with_raw_response.count_tokens(model="router-fixed-0.4", messages=[HI], tools=[WEATHER])
    assert raw.parse().input_tokens == 12
    assert raw.headers["x-routellm-model"] == CLAUDE
    seen = live.requests[0]
    assert (seen.path, seen.headers["x-api-key"]) == ("/v1/messages/count_tokens", KEY)
    assert seen.json == {"model": "claude-big", "messages": [HI], "tools": [WEATHER]}


def test_tokens_of_a_model_that_cannot_count_are_not_guessed(native: RunningServer, live: LiveServer) -> None:
    with client_of(native) as client, pytest.raises(anthropic.NotFoundError, match="can't be counted") as caught:
        client.messages.count_tokens(model="router-fixed-0.6", messages=[HI])
    assert (caught.value.type, caught.value.error_code) == ("not_found_error", "unsupported_api")
    assert caught.value.response.headers["x-routellm-model"] == WEAK
    assert live.requests == []


def test_a_chat_is_not_translated_to_messages(live: LiveServer) -> None:
    settings = settings_for(live.base_url)
    only = replace(settings, strong=replace(settings.strong, formats=frozenset({"messages"})))
    with RunningServer(only) as server:
        response = post(server, json.dumps({"model": STRONG, "messages": [HI]}).encode())
    error = json.loads(response.body)["error"]
    assert (response.status, error["code"]) == (400, "unsupported_api")
    assert "messages requests only" in error["message"]


def test_keys_appear_nowhere(native: RunningServer, live: LiveServer) -> None:
    live.replies = [Reply.sse(EVENTS[0], DIE), Reply.json({}, status=500), Reply.json({}), Reply.sse(CHUNK, DIE)]
    bodies = [NATIVE, NATIVE, NATIVE.replace(b"0.4", b"0.6"), json.dumps(ASK | {"model": "router-fixed-0.6"}).encode()]
    replies = [post(native, body, {"x-api-key": CLIENT_KEY}, "/v1/messages") for body in bodies]
    said = [str(response.headers) + response.body.decode() for response in replies]
    said += [record.getMessage() + str(record.exc_text) for record in native.log]
    assert [text for text in said if KEY in text or CLIENT_KEY in text] == []
