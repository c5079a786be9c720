"""RouterBench's ARC-Challenge, MBPP and WinoGrande: eleven models' answers, right or wrong, and what each cost in dollars.

Prompts are as the models got them: those of ARC-Challenge and WinoGrande begin with worked examples. Fourteen questions of
ARC-Challenge stand in two rows each, one of them with the prompt given twice and the result of gpt-3.5-turbo-1106 alone, the
other with everything else; they are joined, and the costs are those of the prompt given once.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import RemoteFile
from routellm.errors import DataError
from routellm.evals.benchmarks.base import Benchmark, BenchmarkData
from routellm.evals.benchmarks.manifest import pinned, pinned_paths
from routellm.tables import column_names, read_table
from routellm.types import ModelPair

COST = "|total_cost"
"""What follows a model's name in the name of the column with its costs."""

JOINED = "second row of one question"
"""The reason under which rows that were joined with another one are counted."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: its prompt, how often the row gives it, and float64 of shape (models,), NaN where there is no result."""

    prompt: str
    times: int
    task: str
    qualities: NDArray[np.float64]
    costs: NDArray[np.float64]


class RouterBench(Benchmark):
    """3,164 questions of three tasks, grouped by `eval_name`."""

    def files(self) -> Sequence[RemoteFile]:
        return [pinned("routerbench", path) for path in pinned_paths("routerbench")]

    def read(self, paths: Sequence[Path]) -> BenchmarkData:
        models = [name.removesuffix(COST) for name in column_names(str(paths[0])) if name.endswith(COST)]
        columns = ["sample_id", "prompt", "eval_name", *models, *(model + COST for model in models)]
        rows: dict[Any, _Row] = {}
        joined = 0
        for path in paths:
            for number, (sample, *values) in enumerate(read_table(str(path), columns), 1):
                row = _read_row(values, columns[3:], f"{path}, row {number:,}")
                if sample in rows:
                    row = _join(rows[sample], row, f"{path}, row {number:,}")
                    joined += 1
                rows[sample] = row
        found = list(rows.values())
        return BenchmarkData(
            prompts=tuple(row.prompt for row in found),
            qualities={model: np.array([row.qualities[index] for row in found]) for index, model in enumerate(models)},
            groups={"eval_name": tuple(row.task for row in found)},
            dropped={JOINED: joined},
            costs={model: np.array([row.costs[index] for row in found]) for index, model in enumerate(models)},
        )

    def default_pair(self) -> ModelPair:
        return ModelPair("gpt-4-1106-preview", "mistralai/mixtral-8x7b-chat")


def _read_row(values: Sequence[Any], columns: Sequence[str], where: str) -> _Row:
    prompt, task, *numbers = values
    given = _read_prompt(prompt, where)
    found = np.array([_number(value, name, where) for value, name in zip(numbers, columns, strict=True)], dtype=np.float64)
    half = len(columns) // 2
    return _Row(given[0], len(given), str(task), found[:half], found[half:])


def read_prompt(written: object, where: str) -> str:
    """A prompt as a row writes it: a list of one string.

    Raises:
        DataError: it is written otherwise; names `where`.
    """
    return _read_prompt(written, where)[0]


def _read_prompt(written: object, where: str) -> list[str]:
    """The same string once, or as often as the row gives it."""
    try:
        given = ast.literal_eval(str(written))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        given = None
    if not isinstance(given, list) or len(set(map(str, given))) != 1 or not isinstance(given[0], str):
        raise DataError(f"{where}: the prompt must be written as a list of one string, not as {str(written)[:60]!r}.")
    return given


def _number(value: object, column: str, where: str) -> float:
    try:
        return float(str(value)) if value not in ("", None) else float("nan")
    except ValueError:
        raise DataError(f"{where}, column {column!r}: must be a number, not {value!r}.") from None


def _join(first: _Row, second: _Row, where: str) -> _Row:
    if first.prompt != second.prompt or not (np.isnan(first.qualities) | np.isnan(second.qualities)).all():
        raise DataError(f"{where}: its `sample_id` names another question, or a result, that an earlier row has already.")
    qualities = np.where(np.isnan(first.qualities), second.qualities, first.qualities)
    once = min(first, second, key=lambda row: row.times)
    return _Row(once.prompt, once.times, once.task, qualities, once.costs)
