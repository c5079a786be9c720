"""One conformance suite for every embedder: the bundled table, an ONNX encoder, and an endpoint."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routellm.embeddings.base import Embedder
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.openai import OpenAIEmbedder
from tests.conftest import require
from tests.embeddings.encoders import write_encoder
from tests.embeddings.endpoint import answer_embeddings
from tests.live import LiveServer
from tests.prompts import ODD_PROMPTS

PROMPTS = [*ODD_PROMPTS, "a" * 1_000_000, "word " * 200_000, "素数" * 500_000]


@pytest.fixture(scope="module", params=["static", "onnx", "openai", "openai with a cache"])
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    with ExitStack() as stack:
        if request.param == "static":
            yield load_embedder("static")
        elif request.param == "onnx":
            require("onnxruntime")
            yield load_embedder({"type": "onnx", "path": write_encoder(tmp_path_factory.mktemp("encoder"))})
        else:
            server = stack.enter_context(LiveServer())
            server.answer = answer_embeddings
            cache = tmp_path_factory.mktemp("cache") / "vectors.sqlite3" if "cache" in request.param else None
            remote = OpenAIEmbedder("served-model", base_url=server.base_url, batch_size=3, cache=cache)
            stack.callback(remote.close)
            yield remote


def test_a_batch_is_float32_with_one_finite_row_for_each_prompt(embedder: Embedder) -> None:
    vectors = embedder.embed_batch(PROMPTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(PROMPTS), embedder.dim)
    assert np.isfinite(vectors).all()


def test_a_single_prompt_gives_the_row_of_the_batch(embedder: Embedder) -> None:
    for row, prompt in zip(embedder.embed_batch(PROMPTS), PROMPTS, strict=True):
        single = embedder.embed(prompt)
        assert single.dtype == np.float32
        np.testing.assert_array_equal(single, row)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts=st.lists(st.text(), max_size=5))
def test_any_strings_give_rows_that_equal_singles(embedder: Embedder, prompts: list[str]) -> None:
    vectors = embedder.embed_batch(prompts)
    assert vectors.shape == (len(prompts), embedder.dim)
    for row, prompt in zip(vectors, prompts, strict=True):
        np.testing.assert_array_equal(embedder.embed(prompt), row)


def test_no_prompts_give_no_rows(embedder: Embedder) -> None:
    vectors = embedder.embed_batch([])
    assert vectors.shape == (0, embedder.dim)
    assert vectors.dtype == np.float32


def test_a_vector_belongs_to_the_caller(embedder: Embedder) -> None:
    first = embedder.embed("hello")
    expected = first.copy()
    first[:] = 7.0
    np.testing.assert_array_equal(embedder.embed("hello"), expected)
    batch = embedder.embed_batch(["hello", "hello"])
    batch[0] = 7.0
    np.testing.assert_array_equal(batch[1], expected)


def test_different_prompts_have_different_vectors(embedder: Embedder) -> None:
    one, other = embedder.embed_batch(["Prove it.", "Bake a cake with me"])
    assert not np.array_equal(one, other)


def test_threads_get_what_one_thread_gets(embedder: Embedder) -> None:
    prompts = [f"{prompt[:200]} {number}" for number in range(3) for prompt in PROMPTS]
    expected = embedder.embed_batch(prompts)
    failures: list[str] = []

    def work(start: int) -> None:
        order = [*range(start, len(prompts)), *range(start)]
        failures.extend(prompts[at] for at in order if not np.array_equal(embedder.embed(prompts[at]), expected[at]))

    threads = [threading.Thread(target=work, args=(7 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_fingerprint_names_the_kind_and_stays(embedder: Embedder) -> None:
    kind = embedder.fingerprint.split(":")[0]
    assert kind in ("static", "onnx", "openai")
    before = embedder.fingerprint
    embedder.embed("hello")
    assert embedder.fingerprint == before


def test_only_the_table_may_run_on_an_event_loop(embedder: Embedder) -> None:
    assert embedder.blocking == (not embedder.fingerprint.startswith("static:"))


@pytest.mark.parametrize("kind", ["static", "onnx"])
def test_local_embedders_open_no_socket(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: dict[str, object] = {"type": kind}
    if kind == "onnx":
        require("onnxruntime")
        spec["path"] = write_encoder(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    load_embedder(spec).embed_batch(PROMPTS[:5])
