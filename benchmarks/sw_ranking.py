"""What a decision of `sw_ranking` costs beside fitting a logistic regression over all battles, on one core.

    OMP_NUM_THREADS=1 python benchmarks/sw_ranking.py [--battles 50000] [--models 64] [--rounds 7] [--json FILE]

The battles are made up: prompts of 10 to 60 words that are all different, models of evenly spread strength, a tenth of the
battles ties. Prints decisions a second for single prompts and for batches of 256, the same for the plain way (cosines to all
battles and a regression over them, by scikit-learn where it is installed, and by Newton's method in numpy), by how much the
two ways' win rates differ, how long adding a battle takes, and memory. Medians; figures of one run only compare with each
other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from decision import resident_mb, tell

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.routers.battles import Battle, BattleTable
from routellm.routers.bradley_terry import RIDGE
from routellm.routers.ranking import Ranking, Settings
from routellm.routers.similarity import PromptVectors, quantise
from routellm.routers.sw_ranking import SimilarityWeightedRouter

WORDS = (
    "prove write the sum of each number explain python function story about average cost if every friend had bought two more "
    "than what theorem list compare history translate poem river algebra derive code error table model answer question city "
    "molecule energy law contract patient dose summary letter recipe travel music game chess graph matrix integral market"
).split()


def make_prompts(count: int, random: np.random.Generator) -> list[str]:
    """Different prompts of 10 to 60 words."""
    lengths = random.integers(10, 61, count)
    return [f"{number} {' '.join(random.choice(WORDS, length))}" for number, length in enumerate(lengths)]


def make_battles(prompts: Sequence[str], models: int, random: np.random.Generator) -> list[Battle]:
    """One battle a prompt; the strength of model i is i / models * 4."""
    battles = []
    for prompt in prompts:
        first, second = random.choice(models, 2, replace=False)
        won = random.random() < 1 / (1 + np.exp(4 * (second - first) / models))
        outcome = "tie" if random.random() < 0.1 else "first" if won else "second"
        battles.append(Battle(prompt, f"model-{first:02d}", f"model-{second:02d}", outcome))
    return battles


class Plain:
    """The method as the paper tells it, without collapsing: a regression over all battles for each prompt."""

    def __init__(self, router: SimilarityWeightedRouter, tiers: np.ndarray) -> None:
        table, vectors = router.ranking.table, router.ranking.vectors
        self.router = router
        rows = vectors.stored[table.prompt].astype(np.float32)
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.design = np.zeros((len(table), int(tiers.max()) + 1))
        self.design[np.arange(len(table)), tiers[table.first]] += 1.0
        self.design[np.arange(len(table)), tiers[table.second]] -= 1.0
        self.score = table.points / 2.0

    def win_rate(self, prompt: str, fit: Callable[..., np.ndarray]) -> float:
        """As the router's, by `fit`."""
        cosines = self.rows @ quantise(self.router.features.encode_batch([prompt]))[0].astype(np.float32)
        ratings = fit(self.design, self.score, 10.0 * 10.0 ** (cosines / cosines.max()))
        ranking = self.router.ranking
        return float(1.0 / (1.0 + np.exp(ratings[ranking.weak] - ratings[ranking.strong])))


def fit_numpy(design: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Newton's method over all rows."""
    ratings = np.zeros(design.shape[1])
    for _ in range(20):
        expected = 1.0 / (1.0 + np.exp(-design @ ratings))
        gradient = design.T @ (weight * (score - expected)) - RIDGE * ratings
        hessian = (design * (weight * expected * (1.0 - expected))[:, None]).T @ design + RIDGE * np.eye(len(ratings))
        step = np.linalg.solve(hessian, gradient)
        ratings += step
        if np.abs(step).max() < 1e-8:
            break
    return ratings


def fit_sklearn(design: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """scikit-learn's default solver; a tie is a row for each side."""
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate((np.flatnonzero(score > 0.0), np.flatnonzero(score < 1.0)))
    label = np.repeat([1, 0], [(score > 0.0).sum(), (score < 1.0).sum()])
    share = np.where(label == 1, score[rows], 1.0 - score[rows])
    model = LogisticRegression(fit_intercept=False, C=1.0 / RIDGE, tol=1e-6, max_iter=200)
    return model.fit(design[rows], label, sample_weight=weight[rows] * share).coef_[0]


def seconds(calls: Sequence[Callable[[], object]], rounds: int) -> float:
    """Median over rounds of the mean processor time of a call."""
    calls[0]()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for call in calls:
            call()
        times.append((time.process_time() - start) / len(calls))
    return statistics.median(times)


def plain_fits() -> dict[str, Callable[..., np.ndarray]]:
    """The plain ways that are installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return {"numpy": fit_numpy}
    return {"numpy": fit_numpy, "sklearn": fit_sklearn}


def measure(router: SimilarityWeightedRouter, tiers: np.ndarray, prompts: Sequence[str], rounds: int) -> dict[str, Any]:
    """All figures but those of building."""
    single = seconds([lambda p=p: router.calculate_strong_win_rate(p) for p in prompts[:32]], rounds)  # type: ignore[misc]
    batch = seconds([lambda: router.calculate_strong_win_rates(prompts)], rounds) / len(prompts)
    figures: dict[str, Any] = {"single_per_s": 1 / single, "batched_per_s": 1 / batch, "rss_mb": resident_mb()}
    plain, few = Plain(router, tiers), prompts[:3]
    for name, fit in plain_fits().items():
        cost = seconds([lambda p=p, f=fit: plain.win_rate(p, f) for p in few], max(1, rounds // 3))  # type: ignore[misc]
        figures[f"plain_{name}_per_s"] = 1 / cost
        figures[f"single_over_plain_{name}"] = cost / single
        figures[f"batched_over_plain_{name}"] = cost / batch
        gaps = [abs(plain.win_rate(p, fit) - router.calculate_strong_win_rate(p)) for p in few]
        figures[f"largest_difference_{name}"] = max(gaps)
    added = [Battle(f"a new question with the number {n}", "model-00", "model-63", "first") for n in range(rounds)]
    figures["add_battle_ms"] = 1e3 * seconds([lambda b=b: router.add_battles([b]) for b in added], 1)  # type: ignore[misc]
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battles", type=int, default=50_000)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    battles = make_battles(make_prompts(arguments.battles, random), arguments.models, random)
    place = {battle.prompt: number for number, battle in enumerate(battles)}
    features = PromptFeatures(load_embedder(), surface_version=None)
    vectors, table = PromptVectors.of(quantise(features.encode_batch(list(place)))), BattleTable.of(battles, place)
    start = time.process_time()
    ranking = Ranking(table, vectors, Settings(f"model-{arguments.models - 1:02d}", "model-00"))
    figures = {"battles": len(table), "tiers": ranking.tier_count, "lay_out_ms": 1e3 * (time.process_time() - start)}
    router = SimilarityWeightedRouter.from_ranking(features, ranking)
    figures |= measure(router, ranking.tiers, make_prompts(256, random), arguments.rounds)
    tell(figures, arguments.json)


if __name__ == "__main__":
    main()
