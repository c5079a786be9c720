"""Training of the rating router on a tiny base: that it learns, and that what is saved is what was trained."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.errors import CheckpointError, ConfigError, DataError
from routellm.routers.causal.lora import ROWS, targets
from routellm.routers.causal_llm import CausalLLMRouter
from routellm.routers.checkpoint import save_checkpoint
from routellm.training.causal_llm import CLASSIFIER, SYSTEM, CausalLLMTrainer
from routellm.training.preferences import Preference
from routellm.training.trainers import Trained, TrainingData
from tests.conftest import require
from tests.routers.tiny_llama import LAYERS, WIDTH, write_base

QUICK = ["--epochs", "2", "--epoch-size", "32", "--batch-size", "8", "--save-every", "2"]


def comparisons(count: int = 240) -> TrainingData:
    """The strong model wins on prompts with a z; the source `rare` has fewer of those."""
    random = np.random.default_rng(1)
    rows = []
    for number in range(count):
        source = ("often", "rare")[number % 2]
        hard = random.random() < (0.6, 0.2)[number % 2]
        words = "".join(random.choice(list("abcdefg"), 6))
        outcome = "first" if hard else ("tie", "second")[number % 3 == 0]
        rows.append(Preference(f"{number} {words} {'zzz' if hard else 'aaa'}", "big", "small", outcome, source))  # type: ignore[arg-type]
    return TrainingData(rows, np.arange(count) % 4 == 0, "big", "small", 0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("torch")
    return write_base(tmp_path_factory.mktemp("base"))


def fit(base: Path, work: Path, *flags: str, data: TrainingData | None = None, report: Any = lambda _: None) -> Trained:
    parser = argparse.ArgumentParser()
    CausalLLMTrainer.add_arguments(parser)
    parser.add_argument("--resume", action="store_true")
    work.mkdir(exist_ok=True)
    arguments = parser.parse_args(["--base", str(base), "--device", "cpu", *flags])
    return CausalLLMTrainer().fit(data or comparisons(), arguments, work, report)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    flags = ["--epochs", "6", "--epoch-size", "160", "--batch-size", "8", "--learning-rate", "0.02"]
    return fit(base, tmp_path_factory.mktemp("work"), *flags)


def test_it_learns_what_the_strong_model_wins(trained: Trained) -> None:
    data = comparisons()
    held = [row for row, out in zip(data.rows, data.held, strict=True) if out]
    scores = trained.router.calculate_strong_win_rates([row.prompt for row in held])
    won = np.array([row.outcome == "first" for row in held])
    assert (scores[won][:, None] > scores[~won][None, :]).mean() > 0.9
    assert trained.metrics["validation_loss"] < 1.0
    assert np.all(scores < 1.0), "a rating is generated for every prompt"


def test_the_saved_folder_scores_as_the_trained_router(trained: Trained, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "out", "causal_llm", trained.tensors, trained.meta, files=trained.files)
    loaded = CausalLLMRouter(str(folder), device="cpu")
    prompts = [row.prompt for row in comparisons(20).rows]
    assert loaded.calculate_strong_win_rates(prompts).tolist() == trained.router.calculate_strong_win_rates(prompts).tolist()
    assert loaded.fingerprint == trained.router.fingerprint


def test_only_the_adapter_and_the_five_rows_are_saved(trained: Trained) -> None:
    assert trained.tensors[ROWS].shape == (5, WIDTH)
    assert len(trained.tensors) == 1 + 2 * 7 * LAYERS
    assert {tensor.dtype.name for tensor in trained.tensors.values()} == {"float16"}
    assert sum(tensor.size for tensor in trained.tensors.values()) < 20_000


def test_merging_gives_the_model_that_was_trained(base: Path, tmp_path: Path) -> None:
    from routellm.routers.causal import lora
    from routellm.routers.causal.model import Placement, last_logits, load_model

    torch = require("torch")
    model = load_model(base, Placement("cpu"))
    frozen = {name: each.clone() for name, each in model.named_parameters()}
    pairs = lora.adapt(model, 2, 8.0, None, 0)
    weight = model.get_output_embeddings().weight
    head = lora.rating_head(weight, weight.detach()[:5] * 2, 259)
    model.set_output_embeddings(head)
    optimiser = torch.optim.SGD([*(each for pair in pairs.values() for each in pair), head.rows], lr=0.05)
    texts = [[1, 2, 3, 4, 5], [9, 8, 7]]
    for _ in range(3):
        last_logits(model, texts)[:, -5:].sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    for name, each in model.named_parameters():
        assert name not in frozen or torch.equal(each, frozen[name]), "the base is left alone, its shared embeddings too"
    arrays = {name: (a.detach().numpy(), b.detach().numpy()) for name, (a, b) in pairs.items()}
    merged = load_model(base, Placement("cpu"))
    before = last_logits(merged, texts)
    tensors = lora.adapter_tensors(arrays, 8.0 / 2, head.rows.detach().numpy())
    lora.merge(merged, lora.Adapter.read(tensors, 5, "here"), 259)
    with torch.inference_mode():
        one, other = last_logits(model, texts), last_logits(merged, texts)
    assert torch.allclose(one, other, atol=0.02)
    assert not torch.allclose(before, other[:, :259], atol=0.1), "the adapter does something"


def test_the_last_layers_alone_can_be_adapted(base: Path, tmp_path: Path) -> None:
    tensors = fit(base, tmp_path / "work", *QUICK, "--layers", "1").tensors
    assert {name.split(".")[2] for name in tensors if name != ROWS} == {str(LAYERS - 1)}


def test_a_run_that_broke_off_goes_on_to_the_same_result(base: Path, tmp_path: Path) -> None:
    whole = fit(base, tmp_path / "whole", *QUICK)

    class Broken(Exception):
        pass

    def breaks(line: str) -> None:
        if line.startswith("epoch 2, step 2 "):
            raise Broken

    with pytest.raises(Broken):
        fit(base, tmp_path / "parts", *QUICK, report=breaks)
    resumed = fit(base, tmp_path / "parts", *QUICK, "--resume")
    assert resumed.metrics == whole.metrics
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(resumed.tensors[name], tensor)


def test_a_damaged_state_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="without --resume"):
        fit(base, tmp_path, *QUICK, "--resume")


def test_offsets_start_at_the_base_rates_and_are_not_served(base: Path, tmp_path: Path) -> None:
    from routellm.routers.causal.model import Placement, load_model
    from routellm.routers.causal.prompt import RatingPrompt
    from routellm.routers.causal.tokenizer import ChatTokenizer
    from routellm.training.bert_data import make_examples
    from routellm.training.causal_fit import RATINGS, Fit, Settings
    from routellm.training.causal_llm import SPECIAL_TOKENS

    data = comparisons()
    tokenizer = ChatTokenizer(base, SPECIAL_TOKENS)
    prompt = RatingPrompt(tokenizer, SYSTEM, CLASSIFIER, 200, base)
    examples, held = make_examples(data.rows, data.held, "big", "small", lambda prompts: [prompt.ids(one) for one in prompts])
    rows = np.flatnonzero(~held)

    def offsets(**settings: Any) -> np.ndarray[Any, Any]:
        model = load_model(base, Placement("cpu"))
        run = Fit(
            model, tokenizer.first_rating, [1, 2, 3, 4, 5], examples, rows, rows, Settings(**settings), tmp_path / "state"
        )
        return run._offsets.detach().numpy()

    often, rare = offsets()
    rates = np.log(examples.class_rates(rows))
    np.testing.assert_allclose((often - rare)[np.array(RATINGS) - 1], rates[0] - rates[1], rtol=1e-5)
    assert often[1] > 0 > rare[1], "the strong model wins more in one source"
    assert not offsets(source_intercepts=False).any()


@pytest.mark.parametrize("flag", ["--rank", "--epochs", "--batch-size", "--max-length", "--patience", "--save-every"])
def test_a_number_out_of_range_is_named(base: Path, tmp_path: Path, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} is 0"):
        fit(base, tmp_path, flag, "0")


@pytest.mark.parametrize("flags", [("--learning-rate", "2"), ("--alpha", "0"), ("--warmup", "1"), ("--weight-decay", "-1")])
def test_a_share_out_of_range_is_named(base: Path, tmp_path: Path, flags: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=flags[0]):
        fit(base, tmp_path, *flags)


def test_ties_alone_cannot_be_fitted(base: Path, tmp_path: Path) -> None:
    data = comparisons(40)
    ties = [replace(row, outcome="tie") for row in data.rows]
    with pytest.raises(DataError, match="comparisons that the strong model won"):
        fit(base, tmp_path, *QUICK, data=replace(data, rows=ties))


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    require("torch")
    with pytest.raises(CheckpointError, match=r"nowhere.*Known by name: smollm2"):
        fit(tmp_path / "nowhere", tmp_path / "work")


def test_every_layer_of_attention_and_mlp_is_adapted(base: Path) -> None:
    from routellm.routers.causal.model import Placement, load_model

    assert len(targets(load_model(base, Placement("cpu")))) == 7 * LAYERS
