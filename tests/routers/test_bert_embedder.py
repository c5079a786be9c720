"""The embedder `bert`: the vectors of a `bert` router's encoder, and the routers that score by them."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from routellm.embeddings.base import Vector
from routellm.embeddings.factory import load_embedder
from routellm.errors import CheckpointError, ConfigError, MissingExtraError
from routellm.routers.bert import BertEmbedder, BertRouter
from routellm.routers.checkpoint import META_FILE
from routellm.routers.routers import build_router
from routellm.training import gain_fit
from routellm.training.boosting import TreeSettings
from tests.conftest import hide, require
from tests.embeddings.encoders import VOCABULARY, WIDTH, embedding_rows
from tests.prompts import ODD_PROMPTS
from tests.routers.classifiers import token_logits, write_checkpoint, write_graph
from tests.training.files import write
from tests.training.gains import comparisons, run_train

PROMPTS = [*ODD_PROMPTS, "a b c", "zyx " * 30, "long " * 100_000]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require("onnxruntime")
    return write_checkpoint(tmp_path / "ours")


def by_hand(tokens: list[str]) -> Vector:
    mean: Vector = embedding_rows()[[VOCABULARY[token] for token in tokens]].mean(axis=0)
    return mean


def test_a_vector_is_what_the_graph_gives_beside_the_logits(folder: Path) -> None:
    embedder = BertEmbedder(str(folder))
    vector = embedder.embed("A bc")
    assert (embedder.dim, embedder.blocking) == (WIDTH, True)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, by_hand(["[CLS]", "a", "b", "##c", "[SEP]"]), atol=1e-6)


def test_a_batch_equals_singles_to_the_bit(folder: Path) -> None:
    embedder = BertEmbedder(str(folder))
    singles = [embedder.embed(prompt) for prompt in PROMPTS]
    batch = embedder.embed_batch(PROMPTS)
    assert batch.tolist() == np.array(singles).tolist()
    assert batch.dtype == np.float32
    assert np.isfinite(batch).all()
    assert len(np.unique(batch, axis=0)) > 5
    assert embedder.embed_batch([]).shape == (0, WIDTH)


def test_what_becomes_of_a_vector_is_its_callers_business(folder: Path) -> None:
    """The last prompt's vector is remembered: neither another prompt nor a caller may get at it."""
    embedder = BertEmbedder(str(folder))
    for prompt in ("a", "b", "b c", "c b", "d e", "b c", "a"):  # "a" is known before anybody has asked
        wanted = by_hand(["[CLS]", *prompt.split(), "[SEP]"])
        for _ in range(2):
            vector = embedder.embed(prompt)
            np.testing.assert_allclose(vector, wanted, atol=1e-6)
            vector[:] = 0.0
        batch = embedder.embed_batch([prompt, prompt])
        np.testing.assert_allclose(batch, [wanted, wanted], atol=1e-6)
        batch[:] = 0.0


def test_it_can_be_asked_from_several_threads(folder: Path) -> None:
    embedder = BertEmbedder(str(folder))
    prompts = [prompt for prompt in PROMPTS[:-1] for _ in range(2)] * 5
    wanted = [embedder.embed(prompt).tolist() for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert [vector.tolist() for vector in pool.map(embedder.embed, prompts)] == wanted


def test_prompts_are_cut_where_they_were_cut_in_training_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    prompt = " ".join(LETTERS)
    for embedder, read in (
        (BertEmbedder(str(folder)), LETTERS[:10]),
        (BertEmbedder(str(folder), max_length=20), LETTERS[:18]),
        (BertEmbedder(str(write_checkpoint(tmp_path / "ends", truncation="head-tail"))), LETTERS[:4] + LETTERS[-6:]),
    ):
        np.testing.assert_allclose(embedder.embed(prompt), by_hand(["[CLS]", *read, "[SEP]"]), atol=1e-6)
    with pytest.raises(ConfigError, match=r"max_length is 21; the checkpoint '.*ours' reads 20 tokens at most"):
        BertEmbedder(str(folder), max_length=21)


@pytest.mark.parametrize("given", [2, 0, True, 12.0, "long"])
def test_a_max_length_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match=r"max_length .* must be a whole number from 3"):
        BertEmbedder("anywhere", max_length=given)  # type: ignore[arg-type]


def test_the_fingerprint_follows_the_files_and_the_cut_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = BertEmbedder(str(folder)).fingerprint
    assert first.startswith("bert:")
    assert BertEmbedder(str(shutil.copytree(folder, tmp_path / "copy"))).fingerprint == first
    assert BertEmbedder(str(folder), max_length=12).fingerprint == first, "as it was trained"
    others = {
        BertEmbedder(str(folder), max_length=11).fingerprint,
        BertEmbedder(str(write_checkpoint(tmp_path / "ends", truncation="head-tail"))).fingerprint,
        BertEmbedder(str(other_encoder(tmp_path / "other"))).fingerprint,
    }
    assert len(others | {first}) == 4


def other_encoder(folder: Path) -> Path:
    """A checkpoint whose classifier is the same and whose vectors are others."""
    made = write_checkpoint(folder)
    write_graph(made / "model.onnx", token_logits(), embedding_rows() + np.float32(1.0))
    return relisted(made)


def relisted(folder: Path) -> Path:
    """A checkpoint whose graph was replaced, as if it had been saved with the new one."""
    from routellm.downloads import sha256

    meta = json.loads((folder / META_FILE).read_text())
    meta["files"]["model.onnx"] = sha256(folder / "model.onnx")
    (folder / META_FILE).write_text(json.dumps(meta))
    return folder


# What is refused


