"""A benchmark out of one's own file: a prompt in each row, and a column of numbers for each model.

* `prompt` holds the text that routers get to see. A prompt that comes again is counted as dropped; its first row stays.
* A column of numbers (True and False count as 1 and 0) is a model's quality, and its name is the model's name. An empty value
  or NaN says that there is no result. A column is one of numbers if more than half of its values are; any other value in it
  is an error.
* `MODEL|total_cost` or `cost:MODEL` holds what each answer of MODEL cost, in dollars.
* A column of text is a grouping if it has from 2 to 100 labels, and at most one for every two rows. Other text, such as the
  answers themselves, is passed over.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import RemoteFile
from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.evals.benchmarks.base import Benchmark, BenchmarkData
from routellm.tables import column_names, read_table
from routellm.types import ModelPair

COST_SUFFIX, COST_PREFIX = "|total_cost", "cost:"

DUPLICATE, NO_RESULT = "duplicate prompt", "no result of any model"
"""Reasons under which rows are counted as dropped."""

_MOST_LABELS = 100
_NUMBERS = {"true": 1.0, "false": 0.0, "": math.nan}

Column = Sequence[Any]


class FileBenchmark(Benchmark):
    """A .jsonl, .csv or .parquet file of one's own; see the module's docstring.

    Args:
        path: the file.
        prompt_column: which column holds the prompts.
        group_columns: the columns that are groupings, whatever they hold. None for those that look like it.
    """

    def __init__(self, path: str | Path, prompt_column: str = "prompt", group_columns: Iterable[str] | None = None) -> None:
        if isinstance(group_columns, str):
            raise ConfigError(f"group_columns must be a list of names, not the string {group_columns!r}.")
        self.path = Path(path).expanduser()
        self.prompt_column = prompt_column
        self.group_columns = None if group_columns is None else list(group_columns)

    def files(self) -> Sequence[RemoteFile]:
        return ()

    def read(self, paths: Sequence[Path] = ()) -> BenchmarkData:
        """Its content; `paths` is empty, since the file lies on this machine.

        Raises:
            DataError: columns are missing or doubled, a prompt is empty, a quality or a cost is no number, there are fewer
                than two models or prompts, or all qualities are the same.
            MissingExtraError: the file is parquet and the extra `eval` is not installed.
        """
        table = self._read_columns()
        _check_prompts(table[self.prompt_column], f"{self.path}, column {self.prompt_column!r}")
        qualities, costs, groups = self._sort_columns(table)
        self._check_models(qualities, table)
        data = BenchmarkData(tuple(table[self.prompt_column]), qualities, groups, costs=costs)
        data = data.take(_first_of_each(data.prompts), DUPLICATE)
        data = data.take(_any_result(data), NO_RESULT)
        self._check_content(data)
        return data

    def default_pair(self) -> ModelPair | None:
        return None

    def _read_columns(self) -> dict[str, Column]:
        if not self.path.is_file():
            raise DataError(f"There is no file {str(self.path)!r}.")
        names = column_names(str(self.path))
        doubled = [name for name, count in Counter(names).items() if count > 1]
        if doubled:
            raise DataError(f"{self.path} has several columns {doubled[0]!r}; give each a name of its own.")
        for name in (self.prompt_column, *(self.group_columns or ())):
            if name not in names:
                found = ", ".join(map(repr, names)) or "none"
                raise DataError(f"{self.path} has no column {name!r}{did_you_mean(name, names)}. It has: {found}.")
        rows = list(read_table(str(self.path), names))
        if len(rows) < 2:
            raise DataError(f"{self.path} has {len(rows)} rows; a benchmark needs at least 2, better some hundreds.")
        return dict(zip(names, zip(*rows, strict=True), strict=True))

    def _sort_columns(
        self, table: dict[str, Column]
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]], dict[str, tuple[str, ...]]]:
        qualities: dict[str, NDArray[np.float64]] = {}
        costs: dict[str, NDArray[np.float64]] = {}
        groups: dict[str, tuple[str, ...]] = {}
        for name, values in table.items():
            where = f"{self.path}, column {name!r}"
            model = _model_of_cost(name)
            if name == self.prompt_column or not name:  # a nameless column is an index that some tool wrote
                continue
            if self.group_columns is not None and name in self.group_columns:
                groups[name] = tuple(map(_label, values))
            elif model is not None:
                costs[model] = _costs(values, where)
            elif _is_numeric(values):
                qualities[name] = _numbers(values, where, "a quality", math.isfinite)
            elif self.group_columns is None and _is_grouping(values):
                groups[name] = tuple(map(_label, values))
        for model in costs:
            if model not in qualities:
                raise DataError(
                    f"{self.path} has costs of {model!r}{did_you_mean(model, qualities)}, but no column {model!r} with its "
                    f"qualities. It has qualities of: {', '.join(qualities) or 'no model'}."
                )
        return qualities, costs, groups

    def _check_models(self, qualities: dict[str, NDArray[np.float64]], table: dict[str, Column]) -> None:
        if len(qualities) < 2:
            raise DataError(
                f"{self.path} needs a column of numbers for each of two models or more. It has {len(qualities)} such columns: "
                f"{', '.join(qualities) or 'none'}; all its columns: {', '.join(table)}."
            )

    def _check_content(self, data: BenchmarkData) -> None:
        if len(data) < 2:
            raise DataError(f"{self.path} holds one prompt only ({dict(data.dropped)} dropped); a benchmark needs at least 2.")
        values = np.array(list(data.qualities.values()))
        if np.nanmin(values) == np.nanmax(values):
            raise DataError(
                f"{self.path}: every quality of every model is {np.nanmin(values):g}, so there is nothing to choose between."
            )


def _model_of_cost(column: str) -> str | None:
    if column.endswith(COST_SUFFIX):
        return column.removesuffix(COST_SUFFIX)
    return column.removeprefix(COST_PREFIX) if column.startswith(COST_PREFIX) else None


def _check_prompts(prompts: Column, where: str) -> None:
    for row, prompt in enumerate(prompts, 1):
        if prompt is not None and not isinstance(prompt, str):
            raise DataError(f"{where}, row {row:,}: a prompt must be text, not {prompt!r}.")
        if prompt is None or not prompt.strip():
            raise DataError(f"{where}, row {row:,}: the prompt is empty. Fill it in, or remove the row.")


def _number(value: object) -> float | None:
    """A number; NaN for an empty value; None for anything else."""
    if value is None:
        return math.nan
    if isinstance(value, bool | int | float):
        return float(value)
    text = str(value).strip().lower()
    try:
        return _NUMBERS[text] if text in _NUMBERS else float(text)
    except ValueError:
        return None


def _is_numeric(values: Column) -> bool:
    numbers = [number for number in map(_number, values) if number is None or not math.isnan(number)]
    return 2 * sum(number is not None for number in numbers) > len(numbers)


def _numbers(values: Column, where: str, what: str, fits: Callable[[float], bool]) -> NDArray[np.float64]:
    numbers = np.empty(len(values), dtype=np.float64)
    for row, value in enumerate(values):
        number = _number(value)
        if number is None or not (fits(number) or math.isnan(number)):
            raise DataError(f"{where}, row {row + 1:,}: {what} must be a finite number, not {value!r}.")
        numbers[row] = number
    return numbers


def _costs(values: Column, where: str) -> NDArray[np.float64]:
    costs = _numbers(values, where, "a cost", lambda number: 0.0 <= number < math.inf)
    lacking = np.flatnonzero(np.isnan(costs))
    if len(lacking):
        raise DataError(f"{where}, row {lacking[0] + 1:,}: the cost is missing. Fill it in, or leave the column out.")
    return costs


def _label(value: object) -> str:
    return "" if value is None else str(value)


def _is_grouping(values: Column) -> bool:
    return 2 <= len(set(map(_label, values))) <= min(_MOST_LABELS, len(values) // 2)


def _any_result(data: BenchmarkData) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = ~np.isnan(np.array(list(data.qualities.values())))
    return np.asarray(known.any(axis=0), dtype=np.bool_)


def _first_of_each(prompts: Sequence[str]) -> NDArray[np.bool_]:
    first = {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}
    return np.array([first[prompt] == row for row, prompt in enumerate(prompts)])
