"""`routellm adapt`: what it fits, what it says of it, and what it saves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.onnx import TextModel
from routellm.routers.adapted import AdaptedRouter
from routellm.routers.checkpoint import META_FILE
from routellm.routers.routers import build_router
from routellm.training import adapt_model
from routellm.training.adapt_compare import apgr, compare
from routellm.training.adapt_fit import calibrate, mix, non_negative_least_squares, ridge, softened
from routellm.training.adapt_labels import Labels
from routellm.training.adapt_model import adapt
from routellm.training.boosting import TreeSettings, fit_trees, joined
from routellm.training.testprompts import TestPrompts
from tests.prompts import ODD_PROMPTS
from tests.routers.adapting import labels, run_adapt, viewer, write_labels
from tests.training.gains import make_gain_accurate
from tests.watching import prompts_given_to


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_model, "ROUNDS", 1)


def test_labels_that_can_be_learned_make_a_better_router(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_labels(tmp_path / "labels.jsonl", labels(200))
    assert run_adapt(["--labels", file, "--output", tmp_path / "made"]) == 0
    said = capsys.readouterr().err
    assert "difference 0." in said
    assert f"saved {tmp_path / 'made'}" in said
    fresh = labels(300, seed=4)
    shipped = build_router("mf").calculate_strong_win_rates(fresh.prompts)
    adapted = build_router("adapted", {"checkpoint_path": str(tmp_path / "made")}).calculate_strong_win_rates(fresh.prompts)
    assert apgr(adapted, fresh.gap) > apgr(shipped, fresh.gap) + 0.1
    assert abs(adapted.mean() - fresh.won.mean()) < 0.05, "scores are probabilities of a win"
    card = (tmp_path / "made" / "README.md").read_text()
    assert "200 labelled prompts" in card
    assert "Not shown to be better" not in card


def test_labels_that_say_nothing_save_nothing_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = labels(80, seed=4, noise=1.0)
    file = write_labels(tmp_path / "labels.jsonl", Labels(drawn.prompts, drawn.gap + 0.2, []))
    assert run_adapt(["--labels", file, "--output", tmp_path / "made"]) == 1
    assert "Not shown to be better than mf" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert run_adapt(["--labels", file, "--output", tmp_path / "made", "--force"]) == 0
    assert "**Not shown to be better than `mf`" in (tmp_path / "made" / "README.md").read_text()


def test_labels_of_test_prompts_are_named_on_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = labels(100)
    known = TestPrompts.of({"exam": [(prompt, prompt) for prompt in given.prompts[:7]]})
    monkeypatch.setattr(TestPrompts, "load", classmethod(lambda cls: known))
    file = write_labels(tmp_path / "labels.jsonl", given)
    assert run_adapt(["--labels", file, "--output", tmp_path / "made", "--force"]) == 0
    assert "of exam): figures on those are not to be trusted" in (tmp_path / "made" / "README.md").read_text()


def test_a_router_that_nobody_vouches_for_is_not_adapted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_labels(tmp_path / "labels.jsonl", labels(60))
    assert run_adapt(["--labels", file, "--router", "random"]) == 2
    assert "'random' can't be adapted" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_router() -> None:
    given, seen = labels(80), viewer()
    first, again, other = (adapt(given, seen, seed).win_rates for seed in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_cross_validated_scores_do_not_know_their_own_label() -> None:
    """Labels that are pure chance can't be ranked, however well they could be learned by heart."""
    draw = np.random.default_rng(0)
    found = [
        adapt(Labels(labels(100, seed).prompts, draw.permutation(np.repeat([1.0, 0.0], [40, 60])), []), viewer(), 0).verdict
        for seed in range(3)
    ]
    assert np.mean([verdict.adapted.value for verdict in found]) < 0.58
    assert not all(verdict.better for verdict in found)


def test_a_sum_of_parts_is_adapted_on_the_vectors_that_it_looks_at(tmp_path: Path) -> None:
    below = make_gain_accurate(tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps({"gain_accurate": {"checkpoint_path": str(below)}}))
    file = write_labels(tmp_path / "labels.jsonl", labels(60))
    files: list[str | Path] = ["--labels", file, "--config", tmp_path / "config.yaml", "--output", tmp_path / "made"]
    for given, embedder in (
        (["--router", "gain_accurate"], f"bert:{tmp_path / 'bert'}"),
        (["--router", "gain_accurate", "mf"], f"bert:{tmp_path / 'bert'}"),
        (["--router", "mf", "gain_accurate"], "static"),
        (["--router", "gain_accurate", "--embedding-model", "static"], "static"),
    ):
        assert run_adapt([*files, *given, "--force"]) == 0
        meta = json.loads((tmp_path / "made" / META_FILE).read_text())
        assert (meta["embedder"], meta["priors"][0]["router"]) == (embedder, given[1])
        router = AdaptedRouter(str(tmp_path / "made"))
        assert router.features.embedder.fingerprint == load_embedder(embedder).fingerprint
        assert router.blocking
        scores = router.calculate_strong_win_rates(ODD_PROMPTS)
        assert scores.tolist() == [router.calculate_strong_win_rate(prompt) for prompt in ODD_PROMPTS]


