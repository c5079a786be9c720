"""The router `bert`, on classifiers whose scores can be worked out by hand."""

from __future__ import annotations

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.errors import CheckpointError, ConfigError, MissingExtraError
from routellm.routers.bert import BertRouter, win_rates
from routellm.routers.routers import build_router
from tests.conftest import hide, require
from tests.embeddings.encoders import VOCABULARY
from tests.prompts import ODD_PROMPTS
from tests.routers.classifiers import QUANTILES, token_logits, write_checkpoint, write_graph, write_transformers

PROMPTS = [*ODD_PROMPTS, "a b c", "zyx " * 30]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require("onnxruntime")
    return write_checkpoint(tmp_path / "ours")


def by_hand(tokens: list[str]) -> float:
    """P(strong wins) = 1 - P(tie) - P(weak wins)."""
    strong, tie, weak = token_logits()[[VOCABULARY[token] for token in tokens]].mean(axis=0).astype(np.float64).tolist()
    total = math.exp(strong) + math.exp(tie) + math.exp(weak)
    return 1 - math.exp(tie) / total - math.exp(weak) / total


def test_a_win_rate_is_what_ties_and_losses_leave() -> None:
    logits = np.array([[0.0, 0.0, 0.0], [900.0, 0.0, -900.0], [-900.0, 900.0, 0.0], [1.0, 2.0, 3.0]])
    expected = [1 / 3, 1.0, 0.0, math.exp(1) / (math.exp(1) + math.exp(2) + math.exp(3))]
    np.testing.assert_allclose(win_rates(logits), expected, atol=1e-12)


# Checkpoints of ours


def test_our_checkpoint_scores_as_its_classifier_says(folder: Path) -> None:
    router = build_router("bert", {"checkpoint_path": str(folder)})
    assert router.calculate_strong_win_rate("A bc") == pytest.approx(by_hand(["[CLS]", "a", "b", "##c", "[SEP]"]), abs=1e-6)
    assert router.blocking
    assert router.quantiles is not None
    assert router.quantiles.source == QUANTILES.source


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_equals_singles_to_the_bit(folder: Path, threads: int) -> None:
    router = BertRouter(str(folder), threads=threads)
    singles = [router.calculate_strong_win_rate(prompt) for prompt in PROMPTS]
    assert router.calculate_strong_win_rates(PROMPTS).tolist() == singles
    assert len(set(singles)) > 5
    assert router.calculate_strong_win_rates([]).shape == (0,)


def test_prompts_are_cut_where_they_were_cut_in_training_unless_told_otherwise(folder: Path) -> None:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    prompt = " ".join(letters)
    router = BertRouter(str(folder))
    assert router.calculate_strong_win_rate(prompt) == pytest.approx(by_hand(["[CLS]", *letters[:10], "[SEP]"]), abs=1e-6)
    longer = BertRouter(str(folder), max_length=20)
    assert longer.calculate_strong_win_rate(prompt) == pytest.approx(by_hand(["[CLS]", *letters[:18], "[SEP]"]), abs=1e-6)
    assert longer.quantiles is None
    assert longer.fingerprint != router.fingerprint
    with pytest.raises(ConfigError, match="reads 20 tokens at most"):
        BertRouter(str(folder), max_length=21)


def test_a_checkpoint_says_which_tokens_of_a_long_prompt_are_read(folder: Path, tmp_path: Path) -> None:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    router = BertRouter(str(write_checkpoint(tmp_path / "both-ends", truncation="head-tail")))
    found = router.calculate_strong_win_rate(" ".join(letters))
    assert found == pytest.approx(by_hand(["[CLS]", *letters[:4], *letters[-6:], "[SEP]"]), abs=1e-6)
    assert router.fingerprint != BertRouter(str(folder)).fingerprint
    with pytest.raises(CheckpointError, match="truncation of prompts is 'tail'"):
        BertRouter(str(write_checkpoint(tmp_path / "other", truncation="tail")))


def test_the_fingerprint_follows_the_weights_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = BertRouter(str(folder)).fingerprint
    assert first is not None
    assert BertRouter(str(shutil.copytree(folder, tmp_path / "copy")), threads=2).fingerprint == first
    write_graph(tmp_path / "other.onnx", token_logits() + 1)
    shutil.copyfile(tmp_path / "other.onnx", relist(folder, "model.onnx", tmp_path / "other.onnx") / "model.onnx")
    assert BertRouter(str(folder)).fingerprint != first


def relist(folder: Path, name: str, content: Path) -> Path:
    """Put a file into a checkpoint as if it had been saved with it."""
    from routellm.downloads import sha256

    meta = json.loads((folder / "router.json").read_text())
    meta["files"][name] = sha256(content)
    (folder / "router.json").write_text(json.dumps(meta))
    shutil.copyfile(content, folder / name)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_an_altered_or_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name}: its hash is not the one"):
        BertRouter(str(folder))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        BertRouter(str(folder))


def test_files_that_are_what_was_saved_but_no_classifier_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x08\x07 not a graph")
    with pytest.raises(CheckpointError, match="is not a model that onnxruntime can read"):
        BertRouter(str(relist(folder, "model.onnx", tmp_path / "broken")))
    with pytest.raises(CheckpointError, match=r"float32 of shape \(1, 2\); it must be float32 of shape \(prompts, 3\)"):
        BertRouter(str(write_checkpoint(tmp_path / "two", labels=2)))
    write_graph(tmp_path / "nan.onnx", token_logits() * np.nan)
    with pytest.raises(CheckpointError, match="is not finite"):
        BertRouter(str(relist(folder, "model.onnx", tmp_path / "nan.onnx")))


