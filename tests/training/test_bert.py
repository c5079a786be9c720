"""The trainer `bert`, from comparisons to a served folder, on an encoder made on the spot."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.errors import CheckpointError, ConfigError, MissingExtraError
from routellm.routers.bert import BertEmbedder, BertRouter, win_rates
from routellm.routers.checkpoint import save_checkpoint
from routellm.training.trainers import Trained
from tests.training.letters import data, train, write_small_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(encoder, tmp_path_factory.mktemp("work"))


def test_training_learns_more_than_the_sources_base_rates(trained: Trained) -> None:
    assert trained.metrics["validation_loss"] < trained.metrics["validation_loss_of_offsets_alone"] - 0.05
    assert trained.metrics["int8_rank_correlation"] > 0.98
    assert trained.metrics["int8_largest_difference"] < 0.1
    early, late = trained.router.calculate_strong_win_rates(["a b c d a", "w x y z w"])
    assert early > late + 0.1


def test_the_saved_folder_scores_as_the_trained_router(trained: Trained, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "saved", "bert", trained.tensors, trained.meta, None, trained.files)
    prompts = [row.prompt for row in data().rows[:20]]
    loaded = BertRouter(str(folder))
    assert loaded.calculate_strong_win_rates(prompts).tolist() == trained.router.calculate_strong_win_rates(prompts).tolist()
    assert loaded.fingerprint == trained.router.fingerprint
    assert str(tmp_path).encode() not in (folder / "model.onnx").read_bytes()


def test_the_saved_folders_encoder_can_be_had_without_its_classifier(trained: Trained, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "saved", "bert", trained.tensors, trained.meta, None, trained.files)
    embedder = BertEmbedder(str(folder))
    early, early_too, late = embedder.embed_batch(["a b c d a", "b a d c b", "w x y z w"])
    assert embedder.dim == 16
    assert np.linalg.norm(early - early_too) < 0.5 * np.linalg.norm(early - late), "it was trained to tell letters apart"


def test_the_served_base_rate_is_that_of_the_data_and_of_no_single_source(trained: Trained) -> None:
    rates = trained.metrics["base_rates"]
    assert sum(rates.values()) == pytest.approx(1.0)
    mean = trained.router.calculate_strong_win_rates([row.prompt for row in data().rows]).mean()
    assert mean == pytest.approx(rates["strong_wins"], abs=0.1)


class Interrupted(Exception):
    """Stands for whatever breaks a run off."""


@pytest.mark.parametrize("after", ["epoch 1, step 4 of 10", "epoch 1: "])
def test_a_resumed_run_ends_as_one_that_never_broke_off(
    encoder: Path, trained: Trained, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routellm.training import bert_export

    class Breaks(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if len(self) > 1 and self[-2].startswith(after):
                raise Interrupted

    with pytest.raises(Interrupted):
        train(encoder, tmp_path, lines=Breaks())
    # The first run's graph: its scores are compared with the second run's logits, so that equal metrics mean equal weights.
    monkeypatch.setattr(bert_export, "export_classifier", lambda *_: trained.files)
    lines: list[str] = []
    again = train(encoder, tmp_path, resume=True, lines=lines)
    assert not any(line.startswith("epoch 1, step 2 ") for line in lines)
    assert again.metrics == trained.metrics


def test_a_damaged_state_is_refused(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointError, match="Train without --resume"):
        train(encoder, tmp_path, resume=True)


def test_layers_can_be_dropped_and_frozen_and_offsets_switched_off(
    encoder: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routellm.training import bert_export

    monkeypatch.setattr(bert_export, "export_classifier", lambda *_: trained.files)
    flags = ("--layers", "1", "--frozen-layers", "1", "--no-source-intercepts", "--epochs", "1")
    other = train(encoder, tmp_path, *flags)
    assert other.settings["layers"] == 1
    assert other.settings["source_intercepts"] is False
    assert other.metrics["validation_loss_of_offsets_alone"] > trained.metrics["validation_loss_of_offsets_alone"] + 0.05


def test_what_is_read_of_long_prompts_is_served_as_it_was_trained(encoder: Path, trained: Trained, tmp_path: Path) -> None:
    both_ends = train(encoder, tmp_path, "--truncation", "head-tail", "--max-length", "6", "--epochs", "1")
    assert both_ends.meta["truncation"] == both_ends.settings["truncation"] == "head-tail"
    assert both_ends.metrics["int8_largest_difference"] < 0.1
    whole, other_middle, other_end = both_ends.router.calculate_strong_win_rates(["a b c d e f", "a x y d e f", "a b c d e z"])
    assert whole == other_middle, "[CLS] a ... d e f [SEP] are read"
    assert whole != other_end
    assert trained.meta["truncation"] == "head"


def test_the_last_layer_can_be_fitted_anew(encoder: Path, trained: Trained, tmp_path: Path) -> None:
    refitted = train(encoder, tmp_path, "--refit-head")
    assert (trained.settings["refit_head"], refitted.settings["refit_head"]) == (False, True)
    assert refitted.metrics["validation_loss"] == trained.metrics["validation_loss"], "the encoder is the same"
    assert refitted.metrics["int8_rank_correlation"] > 0.98
    rates = refitted.router.calculate_strong_win_rates([row.prompt for row in data().rows])
    assert rates.mean() == pytest.approx(refitted.metrics["base_rates"]["strong_wins"], abs=0.1)
    early, late = refitted.router.calculate_strong_win_rates(["a b c d a", "w x y z w"])
    assert early > late + 0.1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--layers", "3"), "--layers is 3; the encoder has 2"),
        (("--frozen-layers", "3"), "--frozen-layers is 3"),
        (("--max-length", "33"), "the encoder reads 32 tokens at most"),
        (("--max-length", "2"), "--max-length is 2"),
        (("--epochs", "0"), "--epochs is 0"),
        (("--learning-rate", "nan"), "--learning-rate is nan"),
        (("--warmup", "1"), "--warmup is 1"),
        (("--across", "gain"), "--across says how --refit-head fits"),
        (("--refit-head", "--across", "gain"), "--across names the kind 'gain'"),
    ],
)
def test_settings_out_of_range_are_refused(encoder: Path, tmp_path: Path, flags: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        train(encoder, tmp_path, *flags)


def test_a_folder_that_is_no_encoder_is_refused(encoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(encoder, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointError, match="is not an encoder of BERT's kind"):
        train(copy, tmp_path / "work")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        train(copy, tmp_path / "work")


def test_the_default_encoder_must_be_the_pinned_one(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from routellm.training import bert_model

    monkeypatch.setattr(bert_model, "resolve_folder", lambda name, files, revision: encoder)
    with pytest.raises(CheckpointError, match="is not the pinned file"):
        bert_model.find_encoder(None)


def test_the_serving_offset_gives_the_wanted_rates(encoder: Path) -> None:
    from routellm.training.bert_export import serving_offset

    logits, rates = np.random.default_rng(2).normal(0.0, 2.0, (500, 3)), np.array([0.2, 0.7, 0.1])
    offset = serving_offset(logits, rates)
    assert win_rates(logits + offset).mean() == pytest.approx(0.2, abs=1e-6)
    assert offset.sum() == pytest.approx(0.0, abs=1e-9)


def test_a_missing_library_is_named_with_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from routellm.training import bert

    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(bert, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install \"routellm\[torch,distill\]\""):
        train(tmp_path, tmp_path)