def test_a_graph_that_gives_no_vector_is_refused_with_what_to_do(tmp_path: Path) -> None:
    require("onnxruntime")
    folder = write_checkpoint(tmp_path / "older", encodes=False)
    assert BertRouter(str(folder)).calculate_strong_win_rate("a") > 0.0, "it is a router all the same"
    said = r"older/model\.onnx: gives logits, and no sentence_embedding\. Train the bert router again\."
    with pytest.raises(CheckpointError, match=said):
        BertEmbedder(str(folder))


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.full((len(VOCABULARY), WIDTH), np.nan, dtype=np.float32), "'sentence_embedding' of .* is not finite"),
        (np.zeros((len(VOCABULARY), WIDTH, 2), dtype=np.float32), r"must be float32 of shape \(prompts, width\)"),
    ],
)
def test_an_output_that_is_no_vector_is_refused(folder: Path, vectors: Vector, said: str) -> None:
    write_graph(folder / "model.onnx", token_logits(), vectors)
    with pytest.raises(CheckpointError, match=said):
        BertEmbedder(str(relisted(folder)))


def test_a_classifier_that_transformers_saved_is_refused(tmp_path: Path) -> None:
    (folder := tmp_path / "published").mkdir()
    (folder / "config.json").write_text('{"model_type": "xlm-roberta", "num_labels": 3}')
    save_file({"classifier.dense.bias": np.zeros(3, dtype=np.float32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"published.*router\.json"):
        BertEmbedder(str(folder))


def test_damaged_and_missing_folders_and_those_of_other_routers_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="No checkpoint at 'nowhere'"):
        BertEmbedder("nowhere")
    (folder / "model.onnx").write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"model\.onnx: its hash is not the one"):
        BertEmbedder(str(folder))
    meta = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps({**meta, "router": "mf"}))
    with pytest.raises(CheckpointError, match="holds a router of kind 'mf'"):
        BertEmbedder(str(folder))


def test_a_missing_library_is_named_with_the_install_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("onnxruntime", monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install \"routellm\[onnx\]\""):
        BertEmbedder(str(folder))


# Routers that score by its vectors


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = TreeSettings(trees=10, depth=3, rate=0.3, penalty=5.0, rows=0.8, columns=0.5)
    monkeypatch.setattr(gain_fit, "TREES", few)


FLAGS = {"mf": ["--epochs", "2", "--ties", "loss"], "gain_fast": [], "gain_accurate": []}


def train(name: str, encoder: Path, folder: Path) -> Path:
    """A checkpoint of a router that was trained on the vectors of the checkpoint `encoder`."""
    data = write(folder / "gains.jsonl", comparisons(120))
    flags = ["--validation-share", "0.3", "--embedding-model", f"bert:{encoder}", *FLAGS[name]]
    assert run_train(name, data, folder / "made", *flags) == 0
    return folder / "made"


@pytest.mark.parametrize("name", FLAGS)
def test_a_router_trained_on_it_is_loaded_again_with_it(folder: Path, tmp_path: Path, quick: None, name: str) -> None:
    made = train(name, folder, tmp_path)
    meta = json.loads((made / META_FILE).read_text())
    assert (meta["embedder"], meta["embedder_fingerprint"]) == (f"bert:{folder}", BertEmbedder(str(folder)).fingerprint)
    router, again = (build_router(name, {"checkpoint_path": str(made)}) for _ in range(2))
    assert router.blocking
    scores = router.calculate_strong_win_rates(PROMPTS)
    assert scores.tolist() == [again.calculate_strong_win_rate(prompt) for prompt in PROMPTS]
    assert router.fingerprint == again.fingerprint


@pytest.mark.parametrize("name", FLAGS)
def test_another_encoder_in_the_same_place_is_refused(folder: Path, tmp_path: Path, quick: None, name: str) -> None:
    made = train(name, folder, tmp_path)
    shutil.rmtree(folder)
    shutil.copytree(other_encoder(tmp_path / "other"), folder)
    with pytest.raises(CheckpointError, match=r"was trained on vectors of 'bert:.*', not of 'bert:"):
        build_router(name, {"checkpoint_path": str(made)})


def test_an_embedder_in_place_of_the_named_one_must_compute_the_same(folder: Path, tmp_path: Path) -> None:
    made = train("mf", folder, tmp_path)
    moved = shutil.copytree(folder, tmp_path / "moved")
    shutil.rmtree(folder)
    given = {"checkpoint_path": str(made), "embedding_model": f"bert:{moved}"}
    assert 0.0 < build_router("mf", given).calculate_strong_win_rate("a b") < 1.0
    with pytest.raises(CheckpointError, match=r"was trained on vectors of 'bert:.*', not of 'static:"):
        build_router("mf", {**given, "embedding_model": "static"})


def test_a_checkpoint_of_other_vectors_is_told_when_a_router_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require("onnxruntime")
    older = write_checkpoint(tmp_path / "older", encodes=False)
    data = write(tmp_path / "gains.jsonl", comparisons(120))
    assert run_train("gain_accurate", data, tmp_path / "made", "--embedding-model", f"bert:{older}") == 1
    assert "Train the bert router again." in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_its_name_and_a_mapping_give_the_same(folder: Path) -> None:
    named, mapped = load_embedder(f"bert:{folder}"), load_embedder({"type": "bert", "checkpoint_path": str(folder)})
    assert isinstance(named, BertEmbedder)
    assert named.fingerprint == mapped.fingerprint
    shorter = load_embedder({"type": "bert", "checkpoint_path": str(folder), "max_length": 5})
    assert shorter.fingerprint != named.fingerprint
