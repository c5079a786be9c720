"""The adapted router: what a checkpoint must hold, and that its score is the sum it says it is."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.errors import CheckpointError, RouteLLMError
from routellm.routers.adapted import AdaptedRouter
from routellm.routers.checkpoint import META_FILE, load_checkpoint, save_checkpoint
from routellm.routers.mf import MatrixFactorizationRouter
from routellm.routers.odds import CLIP, log_odds
from routellm.routers.parts import Trees
from tests.prompts import ODD_PROMPTS
from tests.routers.adapting import labels, make_checkpoint

LEARNED = ("embedding", "form", "words", "trees.value", "bias", "neighbours.weights")
"""Tensors of what the labels taught, beside the weights of the prior routers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def router(folder: Path) -> AdaptedRouter:
    return AdaptedRouter(str(folder))


def test_a_batch_equals_singles_to_the_bit(router: AdaptedRouter) -> None:
    batch = router.calculate_strong_win_rates(ODD_PROMPTS)
    assert batch.tolist() == [router.calculate_strong_win_rate(prompt) for prompt in ODD_PROMPTS]
    assert np.all((batch >= 0.0) & (batch <= 1.0))
    assert router.calculate_strong_win_rates([]).shape == (0,)


def test_the_explanation_adds_up_to_the_log_odds(router: AdaptedRouter) -> None:
    for prompt in [*ODD_PROMPTS, "I had 30 ships and sold 20% each week. How many remain?"]:
        parts = router.explain(prompt)
        explained = np.clip(sum(parts.values()), -CLIP, CLIP)  # as log_odds cuts off
        assert explained == pytest.approx(log_odds(router.calculate_strong_win_rate(prompt)), abs=1e-4)
        assert {"constant", "embedding", "words", "trees", "neighbours", "router: mf", "form: stem_numbers"} <= set(parts)


def test_what_was_labelled_as_hard_scores_higher(router: AdaptedRouter) -> None:
    fresh = labels(200, seed=9, noise=0.0)
    scores = router.calculate_strong_win_rates(fresh.prompts)
    assert scores[fresh.won].mean() - scores[~fresh.won].mean() > 0.3


def test_it_says_what_it_is_and_whether_it_may_be_scored_on_an_event_loop(folder: Path, router: AdaptedRouter) -> None:
    assert router.fingerprint is not None
    assert router.fingerprint.startswith("adapted:")
    assert router.fingerprint == AdaptedRouter(str(folder)).fingerprint
    assert router.blocking is False
    assert router.quantiles is not None
    assert router.quantiles.prompts == 150


def changed(
    folder: Path,
    to: Path,
    tensors: Mapping[str, np.ndarray[Any, Any]] | None = None,
    without: Collection[str] = (),
    **fields: Any,
) -> str:
    """A copy of a checkpoint with other tensors, without some, or with other fields of its router.json, and fitting hashes."""
    checkpoint = load_checkpoint(folder, "adapted")
    meta = {name: value for name, value in (checkpoint.meta or {}).items() if name != "weights_sha256"}
    held = {name: tensor for name, tensor in {**checkpoint.tensors, **(tensors or {})}.items() if name not in without}
    return str(save_checkpoint(to / "changed", "adapted", held, {**meta, **fields}))


def test_the_prior_router_is_part_of_the_sum(folder: Path, router: AdaptedRouter, tmp_path: Path) -> None:
    tensors = load_checkpoint(folder, "adapted").tensors
    rest = {name: np.zeros_like(tensors[name]) for name in LEARNED}
    alone = AdaptedRouter(changed(folder, tmp_path, {**rest, "prior": np.array([0.3], dtype=np.float32)}))
    mf = MatrixFactorizationRouter()
    for prompt in ("What is another name for sheep?", "Prove that 17 is prime.", *ODD_PROMPTS):
        prior = log_odds(mf.calculate_strong_win_rate(prompt))
        assert router.explain(prompt)["router: mf"] == pytest.approx(float(tensors["prior"][0]) * prior, abs=1e-5)
        assert log_odds(alone.calculate_strong_win_rate(prompt)) == pytest.approx(0.3 * prior, abs=1e-6)
    assert tensors["prior"][0] > 0.0


