"""From a configuration to an embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routellm.embeddings.base import EMBEDDERS, Embedder, Vector
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.openai import OpenAIEmbedder
from routellm.embeddings.static import BUNDLED, StaticEmbedder
from routellm.errors import CheckpointError, ConfigError, MissingKeyError, UnknownNameError
from tests.conftest import require
from tests.embeddings.encoders import write_encoder


@pytest.mark.parametrize("spec", [None, "static", {"type": "static"}, {"type": "static", "path": str(BUNDLED)}])
def test_the_bundled_table_is_the_default(spec: Any) -> None:
    assert isinstance(load_embedder(spec), StaticEmbedder)


def test_an_openai_model_is_an_embedder_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingKeyError):
        load_embedder("text-embedding-3-small")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    for spec, dim in (("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("openai", 1536)):
        embedder = load_embedder(spec)
        assert isinstance(embedder, OpenAIEmbedder)
        assert embedder.dim == dim


def test_a_mapping_gives_the_arguments() -> None:
    spec = {"type": "openai", "model": "bge-m3", "base_url": "http://localhost:8000/v1/", "timeout": 5}
    embedder = load_embedder(spec)
    assert isinstance(embedder, OpenAIEmbedder)
    assert (embedder.model, embedder.base_url) == ("bge-m3", "http://localhost:8000/v1")
    assert spec["type"] == "openai", "the caller's mapping is left as it was"


def test_an_onnx_folder_is_loaded(tmp_path: Path) -> None:
    require("onnxruntime")
    assert load_embedder({"type": "onnx", "path": write_encoder(tmp_path)}).fingerprint.startswith("onnx:")


def test_a_name_may_have_its_first_argument_behind_a_colon(tmp_path: Path) -> None:
    table = load_embedder(f"static:{BUNDLED}")
    assert isinstance(table, StaticEmbedder)
    assert table.fingerprint == load_embedder("static").fingerprint
    require("onnxruntime")
    folder = write_encoder(tmp_path / "a:b")  # only the first colon tells the name from its argument
    assert load_embedder(f"onnx:{folder}").fingerprint == load_embedder({"type": "onnx", "path": folder}).fingerprint


def test_the_argument_of_the_embedder_openai_is_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    embedder = load_embedder("openai:text-embedding-3-large")
    assert isinstance(embedder, OpenAIEmbedder)
    assert (embedder.model, embedder.dim) == ("text-embedding-3-large", 3072)


def test_an_embedder_of_ones_own_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Embedder):
        dim, fingerprint = 2, "mine"

        def embed_batch(self, prompts: Any) -> Vector:
            raise NotImplementedError

    EMBEDDERS["mine"] = Mine
    try:
        assert isinstance(load_embedder("mine"), Mine)
    finally:
        del EMBEDDERS["mine"]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("statc", UnknownNameError, r"did you mean 'static'\?"),
        ("text-embedding-3-smal", UnknownNameError, r"did you mean 'text-embedding-3-small'\?"),
        ({"type": "opneai"}, UnknownNameError, r"did you mean 'openai'\?"),
        ({"type": "openai", "basurl": "http://h/v1"}, ConfigError, r"did you mean 'base_url'\?"),
        ({"type": "openai", 3: 4}, ConfigError, "keywords must be strings"),
        ({"type": "onnx"}, ConfigError, "path"),
        ("onnx", ConfigError, "path"),
        ({"path": "/x"}, ConfigError, "needs a `type`"),
        ({}, ConfigError, "needs a `type`"),
        ({"type": ["static"]}, ConfigError, "needs a `type`"),
        (3, ConfigError, "not 3"),
        ({"type": "static", "path": "/nowhere"}, CheckpointError, "No static table"),
        ("static:/nowhere", CheckpointError, "No static table in '/nowhere'"),
        ("static:C:\\tables\\mine", CheckpointError, r"No static table in 'C:\\\\tables\\\\mine'"),
        ("bert:nowhere", CheckpointError, "No checkpoint at 'nowhere'"),
        ("brt:my-router", UnknownNameError, r"Unknown embedder 'brt' \(did you mean 'bert'\?\)\. Known: bert, "),
        ("C:\\tables\\mine", UnknownNameError, "Unknown embedder 'C'"),
        ("static:", ConfigError, "The embedder 'static:' has nothing behind its colon"),
        (":static", UnknownNameError, "Unknown embedder ''"),
        ("", UnknownNameError, "Unknown embedder ''"),
    ],
)
def test_what_can_be_wrong_is_named(spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_embedder(spec)


def test_an_argument_of_an_embedder_that_takes_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Embedder):
        dim, fingerprint = 2, "mine"

        def embed_batch(self, prompts: Any) -> Vector:
            raise NotImplementedError

    monkeypatch.setitem(EMBEDDERS, "mine", Mine)
    assert isinstance(load_embedder("mine"), Mine)
    with pytest.raises(ConfigError, match="The embedder 'mine'"):
        load_embedder("mine:table")


def test_no_error_shows_a_key() -> None:
    with pytest.raises(ConfigError) as raised:
        load_embedder({"api_key": "sk-secret", "model": "m"})
    assert "sk-secret" not in str(raised.value)
    with pytest.raises(ConfigError) as raised:
        load_embedder({"type": "static", "api_key": "sk-secret"})
    assert "sk-secret" not in str(raised.value)
