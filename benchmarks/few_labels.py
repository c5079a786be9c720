"""The few-label protocol on benchmarks: adapt a shipped router to some of a benchmark's own prompts, measure it on the others.

    python -m benchmarks.few_labels --router gain_accurate --output benchmarks/few_labels.md

Labels are drawn by a seed; every other prompt is for test, and no setting is chosen here. Figures are means over the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.features import PromptFeatures
from routellm.evals.benchmarks.factory import load_benchmark, open_benchmark
from routellm.metrics.curves import Outcomes, apgr, exact_curve
from routellm.routers.routers import Router, build_router
from routellm.routers.views import Viewer
from routellm.training.adapt import features_for
from routellm.training.adapt_labels import Labels
from routellm.training.adapt_model import adapt

SETTINGS = (("mmlu", 1500), ("mmlu", 300), ("gsm8k", 300), ("gsm8k", 100))


class Known(Embedder):
    """An embedder that looks at each prompt once, so that the seeds share that too."""

    def __init__(self, embedder: Embedder) -> None:
        self.dim, self.fingerprint, self.blocking = embedder.dim, embedder.fingerprint, embedder.blocking
        self._embedder, self._known = embedder, dict[str, Vector]()

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self._embedder.embed(prompt)
        return np.array([self._known[prompt] for prompt in prompts], dtype=np.float32).reshape(len(prompts), self.dim)


class Remembered(Router):
    """A router whose scores of known prompts are at hand, so that the seeds share the work of scoring."""

    def __init__(self, router: Router, prompts: Sequence[str]) -> None:
        scores = router.calculate_strong_win_rates(prompts)
        self.scores = dict(zip(prompts, scores.tolist(), strict=True))
        self.router = router
        self.fingerprint, self.blocking = router.fingerprint, router.blocking
        _, features = features_for(router)
        self.features = PromptFeatures(Known(features.embedder)) if features.embedder.blocking else features

    def calculate_strong_win_rate(self, prompt: str) -> float:
        if prompt not in self.scores:  # one that comes without its repetitions
            self.scores[prompt] = self.router.calculate_strong_win_rate(prompt)
        return float(self.scores[prompt])


def measure(
    prior: Remembered, name: str, prompts: list[str], outcomes: Outcomes, labels: int, seeds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """APGR on the prompts without a label, for each seed: of the prior router, and of the adapted one."""
    before, after = [], []
    for seed in range(seeds):
        order = np.random.default_rng([seed, 17]).permutation(len(prompts))
        fitting, test = np.sort(order[:labels]), np.sort(order[labels:])
        viewer = Viewer(prior.features, {name: prior})
        adapted = adapt(Labels([prompts[row] for row in fitting], outcomes.gain[fitting], []), viewer, seed)
        rest = [prompts[row] for row in test]
        left = outcomes.take(test)
        before.append(apgr(exact_curve(prior.calculate_strong_win_rates(rest), left)))
        after.append(apgr(exact_curve(adapted.router.calculate_strong_win_rates(rest), left)))
    return np.array(before), np.array(after)


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", nargs="+", default=["gain_fast"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache-dir")
    parser.add_argument("--data-mirror")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    lines = ["| router | benchmark | labels | shipped, other prompts | adapted (sd over seeds) |", "|---|---|---|---|---|"]
    for benchmark in dict.fromkeys(name for name, _ in SETTINGS):
        opened = open_benchmark(benchmark)
        pair = opened.default_pair()
        assert pair is not None
        data = load_benchmark(opened, cache_dir=arguments.cache_dir, mirror=arguments.data_mirror).with_results(pair)
        outcomes = Outcomes.of(data.qualities[pair.strong], data.qualities[pair.weak])
        for name in arguments.router:
            prior = Remembered(build_router(name), data.prompts)
            for labels in (number for known, number in SETTINGS if known == benchmark):
                before, after = measure(prior, name, list(data.prompts), outcomes, labels, arguments.seeds)
                adapted = f"{after.mean():.3f} ({after.std(ddof=1):.3f})"
                lines.append(f"| {name} | {benchmark} | {labels:,} | {before.mean():.3f} | {adapted} |")
                print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
