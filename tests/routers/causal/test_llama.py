"""The forward pass in numpy against that of transformers, on tiny random models of every supported make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from routellm.errors import CheckpointError
from routellm.routers.causal.llama import Llama
from routellm.routers.causal.llama_config import LlamaConfig, beyond_llama
from tests.conftest import require
from tests.routers.tiny_llama import write_base

TEXTS = [[5, 3, 9, 9, 200, 17, 4], [7], [5, 3, 9, 1], list(range(100, 130))]
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def by_transformers(folder: Path, text: list[int]) -> NDArray[np.float64]:
    torch, transformers = require("torch"), require("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return np.asarray(model(torch.tensor([text])).logits[0, -1].double().numpy())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tied": False},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "num_hidden_layers": 3},
        {"head_dim": 12, "rms_norm_eps": 0.1},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
        {"rope_parameters": LLAMA_3, "head_dim": 32},
    ],
    ids=str,
)
def test_logits_are_those_of_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write_base(tmp_path, **config)
    got = Llama(folder).last_logits(TEXTS)
    assert got.shape == (len(TEXTS), 259)
    for row, text in zip(got, TEXTS, strict=True):
        np.testing.assert_allclose(row, by_transformers(folder, text), rtol=0, atol=2e-5 * np.abs(row).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_types_are_made_float32(tmp_path: Path, dtype: str) -> None:
    torch, transformers = require("torch"), require("transformers")
    folder = write_base(tmp_path)
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).save_pretrained(folder)
    got = Llama(folder).last_logits(TEXTS[:1])[0]
    np.testing.assert_allclose(got, by_transformers(folder, TEXTS[0]), rtol=0, atol=2e-5 * np.abs(got).max())


def test_a_model_in_several_files_is_the_same_model(base: Path, tmp_path: Path) -> None:
    transformers = require("transformers")
    transformers.AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    np.testing.assert_array_equal(Llama(tmp_path).last_logits(TEXTS), Llama(base).last_logits(TEXTS))


def test_settings_as_releases_before_5_of_transformers_wrote_them_mean_the_same(tmp_path: Path) -> None:
    folder = write_base(tmp_path, rope_parameters=LLAMA_3)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    new = LlamaConfig.read(folder).turns
    rope = settings.pop("rope_parameters")
    settings |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": {**rope, "type": rope["rope_type"]}}
    path.write_text(json.dumps(settings))
    np.testing.assert_array_equal(LlamaConfig.read(folder).turns, new)


def test_a_long_text_attends_in_parts_to_the_same_result(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = np.random.default_rng(0).integers(0, 259, 300).tolist()
    whole = Llama(base).last_logits([text])[0]
    np.testing.assert_allclose(whole, by_transformers(base, text), rtol=0, atol=5e-5 * np.abs(whole).max())
    monkeypatch.setattr("routellm.routers.causal.llama._QUERIES_AT_ONCE", 7)
    np.testing.assert_allclose(Llama(base).last_logits([text])[0], whole, rtol=0, atol=2e-5 * np.abs(whole).max())


@pytest.mark.parametrize("head", [[5, 3], [5, 3, 9, 9, 200, 17, 4], [5, 3, 9, 9, 200, 17, 4, 8], [6], []])
def test_a_remembered_head_changes_no_logits(base: Path, head: list[int]) -> None:
    plain, ready = Llama(base), Llama(base)
    ready.remember(head)
    got = ready.last_logits(TEXTS)
    np.testing.assert_allclose(got, plain.last_logits(TEXTS), rtol=0, atol=2e-5 * np.abs(got).max())
    np.testing.assert_array_equal(got, ready.last_logits(TEXTS), err_msg="a text leaves nothing behind for the next")


def test_a_remembered_head_is_not_computed_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Llama(base)
    model.remember([5, 3, 9, 9])
    read: list[int] = []
    project = model._project
    monkeypatch.setattr(model, "_project", lambda layer, x, *more: (read.append(len(x)), project(layer, x, *more))[1])
    model.last_logits([[5, 3, 9, 9, 200, 17]])
    assert read == [2, 2]


def test_every_text_of_a_batch_goes_through_alone(base: Path) -> None:
    model = Llama(base)
    np.testing.assert_array_equal(model.last_logits(TEXTS), np.concatenate([model.last_logits([text]) for text in TEXTS]))


# What is wrong with a folder


def rewrite(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": None}, "hidden_size is None; it must be a whole number from 1"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two'"),
        ({"num_key_value_heads": 3}, "4 heads of width 8 don't go with 3"),
        ({"head_dim": 7}, "4 heads of width 7"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is None; it must be a number above 0"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor is None"),
        (
            {"rope_parameters": {**LLAMA_3, "high_freq_factor": 1.0}},
            "low_freq_factor is 1.0; it must be below high_freq_factor",
        ),
        ({"rope_theta": "far", "rope_parameters": None}, "rope_theta is 'far'"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"num_hidden_layers": 3}, "missing or of another shape: model.layers.2.self_attn.q_proj.weight"),
        ({"intermediate_size": 47}, "missing or of another shape: model.layers.0.mlp.gate_proj.weight"),
        ({"tie_word_embeddings": False}, "missing or of another shape: lm_head.weight"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    folder = write_base(tmp_path)
    rewrite(folder, **settings)
    with pytest.raises(CheckpointError) as caught:
        Llama(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_output_layer_that_contradicts_the_configuration_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = write_base(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    expected = Llama(folder).last_logits(TEXTS)
    for factor in (1, 2):
        tensors["lm_head.weight"] = factor * tensors["model.embed_tokens.weight"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        if factor == 1:
            np.testing.assert_array_equal(Llama(folder).last_logits(TEXTS), expected)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is not the embeddings.*tie_word_embeddings"):
        Llama(folder)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        LlamaConfig.read(tmp_path)


def test_a_plain_llama_is_within_what_runs_here(base: Path) -> None:
    assert beyond_llama(json.loads((base / "config.json").read_text())) is None
    assert beyond_llama({"model_type": "llama", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})
    assert beyond_llama({"model_type": "llama", "rope_parameters": "default"})
    assert beyond_llama({}) == "of the architecture None"