def test_the_encoder_reads_a_prompt_once_for_an_adapted_router_and_the_one_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = make_gain_accurate(tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps({"gain_accurate": {"checkpoint_path": str(below)}}))
    file = write_labels(tmp_path / "labels.jsonl", labels(60))
    files: list[str | Path] = ["--labels", file, "--config", tmp_path / "config.yaml", "--output", tmp_path / "made"]
    assert run_adapt([*files, "--router", "gain_accurate", "--force"]) == 0
    router = AdaptedRouter(str(tmp_path / "made"))
    read = prompts_given_to(monkeypatch, TextModel, "run")
    router.calculate_strong_win_rate("What is another name for ships?")
    assert read == ["What is another name for ships?"]


# The pieces


def test_apgr_is_the_area_under_recovered_gain() -> None:
    gap = np.array([1.0, 1.0, 0.0, 0.0])
    assert apgr(np.array([4.0, 3.0, 2.0, 1.0]), gap) == pytest.approx(0.75)
    assert apgr(np.array([1.0, 2.0, 3.0, 4.0]), gap) == pytest.approx(0.25)
    assert apgr(np.zeros(4), gap) == pytest.approx(0.5)
    assert np.isnan(apgr(np.zeros(2), np.array([1.0, -1.0])))


def test_a_difference_is_resampled_in_pairs() -> None:
    draw = np.random.default_rng(1)
    gap = (draw.random(400) < 0.3).astype(float)
    scores = gap + draw.normal(size=400)
    verdict = compare(scores, scores + 0.05 * draw.normal(size=400), gap, 0)
    width = verdict.difference.high - verdict.difference.low
    assert width < 0.3 * (verdict.shipped.high - verdict.shipped.low)
    assert not verdict.better
    assert compare(-scores, scores, gap, 0).better


@pytest.mark.parametrize("features", [5, 300])
def test_ridge_finds_a_direction_with_fewer_or_more_features_than_rows(features: int) -> None:
    draw = np.random.default_rng(2)
    rows, truth = draw.normal(size=(120, features)), np.zeros(features)
    truth[:3] = (2.0, -1.0, 1.0)
    target = rows @ truth + 0.5 * draw.normal(size=120) + 7.0
    weights = ridge(rows, target)
    fresh = draw.normal(size=(500, features))
    assert np.corrcoef(fresh @ weights, fresh @ truth)[0, 1] > (0.99 if features == 5 else 0.4)


def test_ridge_of_primal_and_dual_agree() -> None:
    draw = np.random.default_rng(3)
    rows, target = draw.normal(size=(40, 39)), draw.normal(size=40)
    padded = np.hstack([rows, np.zeros((40, 2))])
    assert ridge(padded, target)[:39] == pytest.approx(ridge(rows, target), abs=1e-8)


def test_losses_of_the_strong_model_count_half() -> None:
    assert softened(np.array([1.0, 0.25, 0.0, -0.5, -1.0])).tolist() == [1.0, 0.25, 0.0, -0.25, -0.5]


def test_trees_learn_an_interaction_and_repeat_themselves() -> None:
    draw = np.random.default_rng(4)
    rows = draw.normal(size=(600, 6)).astype(np.float32)
    target = ((rows[:, 0] > 0) & (rows[:, 3] > 0.3)).astype(float)
    trees = fit_trees(rows, target, TreeSettings(), seed=1)
    fresh = draw.normal(size=(400, 6)).astype(np.float32)
    truth = (fresh[:, 0] > 0) & (fresh[:, 3] > 0.3)
    assert np.corrcoef(trees.predict_batch(fresh), truth)[0, 1] > 0.85
    assert np.array_equal(trees.value, fit_trees(rows, target, TreeSettings(), seed=1).value)
    other = fit_trees(rows, target, TreeSettings(), seed=2)
    mean = (trees.predict_batch(fresh) + other.predict_batch(fresh)) / 2
    assert joined([trees, other]).predict_batch(fresh) == pytest.approx(mean, abs=1e-5)


def test_trees_of_features_that_never_vary_say_nothing() -> None:
    trees = fit_trees(np.ones((50, 3), dtype=np.float32), np.arange(50.0), TreeSettings(), 0)
    assert trees.predict(np.ones(3, dtype=np.float32)) == 0.0


def test_least_squares_keep_weights_above_zero() -> None:
    draw = np.random.default_rng(5)
    rows = draw.normal(size=(500, 3))
    target = rows @ np.array([1.0, -0.3, 0.5])
    free, drawn = (non_negative_least_squares(rows, target, np.ones(3), pull) for pull in (0.0, 1e6))
    assert free[1] == 0.0
    assert free[0] > 0.8
    assert drawn == pytest.approx(drawn.mean(), rel=0.05), "a strong pull makes them equal"


def test_a_prior_counts_as_much_as_it_is_worth() -> None:
    draw = np.random.default_rng(6)
    gap = draw.normal(size=4000)
    parts, good, bad = gap[:, None] + 4 * draw.normal(size=(4000, 3)), gap + draw.normal(size=4000), draw.normal(size=4000)
    weights = mix(parts, np.column_stack([good, bad]), gap)
    assert weights.prior[0] > 5 * weights.prior[1]
    assert np.all(weights.parts > 0)
    assert np.all(mix(parts, -good[:, None], gap).prior == 0.0)


def test_calibrated_scores_are_probabilities_even_of_a_useless_ranking() -> None:
    draw = np.random.default_rng(7)
    scores = draw.normal(size=4000)
    won = draw.random(4000) < 1 / (1 + np.exp(-(1.5 * scores - 1)))
    assert calibrate(scores, won) == (pytest.approx(1.5, abs=0.15), pytest.approx(-1.0, abs=0.15))
    slope, bias = calibrate(-scores, won)
    assert 0.0 < slope < 0.01
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(won.mean(), abs=0.02)
