"""The routers `gain_fast` and `gain_accurate`: what a checkpoint must hold, and what is told where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.errors import CheckpointError
from routellm.routers.bert import BertEmbedder
from routellm.routers.checkpoint import QUANTILES_TENSOR, load_checkpoint, save_checkpoint
from routellm.routers.gain import AccurateGainRouter, FastGainRouter
from routellm.routers.odds import log_odds
from routellm.routers.routers import build_router
from tests.prompts import ODD_PROMPTS
from tests.training.gains import make_gain_accurate, make_gain_fast, prompt


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gain_fast(tmp_path_factory.mktemp("fast"))


@pytest.fixture(scope="module")
def accurate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gain_accurate(tmp_path_factory.mktemp("accurate"))


def changed(folder: Path, to: Path, tensors: Mapping[str, np.ndarray[Any, Any] | None] | None = None, **fields: Any) -> str:
    """A copy of a checkpoint with other tensors (None: without it) or fields of its router.json, and fitting hashes."""
    checkpoint = load_checkpoint(folder, folder.name)
    kept = {name: tensor for name, tensor in {**checkpoint.tensors, **(tensors or {})}.items() if tensor is not None}
    meta = {name: value for name, value in (checkpoint.meta or {}).items() if name != "weights_sha256"}
    return str(save_checkpoint(to, folder.name, kept, {**meta, **fields}))


def test_it_scores_by_a_checkpoint_and_says_what_it_is(fast: Path) -> None:
    router = build_router("gain_fast", {"checkpoint_path": str(fast)})
    assert router.calculate_strong_win_rate(prompt("arts", True, 7)) > router.calculate_strong_win_rate(
        prompt("arts", False, 7)
    )
    assert not router.blocking
    assert router.fingerprint == FastGainRouter(str(fast)).fingerprint
    assert str(router.fingerprint).startswith("gain_fast:")
    assert router.quantiles is not None
    assert router.quantiles.prompts == 240


def test_the_fingerprint_follows_weights_and_embedder(fast: Path, accurate: Path, tmp_path: Path) -> None:
    bias = load_checkpoint(fast, "gain_fast").tensors["bias"] + np.float32(0.5)
    other = FastGainRouter(changed(fast, tmp_path / "a" / "gain_fast", {"bias": bias}))
    assert other.fingerprint != FastGainRouter(str(fast)).fingerprint
    assert other.calculate_strong_win_rate("hi") > FastGainRouter(str(fast)).calculate_strong_win_rate("hi")
    router = AccurateGainRouter(str(accurate))
    assert router.fingerprint == AccurateGainRouter(str(accurate)).fingerprint
    assert router.features.embedder.fingerprint in str(router.fingerprint)


def test_an_encoder_stands_in_for_the_table_of_words(fast: Path, accurate: Path) -> None:
    router = AccurateGainRouter(str(accurate))
    assert isinstance(router.features.embedder, BertEmbedder)
    assert router.embedding_model == f"bert:{accurate.parent / 'bert'}"
    assert (router.blocking, FastGainRouter(str(fast)).blocking) == (True, False)
    assert router.calculate_strong_win_rate(prompt("arts", True, 7)) > router.calculate_strong_win_rate(
        prompt("arts", False, 7)
    )
    scores = router.calculate_strong_win_rates(ODD_PROMPTS)
    assert scores.tolist() == [router.calculate_strong_win_rate(each) for each in ODD_PROMPTS]
    for each in ODD_PROMPTS:
        parts = router.explain(each)
        assert sum(parts.values()) == pytest.approx(log_odds(router.calculate_strong_win_rate(each)), abs=1e-4)
        assert parts["embedding"] != 0.0


def test_an_encoder_that_is_gone_or_another_one_by_now_is_told(accurate: Path, tmp_path: Path) -> None:
    for field, value, said in (
        ("embedder", "bert:nowhere", "No checkpoint at 'nowhere'"),
        ("embedder", "static", r"trained on vectors of 'bert:.*', not of 'static:"),
        ("embedder_fingerprint", "bert:other", r"trained on vectors of 'bert:other', not of 'bert:"),
    ):
        with pytest.raises(CheckpointError, match=said):
            AccurateGainRouter(changed(accurate, tmp_path / "gain_accurate", {}, **{field: value}))


def test_neither_reads_the_others_checkpoint(fast: Path, accurate: Path) -> None:
    with pytest.raises(CheckpointError, match="of kind 'gain_accurate', not 'gain_fast'"):
        FastGainRouter(str(accurate))
    with pytest.raises(CheckpointError, match="of kind 'gain_fast', not 'gain_accurate'"):
        AccurateGainRouter(str(fast))


@pytest.mark.parametrize(
    "tensor",
    [
        "form_mean",
        "form_scale",
        "embedding",
        "form",
        "words",
        "prior",
        "bias",
        "trees.feature",
        "trees.threshold",
        "trees.value",
    ],
)
def test_a_missing_tensor_is_named_with_what_to_do(fast: Path, tmp_path: Path, tensor: str) -> None:
    with pytest.raises(CheckpointError, match=rf"the tensor '{tensor}' is missing\. Run `routellm train` again") as caught:
        FastGainRouter(changed(fast, tmp_path / "gain_fast", {tensor: None}))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("tensor", ["form_mean", "embedding", "form", "trees.feature", "trees.threshold", "trees.value"])
def test_tensors_that_do_not_fit_together_are_refused(fast: Path, tmp_path: Path, tensor: str) -> None:
    cut = load_checkpoint(fast, "gain_fast").tensors[tensor][..., :-1]
    with pytest.raises(CheckpointError, match="don't fit together"):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", {tensor: cut}))


@pytest.mark.parametrize("tensor", ["embedding", "form"])
def test_weights_without_rows_are_refused_with_what_to_do(fast: Path, tmp_path: Path, tensor: str) -> None:
    flat = load_checkpoint(fast, "gain_fast").tensors[tensor][0]
    with pytest.raises(CheckpointError, match=r"don't fit together: .* Run `routellm train` again"):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", {tensor: flat}))


def rows(fast: Path, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """A checkpoint's rows for prompts with and without options, that many times over; all but the first one point up by 1."""
    tensors = load_checkpoint(fast, "gain_fast").tensors
    made = {name: np.repeat(tensors[name][:1], count, axis=0) for name in ("embedding", "form", "trees.value", "bias")}
    made["bias"][1:] += np.float32(1.0)
    return made


