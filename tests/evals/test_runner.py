from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from routellm.errors import ConfigError
from routellm.evals.benchmarks.base import BenchmarkData
from routellm.evals.cache import ScoreCache
from routellm.evals.runner import analyse, mean_curve, quality_band, score
from routellm.metrics.curves import apgr, exact_curve
from routellm.routers.random import RandomRouter
from routellm.routers.routers import Router
from routellm.types import ModelPair

PAIR = ModelPair("big", "small")


class Counting(Router):
    """Scores by length; counts the prompts that it was really asked for."""

    def __init__(self, fingerprint: str | None = "counting:1") -> None:
        self.fingerprint, self.asked = fingerprint, 0

    def calculate_strong_win_rate(self, prompt: str) -> float:
        self.asked += 1
        return len(prompt) / 100


def data(n: int = 60, seed: int = 0) -> BenchmarkData:
    """The strong model is always right; the weak one less often the longer the prompt is."""
    random = np.random.default_rng(seed)
    lengths = random.permutation(n) + 1
    weak = (random.random(n) > lengths / n).astype(float)
    groups = {"half": tuple("long" if length > n / 2 else "short" for length in lengths)}
    return BenchmarkData(tuple("x" * int(length) for length in lengths), {"big": np.ones(n), "small": weak}, groups)


def test_scores_are_cached_and_read_again(tmp_path: Path) -> None:
    cache, content = ScoreCache(tmp_path), data()
    first = score("counting", [Counting()], "toy", content, cache)
    router = Counting()
    second = score("counting", [router], "toy", content, cache)
    assert (router.asked, second.cached, first.cached) == (0, True, False)
    assert (first.runs[0] == second.runs[0]).all()


@pytest.mark.parametrize("change", ["fingerprint", "data", "benchmark", "name"])
def test_whatever_scores_depend_on_is_part_of_their_key(tmp_path: Path, change: str) -> None:
    cache = ScoreCache(tmp_path)
    score("counting", [Counting()], "toy", data(), cache)
    router = Counting("counting:2" if change == "fingerprint" else "counting:1")
    name = "other" if change == "name" else "counting"
    content = data(seed=1) if change == "data" else data()
    score(name, [router], "toy2" if change == "benchmark" else "toy", content, cache)
    assert router.asked == len(content)


def test_overwriting_scores_again(tmp_path: Path) -> None:
    cache, router = ScoreCache(tmp_path), Counting()
    score("counting", [Counting()], "toy", data(), cache)
    assert not score("counting", [router], "toy", data(), cache, overwrite=True).cached
    assert router.asked == 60


def test_a_router_that_vouches_for_nothing_is_never_cached(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    for _ in range(2):
        router = Counting(None)
        score("counting", [router], "toy", data(), cache)
        assert router.asked == 60
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_cache_file_is_computed_again(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    score("counting", [Counting()], "toy", data(), cache)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    router = Counting()
    score("counting", [router], "toy", data(), cache)
    assert router.asked == 60
    assert cache.read(file, 60) is not None


def test_cache_that_can_not_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can't be cached.*--cache-dir"):
        score("counting", [Counting()], "toy", data(), ScoreCache(tmp_path / "file" / "below"))


def test_batches_scored_at_once_keep_their_order(tmp_path: Path) -> None:
    content = data(2000)
    one = score("a", [Counting(None)], "toy", content, ScoreCache(tmp_path)).runs[0]
    four = score("a", [Counting(None)], "toy", content, ScoreCache(tmp_path), parallel=4).runs[0]
    assert (one == four).all()


def test_progress_counts_every_prompt(tmp_path: Path) -> None:
    seen: list[int] = []
    score("random", [RandomRouter(1), RandomRouter(2)], "toy", data(700), ScoreCache(tmp_path), advance=seen.append)
    assert sum(seen) == 1400


def results(scored: dict[str, Sequence[NDArray[np.float64]]], content: BenchmarkData):  # type: ignore[no-untyped-def]
    from routellm.evals.runner import Scored

    return analyse("toy", content, PAIR, [Scored(n, tuple(runs), False, None) for n, runs in scored.items()], repeats=200)


def test_analysis_holds_the_metrics_of_the_exact_curve() -> None:
    content = data(300)
    lengths = np.array([len(prompt) for prompt in content.prompts], dtype=float)
    result = results({"length": [lengths], "reversed": [-lengths]}, content)
    length, reverse = result.routers
    assert length.apgr.value == pytest.approx(apgr(exact_curve(lengths, result.outcomes)))
    assert length.apgr.low < length.apgr.value < length.apgr.high
    assert length.apgr.value + reverse.apgr.value == pytest.approx(1.0)
    assert length.groups["half"]["long"][1] + length.groups["half"]["short"][1] == 300
    (comparison,) = result.comparisons
    assert (comparison.better, comparison.other) == ("length", "reversed")
    assert comparison.difference.low > 0.1
    assert comparison.difference.value == pytest.approx(length.apgr.value - reverse.apgr.value)


def test_random_is_at_half_by_the_mean_of_its_runs() -> None:
    content = data(4000)
    result = results(
        {"random": [RandomRouter(seed).calculate_strong_win_rates(content.prompts) for seed in range(10)]}, content
    )
    assert result.routers[0].apgr.value == pytest.approx(0.5, abs=0.01)
    assert result.routers[0].published.apgr == pytest.approx(0.5, abs=0.01)


def test_equal_models_and_a_single_prompt_crash_nothing() -> None:
    content = BenchmarkData(("a", "b"), {"big": np.ones(2), "small": np.ones(2)}, {"kind": ("x", "y")})
    router = results({"r": [np.array([0.1, 0.2])]}, content).routers[0]
    assert np.isnan(router.apgr.value)
    single = BenchmarkData(("a",), {"big": np.ones(1), "small": np.zeros(1)})
    assert results({"r": [np.array([0.1])]}, single).routers[0].apgr.value == pytest.approx(0.5)


def test_mean_curve_of_one_short_curve_is_itself_and_of_many_their_mean() -> None:
    outcomes = data(50).outcomes(PAIR)
    one = exact_curve(np.arange(50.0), outcomes)
    other = exact_curve(-np.arange(50.0), outcomes)
    assert mean_curve([one]) is one
    both = mean_curve([one, other])
    assert both.at(0.5) == pytest.approx((one.at(0.5) + other.at(0.5)) / 2)


def test_band_holds_the_curve_and_narrows_with_more_prompts() -> None:
    widths = []
    for n in (50, 2000):
        outcomes = data(n).outcomes(PAIR)
        scores = np.random.default_rng(0).random(n)
        curve = mean_curve([exact_curve(scores, outcomes)])
        low, high = quality_band(scores, outcomes, curve.share, 200, 0)
        assert (low[1:-1] <= curve.quality[1:-1] + 1e-9).mean() > 0.95
        widths.append((high - low)[1:-1].mean())
    assert widths[1] < widths[0] / 3
