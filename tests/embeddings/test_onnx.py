"""The onnx embedder, on a tiny encoder whose vectors can be worked out by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.embeddings.onnx import OnnxEmbedder
from routellm.errors import CheckpointError, ConfigError, MissingExtraError
from tests.conftest import hide, require
from tests.embeddings.encoders import VOCABULARY, WIDTH, embedding_rows, write_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require("onnxruntime")
    return write_encoder(tmp_path / "encoder")


def by_hand(tokens: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    mean = embedding_rows()[[VOCABULARY[token] for token in tokens]].mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_a_vector_is_the_normalised_mean_over_all_tokens(folder: Path) -> None:
    embedder = OnnxEmbedder(folder)
    assert embedder.dim == WIDTH
    assert embedder.blocking
    np.testing.assert_allclose(embedder.embed("A bc"), by_hand(["[CLS]", "a", "b", "##c", "[SEP]"]), atol=1e-6)


def test_padding_and_truncation_of_the_tokenizer_file_are_overridden(folder: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz" * 2  # 52 tokens; the file pads and cuts at 16
    cut = by_hand(["[CLS]", *letters[:10], "[SEP]"])
    np.testing.assert_allclose(OnnxEmbedder(folder).embed(" ".join(letters)), by_hand(["[CLS]", *letters, "[SEP]"]), atol=1e-6)
    np.testing.assert_allclose(OnnxEmbedder(folder, max_tokens=12).embed(" ".join(letters)), cut, atol=1e-6)


def test_a_model_in_the_onnx_folder_of_a_hub_repository_is_found(tmp_path: Path) -> None:
    require("onnxruntime")
    folder = write_encoder(tmp_path, name="onnx/model.onnx", output="token_embeddings")
    np.testing.assert_allclose(OnnxEmbedder(folder).embed("a"), by_hand(["[CLS]", "a", "[SEP]"]), atol=1e-6)


def test_another_file_can_be_named(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "model_int8.onnx")
    assert OnnxEmbedder(folder, file="model_int8.onnx").dim == WIDTH
    with pytest.raises(CheckpointError, match=r"has no model\.onnx or onnx/model\.onnx"):
        OnnxEmbedder(folder)


def test_the_fingerprint_follows_the_files_and_the_cut_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = OnnxEmbedder(folder).fingerprint
    assert first.startswith("onnx:")
    assert OnnxEmbedder(shutil.copytree(folder, tmp_path / "copy"), threads=2).fingerprint == first
    assert OnnxEmbedder(folder, max_tokens=128).fingerprint != first
    assert OnnxEmbedder(write_encoder(tmp_path / "other", output="hidden")).fingerprint != first


def test_damaged_files_are_refused_by_name(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"model\.onnx' is not a model that onnxruntime can read"):
        OnnxEmbedder(folder)
    (folder / "model.onnx").write_bytes(content)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json' is not a tokenizer"):
        OnnxEmbedder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        OnnxEmbedder(folder)


def test_a_model_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    require("onnxruntime")
    with pytest.raises(CheckpointError, match="it must be float32 of shape"):
        OnnxEmbedder(write_encoder(tmp_path, pooled=True))


@pytest.mark.parametrize("arguments", [{"max_tokens": 2}, {"max_tokens": 1.5}, {"threads": 0}, {"threads": True}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        OnnxEmbedder(tmp_path, **arguments)


@pytest.mark.parametrize("place", ["./nowhere", "nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_refused(place: str) -> None:
    with pytest.raises(CheckpointError, match="give a folder, or a hub repository"):
        OnnxEmbedder(place)


def test_a_hub_repository_that_cannot_be_fetched_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = require("huggingface_hub")
    asked: list[tuple[str, str | None, list[str]]] = []

    def fail(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=r"the hub did not give it: offline.*Check the name and the network"):
        OnnxEmbedder("some/encoder", revision="abc")
    assert asked == [("some/encoder", "abc", ["tokenizer.json", "model.onnx", "onnx/model.onnx"])]


@pytest.mark.parametrize(
    ("module", "extra", "path"), [("onnxruntime", "onnx", None), ("huggingface_hub", "hub", "some/encoder")]
)
def test_a_missing_library_is_named_with_the_install_line(
    module: str, extra: str, path: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(module, monkeypatch)
    with pytest.raises(MissingExtraError, match=rf"pip install \"routellm\[{extra}\]\""):
        OnnxEmbedder(path or folder)