@pytest.mark.parametrize("count", [0, 3])
def test_rows_for_more_than_two_sorts_of_prompts_are_refused(fast: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(CheckpointError, match=rf"'bias' has {count} rows; there must be 1, or 2.* Run `routellm train` again"):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", rows(fast, count)))


@pytest.mark.parametrize("tensor", ["embedding", "form", "trees.value", "bias"])
def test_a_second_row_of_some_weights_only_is_refused(fast: Path, tmp_path: Path, tensor: str) -> None:
    two = {**rows(fast, 2), tensor: rows(fast, 1)[tensor]}
    with pytest.raises(CheckpointError, match="don't fit together"):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", two))


@pytest.mark.parametrize("asked", ["Which is it?\nA. red\nB. blue", "Which is it? (a) red (b) blue", "Which? A) red B) blue"])
def test_a_second_row_is_for_prompts_that_list_options(fast: Path, tmp_path: Path, asked: str) -> None:
    one = FastGainRouter(str(fast))
    two = FastGainRouter(changed(fast, tmp_path / "gain_fast", rows(fast, 2)))
    six = "Which is it?\nA. red\nB. blue\nC. green\nD. white\nE. black\nF. pink"
    others = ("Which is it, red or blue?", "f(a) = g(b) in the U.S.A. today", six)
    for prompt_, more in ((asked, 1.0), *((other, 0.0) for other in others)):
        gap = log_odds(two.calculate_strong_win_rate(prompt_)) - log_odds(one.calculate_strong_win_rate(prompt_))
        assert gap == pytest.approx(more, abs=1e-5)
        assert two.explain(prompt_)["constant"] - one.explain(prompt_)["constant"] == pytest.approx(more, abs=1e-5)
        assert sum(two.explain(prompt_).values()) == pytest.approx(log_odds(two.calculate_strong_win_rate(prompt_)), abs=1e-4)


@pytest.mark.parametrize(
    ("tensor", "value"),
    [("embedding", np.nan), ("bias", np.inf), ("form_scale", 0.0), ("form_scale", -1.0), ("trees.feature", -1)],
)
def test_values_that_can_not_be_are_refused(fast: Path, tmp_path: Path, tensor: str, value: float) -> None:
    tensors = load_checkpoint(fast, "gain_fast").tensors
    bad = np.full_like(tensors[tensor], value)
    with pytest.raises(CheckpointError, match=r"not finite|scale is not above 0|features that there are not"):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", {tensor: bad}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format_version": 2}, r"format version is 2; this release reads version 1"),
        ({"form_version": 99}, r"needs form_version 99.*Run `routellm train` again on the same data"),
        ({"words_version": 99}, r"needs words_version 99"),
        ({"surface_version": 99}, r"99"),
        ({"embedder_fingerprint": "static:other"}, r"trained on vectors of 'static:other'"),
        ({"form_version": "1"}, r"'form_version' is missing or of a wrong type"),
        ({"priors": {}}, r"'priors' is missing or of a wrong type"),
        ({"priors": ["mf"]}, r"'priors' can't be read"),
        ({"priors": [{"router": "mf"}]}, r"'priors' can't be read"),
        ({"priors": [{"router": "mf", "arguments": 3, "fingerprint": "x"}]}, r"'priors' can't be read"),
        ({"priors": [{"router": "mf", "arguments": {}, "fingerprint": "mf:old"}]}, r"'mf' as 'mf:old', which is now 'mf:"),
        ({"quantiles": {"source": "x"}}, r"'quantiles' can't be read"),
    ],
)
def test_a_router_json_that_does_not_fit_is_refused(fast: Path, tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", **fields))


def test_without_quantiles_it_scores_all_the_same(fast: Path, tmp_path: Path) -> None:
    router = FastGainRouter(changed(fast, tmp_path / "gain_fast", {QUANTILES_TENSOR: None}, quantiles=None))
    assert router.quantiles is None
    assert 0.0 < router.calculate_strong_win_rate("hi") < 1.0
