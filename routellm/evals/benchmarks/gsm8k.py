"""GSM8K, as the RouteLLM paper measured it: whether each model reached the right number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from routellm.downloads import RemoteFile
from routellm.evals.benchmarks.base import Benchmark, BenchmarkData
from routellm.evals.benchmarks.manifest import pinned
from routellm.evals.benchmarks.published import CONTAMINATED, MODELS, PAIR, contaminated_prompts, correctness
from routellm.tables import read_table
from routellm.types import ModelPair


class GSM8K(Benchmark):
    """1,319 grade-school word problems."""

    def files(self) -> Sequence[RemoteFile]:
        return [pinned("gsm8k", path) for path in ("gsm8k_responses.csv", "contaminated_prompts.jsonl")]

    def read(self, paths: Sequence[Path]) -> BenchmarkData:
        table, listed = paths
        left_out = contaminated_prompts(listed)
        rows = [
            (prompt, [correctness(value, model, table, row) for model, value in zip(MODELS, values, strict=True)])
            for row, (prompt, *values) in enumerate(read_table(str(table), ["prompt", *MODELS]), 1)
        ]
        kept = [row for row in rows if row[0] not in left_out]
        return BenchmarkData(
            prompts=tuple(prompt for prompt, _ in kept),
            qualities={
                model: np.array([correct[column] for _, correct in kept], dtype=np.float64)
                for column, model in enumerate(MODELS)
            },
            dropped={CONTAMINATED: len(rows) - len(kept)},
        )

    def default_pair(self) -> ModelPair:
        return PAIR
