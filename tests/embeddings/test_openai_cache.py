"""What the OpenAI embedder keeps in a cache, and what it does when the cache fails."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.cache import SqliteVectorCache
from routellm.embeddings.openai import OpenAIEmbedder
from tests.embeddings.conftest import Connect
from tests.embeddings.endpoint import WIDTH, answer_embeddings, asked_for, vector_of
from tests.live import LiveServer


def test_what_the_cache_knows_is_not_asked_again(endpoint: LiveServer, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite3"
    connect(endpoint, cache=path).embed_batch(["a", "b"])
    vectors = connect(endpoint, cache=path, dim=WIDTH).embed_batch(["b", "c", "a"])
    np.testing.assert_array_equal(vectors, [vector_of(text) for text in "bca"])
    assert asked_for(endpoint) == [["a", "b"], ["c"]]


def test_the_cache_keeps_models_widths_and_endpoints_apart(endpoint: LiveServer, connect: Connect, tmp_path: Path) -> None:
    cache = SqliteVectorCache(tmp_path / "vectors.sqlite3")
    with LiveServer() as other:
        other.answer = answer_embeddings
        for server, model, dim in ((endpoint, "m", WIDTH), (endpoint, "n", WIDTH), (other, "m", WIDTH)):
            connect(server, model=model, dim=dim, cache=cache).embed("a")
        for dim in (64, 32, 64):
            embedder = connect(endpoint, model="text-embedding-3-small", dim=dim, cache=cache)
            assert embedder.embed("a").shape == (dim,)
        assert (len(endpoint.requests), len(other.requests)) == (4, 1)


def test_a_cached_vector_of_another_width_is_asked_anew(endpoint: LiveServer, connect: Connect, tmp_path: Path) -> None:
    cache = SqliteVectorCache(tmp_path / "vectors.sqlite3")
    embedder = connect(endpoint, cache=cache, dim=WIDTH)
    embedder.embed("a")
    key = embedder._cache_key("a")
    cache.put_many({key: np.ones(3, np.float32)})
    np.testing.assert_array_equal(embedder.embed("a"), vector_of("a"))
    np.testing.assert_array_equal(cache.get_many([key])[key], vector_of("a"))


def test_the_cache_holds_no_prompt(endpoint: LiveServer, connect: Connect, tmp_path: Path) -> None:
    connect(endpoint, cache=tmp_path / "v.sqlite3").embed("my private words")
    assert all(b"private" not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_cache_that_fails_costs_no_answer(
    endpoint: LiveServer, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vectors.sqlite3"
    embedder = connect(endpoint, cache=path)
    path.write_bytes(b"no longer a database" * 500)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(embedder.embed("a"), vector_of("a"))
    assert "can't be read" in caplog.text
    assert "can't be written" in caplog.text


def test_true_means_the_cache_folder_of_the_user(private_environment: Path) -> None:
    OpenAIEmbedder("m", base_url="http://localhost/v1", cache=True)
    assert (private_environment / ".cache" / "routellm" / "embeddings.sqlite3").is_file()
