"""MT-Bench, as the RouteLLM paper measured it: GPT-4's grades, from 1 to 10, of conversations of two turns.

A router decides once, on the first turn; a model's quality is the mean of its grades for both. A question is left out where
either of its turns is in the list of contaminated prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routellm.downloads import RemoteFile
from routellm.errors import DataError
from routellm.evals.benchmarks.base import Benchmark, BenchmarkData
from routellm.evals.benchmarks.manifest import pinned
from routellm.evals.benchmarks.published import CONTAMINATED, MODELS, PAIR, contaminated_prompts
from routellm.tables import read_table
from routellm.types import ModelPair

TURNS = 2
LOWEST, HIGHEST = 1, 10

_Grades = Mapping[tuple[Any, str, int], float]
"""(question's id, model, turn) -> grade."""


class MTBench(Benchmark):
    """80 questions of eight categories, grouped by `category`."""

    def files(self) -> Sequence[RemoteFile]:
        return [pinned("mt_bench", path) for path in ("question.jsonl", "judgements.jsonl", "contaminated_prompts.jsonl")]

    def read(self, paths: Sequence[Path]) -> BenchmarkData:
        questions, judgements, listed = paths
        left_out = contaminated_prompts(listed)
        grades = _read_grades(judgements)
        rows = [
            (turns, category, [_quality(grades, question, model, judgements) for model in MODELS])
            for question, category, turns in _read_questions(questions)
        ]
        kept = [row for row in rows if left_out.isdisjoint(row[0])]
        return BenchmarkData(
            prompts=tuple(turns[0] for turns, _, _ in kept),
            qualities={
                model: np.array([quality[column] for _, _, quality in kept], dtype=np.float64)
                for column, model in enumerate(MODELS)
            },
            groups={"category": tuple(category for _, category, _ in kept)},
            dropped={CONTAMINATED: len(rows) - len(kept)},
        )

    def default_pair(self) -> ModelPair:
        return PAIR


def _read_questions(path: Path) -> list[tuple[Any, str, list[str]]]:
    questions = []
    for row, (question, category, turns) in enumerate(read_table(str(path), ["question_id", "category", "turns"]), 1):
        if not isinstance(turns, list) or len(turns) != TURNS or not all(isinstance(turn, str) for turn in turns):
            raise DataError(f"{path}, row {row}: `turns` must be a list of {TURNS} strings, not {turns!r}.")
        questions.append((question, str(category), turns))
    return questions


def _read_grades(path: Path) -> _Grades:
    grades: dict[tuple[Any, str, int], float] = {}
    for row, (*key, score) in enumerate(read_table(str(path), ["question_id", "model", "turn", "score"]), 1):
        if isinstance(score, bool) or not isinstance(score, int | float) or not LOWEST <= score <= HIGHEST:
            raise DataError(f"{path}, row {row}: `score` must be a number from {LOWEST} to {HIGHEST}, not {score!r}.")
        if tuple(key) in grades:
            raise DataError(f"{path}, row {row}: question, model and turn {key!r} have a grade already.")
        grades[tuple(key)] = float(score)
    return grades


def _quality(grades: _Grades, question: object, model: str, path: Path) -> float:
    try:
        return sum(grades[question, model, turn + 1] for turn in range(TURNS)) / TURNS
    except KeyError as error:
        raise DataError(f"{path} has no grade for question, model and turn {error}.") from None