def test_the_fingerprint_follows_weights_and_priors(folder: Path, router: AdaptedRouter, tmp_path: Path) -> None:
    assert str(router.fingerprint).endswith(str(MatrixFactorizationRouter().fingerprint))
    bias = load_checkpoint(folder, "adapted").tensors["bias"] + np.float32(0.5)
    other = AdaptedRouter(changed(folder, tmp_path, {"bias": bias}))
    assert other.fingerprint != router.fingerprint
    assert other.calculate_strong_win_rate("hi") > router.calculate_strong_win_rate("hi")


def test_a_prior_router_that_has_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    priors = [{"router": "mf", "arguments": {}, "fingerprint": "mf:another"}]
    with pytest.raises(CheckpointError, match=r"on top of the router 'mf' as 'mf:another', which is now 'mf:"):
        AdaptedRouter(changed(folder, tmp_path, priors=priors))


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ({"router": "mf", "arguments": {"checkpoint_path": "nowhere"}, "fingerprint": "x"}, "nowhere"),
        ({"router": "mff", "arguments": {}, "fingerprint": "x"}, "Unknown router 'mff'"),
        ({"router": "mf", "arguments": 3, "fingerprint": "x"}, "'priors' can't be read"),
        ({"router": "mf"}, "'priors' can't be read"),
        ("mf", "'priors' can't be read"),
    ],
)
def test_a_prior_that_is_not_there_is_named(folder: Path, tmp_path: Path, prior: object, said: str) -> None:
    with pytest.raises(RouteLLMError, match=said):
        AdaptedRouter(changed(folder, tmp_path, priors=[prior]))


def test_weights_of_a_prior_without_one_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="don't fit together"):
        AdaptedRouter(changed(folder, tmp_path, priors=[]))


@pytest.mark.parametrize("tensor", ["words", "embedding", "form", "prior", "trees.value", "trees.feature"])
def test_tensors_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, tensor: str) -> None:
    cut = load_checkpoint(folder, "adapted").tensors[tensor][..., :0]
    with pytest.raises(CheckpointError, match="fit together"):
        AdaptedRouter(changed(folder, tmp_path, {tensor: cut}))


def test_trees_that_ask_for_unknown_features_are_refused(folder: Path, tmp_path: Path) -> None:
    wild = load_checkpoint(folder, "adapted").tensors["trees.feature"] + np.int16(999)
    with pytest.raises(CheckpointError, match="features that there are not"):
        AdaptedRouter(changed(folder, tmp_path, {"trees.feature": wild}))


def test_features_of_another_version_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="form_version 99"):
        AdaptedRouter(changed(folder, tmp_path, form_version=99))


def test_router_json_names_everything_that_a_reader_needs(folder: Path) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    assert meta["priors"][0]["router"] == "mf"
    assert meta["training"]["prompts"] == 150
    assert set(meta["metrics"]["apgr"]) == {"shipped", "adapted", "difference"}


def test_a_tree_reads_its_leaf_off_the_answers() -> None:
    trees = Trees(
        feature=np.array([[0, 1], [1, 0]], dtype=np.int16),
        threshold=np.array([[0.5, 0.0], [0.0, 2.0]], dtype=np.float32),
        value=np.array([[1, 2, 4, 8], [16, 32, 64, 128]], dtype=np.float32),
    )
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [3.0, 1.0], [0.5, -1.0]], dtype=np.float32)
    assert trees.predict_batch(rows).tolist() == [1 + 16, 4 + 16, 8 + 64, 8 + 128, 1 + 16]


def test_log_odds_are_cut_off_at_certainty() -> None:
    assert (log_odds(0.0), log_odds(1.0), log_odds(0.5)) == (-CLIP, CLIP, 0.0)
    assert log_odds(0.7) == pytest.approx(math.log(7 / 3))
