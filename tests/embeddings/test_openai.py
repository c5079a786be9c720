"""The OpenAI embedder against a live endpoint on loopback."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from routellm.embeddings.openai import OpenAIEmbedder
from routellm.errors import ConfigError, EmbeddingError, MissingKeyError
from tests.embeddings.conftest import Connect
from tests.embeddings.endpoint import KEY, WIDTH, asked_for, vector_of
from tests.live import DIE, STALL, LiveServer, Recorded, Reply, closed_port_url


def test_vectors_come_in_the_order_of_the_prompts(embedder: OpenAIEmbedder) -> None:
    prompts = ["one", "two", "three", "two"]
    vectors = embedder.embed_batch(prompts)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [vector_of(prompt) for prompt in prompts])
    assert embedder.dim == WIDTH
    assert embedder.blocking


def test_the_request_is_what_every_compatible_endpoint_takes(embedder: OpenAIEmbedder, endpoint: LiveServer) -> None:
    embedder.embed("hello")
    request = endpoint.wait_for_request()
    assert request.json == {"model": "served-model", "input": ["hello"], "encoding_format": "float"}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_many_texts_go_out_in_batches_each_distinct_one_once(endpoint: LiveServer, connect: Connect) -> None:
    prompts = [f"prompt {number % 7}" for number in range(20)]
    vectors = connect(endpoint, batch_size=3).embed_batch(prompts)
    np.testing.assert_array_equal(vectors, [vector_of(prompt) for prompt in prompts])
    assert [len(texts) for texts in asked_for(endpoint)] == [3, 3, 1]


def test_a_request_stays_below_the_tokens_that_openai_takes(embedder: OpenAIEmbedder, endpoint: LiveServer) -> None:
    embedder.embed_batch([f"{number} " + "x" * 9000 for number in range(100)])
    sizes = [sum(len(text) for text in texts) for texts in asked_for(endpoint)]
    assert len(sizes) == 3
    assert max(sizes) <= 300_000
    assert all(len(text) == 8191 for texts in asked_for(endpoint) for text in texts)


def test_long_texts_are_cut_between_characters(endpoint: LiveServer, connect: Connect) -> None:
    connect(endpoint, max_bytes=10).embed("日本語のテキスト")
    assert asked_for(endpoint) == [["日本語"]]


def test_texts_that_openai_refuses_are_not_sent(embedder: OpenAIEmbedder, endpoint: LiveServer) -> None:
    vectors = embedder.embed_batch(["", "a", " \n\t"])
    np.testing.assert_array_equal(vectors[[0, 2]], np.zeros((2, WIDTH)))
    np.testing.assert_array_equal(vectors[1], vector_of("a"))
    assert asked_for(endpoint) == [["a"]]


def test_an_unknown_width_is_asked_for_once(embedder: OpenAIEmbedder, endpoint: LiveServer) -> None:
    assert embedder.embed_batch([]).shape == (0, WIDTH)
    assert embedder.embed("").shape == (WIDTH,)
    assert len(endpoint.requests) == 1


def test_awkward_text_arrives_as_it_is_but_for_lone_surrogates(embedder: OpenAIEmbedder, endpoint: LiveServer) -> None:
    embedder.embed_batch(["a\x00b", "c\ud800d", "🙂"])
    assert asked_for(endpoint) == [["a\x00b", "c?d", "🙂"]]


def test_only_the_newer_openai_models_are_asked_to_shorten(endpoint: LiveServer, connect: Connect) -> None:
    short = connect(endpoint, model="text-embedding-3-small", dim=64)
    np.testing.assert_array_equal(short.embed("a"), vector_of("a", 64))
    assert endpoint.wait_for_request().json["dimensions"] == 64
    assert short.fingerprint == "openai:text-embedding-3-small:64"

    connect(endpoint, dim=WIDTH).embed("a")
    assert "dimensions" not in endpoint.wait_for_request(1).json


def test_known_widths_need_no_request() -> None:
    embedder = OpenAIEmbedder(api_key=KEY)
    assert embedder.dim == 1536
    assert embedder.fingerprint == "openai:text-embedding-3-small"
    assert OpenAIEmbedder("text-embedding-3-large", api_key=KEY, dim=3072).fingerprint == "openai:text-embedding-3-large"


def test_threads_share_one_embedder(embedder: OpenAIEmbedder) -> None:
    answers: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=number: answers.update({n: embedder.embed(f"text {n}")})) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        np.testing.assert_array_equal(answers[number], vector_of(f"text {number}"))


# Keys


def test_the_key_of_the_environment_goes_to_openai_and_to_nobody_else(
    endpoint: LiveServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "my-organisation")
    OpenAIEmbedder()  # has a key, so it is made
    connect(endpoint, api_key=None).embed("a")
    headers = endpoint.wait_for_request().headers
    assert "authorization" not in headers
    assert "openai-organization" not in headers

    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
    own = connect(endpoint, base_url=None, api_key=None)
    own.embed("a")
    assert endpoint.wait_for_request(1).headers["authorization"] == f"Bearer {KEY}"


def test_a_missing_key_for_openai_is_named() -> None:
    with pytest.raises(MissingKeyError, match="Set OPENAI_API_KEY"):
        OpenAIEmbedder()


def test_no_repr_or_error_shows_the_key(endpoint: LiveServer, connect: Connect) -> None:
    endpoint.replies = [Reply.json({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status=401)]
    embedder = connect(endpoint)
    with pytest.raises(EmbeddingError, match=r"status 401: .*Incorrect API key provided") as raised:
        embedder.embed("a")
    assert KEY not in repr(embedder)
    assert KEY not in str(raised.value)
    assert raised.value.__cause__ is None


# What an endpoint can do wrong


def item(index: object = 0, embedding: object = (1.0, 2.0)) -> dict[str, object]:
    return {"index": index, "embedding": embedding}


BAD_ANSWERS: dict[str, tuple[Any, str]] = {
    "too few": ({"data": [item()]}, "2 texts with 1 embeddings"),
    "too many": ({"data": [item(0), item(1), item(2)]}, "2 texts with 3 embeddings"),
    "one number twice": ({"data": [item(0), item(0)]}, "numbered them wrongly"),
    "numbers from one": ({"data": [item(1), item(2)]}, "numbered them wrongly"),
    "two widths": ({"data": [item(0), item(1, [1.0])]}, "vectors of 1 and 2 dimensions"),
    "no width": ({"data": [item(0, []), item(1, [])]}, "vectors of 0 dimensions"),
    "too large for a float": ({"data": [item(0), item(1, [1.0, 1e300])]}, "not finite"),
    "null": ({"data": [item(0), item(1, [1.0, None])]}, "something else"),
    "base64": ({"data": [item(0), item(1, "AAAA")]}, "something else"),
    "no numbers": ({"data": [{"embedding": [1.0]}] * 2}, "something else"),
    "an error with status 200": ({"error": {"message": "no"}}, "something else"),
    "a list": ([], "something else"),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(kind: str, live: LiveServer, connect: Connect) -> None:
    answer, message = BAD_ANSWERS[kind]
    live.replies = [Reply.json(answer)]
    with pytest.raises(EmbeddingError, match=message):
        connect(live).embed_batch(["a", "b"])


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": [', b"\xff\xfe", b'{"data": [{"index": 0, "embedding": [NaN]}]}'])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_an_answer_that_is_no_json_is_refused(body: bytes, kind: str, live: LiveServer, connect: Connect) -> None:
    live.replies = [Reply([body], headers={"content-type": kind}, whole=True)]
    with pytest.raises(EmbeddingError, match="something else"):
        connect(live).embed("a")


def test_another_width_than_was_promised_is_refused(endpoint: LiveServer, connect: Connect) -> None:
    with pytest.raises(EmbeddingError, match=f"vectors of {WIDTH} dimensions instead of 7"):
        connect(endpoint, dim=7).embed("a")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_an_error_status_is_told(status: int, live: LiveServer, connect: Connect) -> None:
    live.replies = [Reply.json({"error": {"message": "the reason"}}, status=status)]
    with pytest.raises(EmbeddingError, match=f"status {status}: .*the reason"):
        connect(live).embed("a")


def test_a_busy_endpoint_is_asked_again(live: LiveServer, connect: Connect) -> None:
    busy = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after-ms": "1"})
    live.replies = [busy, Reply.json({"data": [item()]})]
    np.testing.assert_array_equal(connect(live, max_retries=1).embed("a"), [1.0, 2.0])


def test_a_silent_endpoint_times_out(live: LiveServer, connect: Connect) -> None:
    live.replies = [Reply([STALL])]
    with pytest.raises(EmbeddingError, match=r"did not answer within 0\.2 seconds"):
        connect(live, timeout=0.2).embed("a")


def test_an_endpoint_that_breaks_off_is_told(live: LiveServer, connect: Connect) -> None:
    live.replies = [Reply([b'{"data', DIE])]
    with pytest.raises(EmbeddingError, match="can't be reached"):
        connect(live).embed("a")


def test_an_endpoint_that_is_not_there_is_told(live: LiveServer, connect: Connect) -> None:
    embedder = connect(live, base_url=closed_port_url())
    with pytest.raises(EmbeddingError, match="can't be reached"):
        embedder.embed("a")


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": "sk-\nsecret"},
        {"api_key": "ключ"},
        {"model": ""},
        {"model": None},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": "30"},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"max_retries": -1},
        {"max_bytes": True},
        {"dim": 0},
        {"dim": 4096},
        {"model": "text-embedding-ada-002", "dim": 100},
        {"base_url": "localhost:8000"},
        {"base_url": "http://"},
        {"base_url": "http://user:password@host/v1"},
        {"base_url": "http://host/v1?key=secret"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        OpenAIEmbedder(**{"api_key": KEY, **arguments})
    assert "password@" not in str(raised.value)
    assert "secret" not in str(raised.value)


def answers_nothing(request: Recorded) -> Reply:
    raise AssertionError("nothing may be asked")


def test_making_an_embedder_asks_nothing(live: LiveServer, connect: Connect) -> None:
    live.answer = answers_nothing
    connect(live)
    assert live.requests == []
