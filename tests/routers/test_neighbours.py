"""What labelled prompts add to the score of prompts that they are like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.base import Vector
from routellm.errors import CheckpointError
from routellm.routers.adapted import AdaptedRouter
from routellm.routers.checkpoint import load_checkpoint
from routellm.routers.neighbours import Neighbours
from routellm.routers.views import View
from routellm.training import adapt_neighbours
from routellm.training.adapt_neighbours import FORM_WEIGHT, PENALTY, fit_neighbours
from tests.routers.adapting import make_checkpoint
from tests.routers.test_adapted import changed


def view_of(embedding: Vector, form: Vector) -> View:
    nothing = np.empty((len(embedding), 0), dtype=np.float32)
    return View(embedding.astype(np.float32), form.astype(np.float32), nothing, nothing)


def drawn(n: int, seed: int) -> View:
    draw = np.random.default_rng(seed)
    return view_of(draw.normal(size=(n, 6)), draw.normal(size=(n, 3)))


def test_each_labelled_prompt_fades_with_its_distance_twice() -> None:
    rows = np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    one = Neighbours(rows, np.array([1.0, 2.0], np.float32), np.array([[2.0, -1.0], [10.0, 20.0]], np.float32))
    there = one.score(np.array([3.0], np.float32), np.array([2.0], np.float32))  # form counts twice: that is the second prompt
    assert there == pytest.approx((2 * np.exp(-5) - 1) + (10 * np.exp(-20) + 20), rel=1e-6)
    seen = view_of(np.array([[3.0], [0.0]]), np.array([[2.0], [0.5]]))
    wide, close = one.scores(seen).T
    assert wide + close == pytest.approx([one.score(*each) for each in zip(seen.embedding, seen.form, strict=True)], rel=1e-6)
    assert (wide[1], close[1]) == pytest.approx(
        (2 * np.exp(-1) - np.exp(-np.sqrt(18)), 10 * np.exp(-4) + 20 * np.exp(-4 * np.sqrt(18))), rel=1e-6
    )


def test_the_fit_is_that_of_kernel_ridge_regression() -> None:
    seen, target = drawn(40, 1), np.random.default_rng(2).normal(size=40)
    fitted = fit_neighbours(seen, target)
    lengths = [np.sqrt(part.var(axis=0).sum()) for part in (seen.embedding, seen.form)]
    places = np.hstack([seen.embedding / lengths[0], FORM_WEIGHT * seen.form / lengths[1]]).astype(np.float64)
    distances = np.sqrt(((places[:, None] - places) ** 2).sum(axis=2))
    distances /= np.sqrt(np.median(distances**2))
    for weights, far in zip(fitted.weights, (1, 4), strict=True):
        like = np.exp(-far * distances)
        left = like @ weights + PENALTY * weights  # what is predicted, and what is left over
        assert left == pytest.approx(target - target.mean(), abs=1e-4)


def test_it_learns_what_no_sum_of_features_tells() -> None:
    def won(seen: View) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray((seen.embedding[:, 0] > 0) ^ (seen.embedding[:, 1] > 0))

    seen, fresh = drawn(800, 3), drawn(300, 4)
    scores = fit_neighbours(seen, won(seen).astype(float)).scores(fresh)
    for each in scores.T:
        assert np.corrcoef(each, won(fresh))[0, 1] > 0.4


def test_prompts_that_are_all_alike_say_nothing_wrong() -> None:
    same = view_of(np.ones((30, 6)), np.zeros((30, 3)))
    fitted = fit_neighbours(same, np.arange(30.0))
    assert np.isfinite(fitted.weights).all()
    assert fitted.scores(same) == pytest.approx(np.zeros((30, 2)), abs=1e-3)


def test_of_many_labels_evenly_spaced_ones_are_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, target = drawn(41, 5), np.random.default_rng(6).normal(size=41)
    monkeypatch.setattr(adapt_neighbours, "MOST", 21)
    few = fit_neighbours(seen, target)
    assert few.rows.shape == (21, 9)
    every_other = fit_neighbours(seen.take(np.arange(0, 41, 2)), target[::2])
    assert few.weights.tolist() == every_other.weights.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("made"))


def test_an_adapted_router_knows_its_labelled_prompts_again(folder: Path, tmp_path: Path) -> None:
    tensors = load_checkpoint(folder, "adapted").tensors
    assert tensors["neighbours.rows"].shape[0] == tensors["neighbours.weights"].shape[1] == 150
    without = AdaptedRouter(changed(folder, tmp_path, {"neighbours.weights": np.zeros_like(tensors["neighbours.weights"])}))
    router, prompt = AdaptedRouter(str(folder)), "I had 30 ships and sold 20% each week. How many remain?"
    assert router.explain(prompt)["neighbours"] != 0.0
    assert without.explain(prompt)["neighbours"] == 0.0
    assert router.calculate_strong_win_rate(prompt) != without.calculate_strong_win_rate(prompt)
    assert router.fingerprint != without.fingerprint


def test_neighbours_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    tensors = load_checkpoint(folder, "adapted").tensors
    wrong = {
        "neighbours.rows": tensors["neighbours.rows"][:, :-1],
        "neighbours.scale": tensors["neighbours.scale"][:1],
        "neighbours.weights": tensors["neighbours.weights"][:, :-1],
    }
    for name, tensor in wrong.items():
        with pytest.raises(CheckpointError, match=r"its neighbours don't fit together: .*Run `routellm adapt` again"):
            AdaptedRouter(changed(folder, tmp_path / name, {name: np.ascontiguousarray(tensor)}))


def test_neighbours_without_their_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it lacks neighbours\.weights\. Run `routellm adapt` again"):
        AdaptedRouter(changed(folder, tmp_path, without=("neighbours.weights",)))