def test_a_checkpoint_that_lists_no_graph_is_refused(folder: Path) -> None:
    meta = json.loads((folder / "router.json").read_text())
    del meta["files"]["model.onnx"]
    (folder / "router.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match=r"lists no file 'model\.onnx'"):
        BertRouter(str(folder))


def test_a_newer_format_and_another_router_are_refused(folder: Path) -> None:
    meta = json.loads((folder / "router.json").read_text())
    (folder / "router.json").write_text(json.dumps({**meta, "format_version": 2}))
    with pytest.raises(CheckpointError, match="format version is 2"):
        BertRouter(str(folder))
    (folder / "router.json").write_text(json.dumps({**meta, "router": "mf"}))
    with pytest.raises(CheckpointError, match="holds a router of kind 'mf'"):
        BertRouter(str(folder))


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds neither router\.json.* nor config\.json"):
        BertRouter(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_labels": 2}, "num_labels"),
        ({"max_length": 2}, "max_length"),
        ({"max_length": "long"}, "max_length"),
        ({"threads": 0}, "threads"),
        ({"batch_size": True}, "batch_size"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        BertRouter("anywhere", **arguments)


# Classifiers that transformers saved


@pytest.fixture
def published(tmp_path: Path) -> Path:
    write_transformers(tmp_path / "published")
    return tmp_path / "published"


def test_a_published_classifier_scores_as_its_softmax_says(tmp_path: Path) -> None:
    torch = require("torch")
    model = write_transformers(tmp_path)
    router = build_router("bert", {"checkpoint_path": str(tmp_path), "num_labels": 3})
    ids = torch.tensor([[VOCABULARY[token] for token in ("[CLS]", "a", "b", "##c", "[SEP]")]])
    with torch.inference_mode():
        strong, tie, weak = model(ids).logits[0].tolist()
    total = math.exp(strong) + math.exp(tie) + math.exp(weak)
    expected = 1 - math.exp(tie) / total - math.exp(weak) / total
    assert router.calculate_strong_win_rate("A bc") == pytest.approx(expected, abs=1e-6)
    assert router.quantiles is None
    assert 0.01 < expected < 0.99


def test_padding_moves_a_published_classifiers_scores_by_rounding_only(published: Path) -> None:
    router = BertRouter(str(published), batch_size=4)
    singles = [router.calculate_strong_win_rate(prompt) for prompt in PROMPTS]
    np.testing.assert_allclose(router.calculate_strong_win_rates(PROMPTS), singles, atol=1e-6)
    assert np.ptp(singles) > 0.01


def test_a_published_classifier_reads_no_more_tokens_than_it_has_positions(published: Path) -> None:
    router = BertRouter(str(published))  # 34 positions, of which the first is the padding's
    assert router.calculate_strong_win_rate("a " * 31) == router.calculate_strong_win_rate("a " * 3000)
    assert router.calculate_strong_win_rate("a " * 30) != router.calculate_strong_win_rate("a " * 3000)
    with pytest.raises(ConfigError, match="reads 33 tokens at most"):
        BertRouter(str(published), max_length=34)


def test_a_published_classifier_can_be_asked_from_several_threads(published: Path) -> None:
    router = BertRouter(str(published))
    expected = [router.calculate_strong_win_rate(prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(router.calculate_strong_win_rate, PROMPTS * 5)) == expected * 5


def test_device_and_dtype_are_taken_and_told_apart(published: Path) -> None:
    router, half = BertRouter(str(published)), BertRouter(str(published), device="cpu", dtype="bfloat16")
    assert half.fingerprint != router.fingerprint
    np.testing.assert_allclose(half.calculate_strong_win_rates(PROMPTS), router.calculate_strong_win_rates(PROMPTS), atol=0.1)
    with pytest.raises(ConfigError, match="device of the router 'bert' is 'abacus'"):
        BertRouter(str(published), device="abacus")


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    write_transformers(tmp_path, labels=2)
    with pytest.raises(CheckpointError, match="the classifier has 2 labels; it must have 3"):
        BertRouter(str(tmp_path))


@pytest.mark.filterwarnings("ignore")  # of transformers, about what the test took away
def test_an_encoder_without_a_trained_classification_head_is_refused(tmp_path: Path) -> None:
    model = write_transformers(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.roberta.save_pretrained(tmp_path / "encoder")
    shutil.copyfile(tmp_path / "encoder" / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"its weights lack classifier\.dense\.bias"):
        BertRouter(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_published_file_is_refused(published: Path, name: str) -> None:
    (published / name).write_bytes(b"\x80\x04 a pickle, perhaps")
    with pytest.raises(CheckpointError, match=str(published)):
        BertRouter(str(published))


@pytest.mark.filterwarnings("ignore")
def test_weights_in_a_pickle_are_refused(published: Path) -> None:
    torch = require("torch")
    (published / "model.safetensors").unlink()
    torch.save({}, published / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="can't be loaded"):
        BertRouter(str(published))


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "onnx"), ("torch", "torch")])
def test_a_missing_library_is_named_with_the_install_line(
    module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if extra == "onnx":
        write_checkpoint(tmp_path / "folder")
    else:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "config.json").write_text("{}")
    hide(module, monkeypatch)
    with pytest.raises(MissingExtraError, match=rf"pip install \"routellm\[{extra}\]\""):
        BertRouter(str(tmp_path / "folder"))
