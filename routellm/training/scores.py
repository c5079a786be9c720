"""Scores of many models on each prompt, and the comparisons that they imply; see `routellm.training.layouts`.

Two named models are compared prompt by prompt. By role, the third of the models with the highest mean score over the file is
compared with the third with the lowest: a prompt's rows then carry, as weights that sum to 1, the shares of (strong, weak)
pairs of models that were won, lost and tied on it. That is a far denser label than the outcome of one pair.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.routers.battles import Outcome
from routellm.training.layouts import NO_LABEL, Read, Reading, Table, number_in
from routellm.training.preferences import STRONG, WEAK, Preference

_INCOMPLETE = "no score of both sides"
_LOOKED_AT = 1000
"""Rows of a wide file by which columns of scores are found."""
_MANY = 20
"""From so many rows on, whole numbers that never repeat are no scores."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sides:
    """Which columns of a score matrix are compared with which, under what names, and from which difference on."""

    strong: list[int]
    weak: list[int]
    names: tuple[str, str]
    margin: float

    def compare(self, prompt: str, source: str, scores: Floats) -> Iterator[Preference | str]:
        """The comparisons of one prompt; `scores` has shape (n_models,), NaN where there is none."""
        gaps = (scores[self.strong][:, None] - scores[self.weak][None, :]).ravel()
        gaps = gaps[~np.isnan(gaps)]
        if not len(gaps):
            yield _INCOMPLETE
            return
        won, lost = float(np.mean(gaps > self.margin)), float(np.mean(gaps < -self.margin))
        shares: list[tuple[Outcome, float]] = [("first", won), ("second", lost), ("tie", 1.0 - won - lost)]
        for outcome, share in shares:
            if share > 1e-9:  # rounding may leave a trace of a tie
                yield Preference(prompt, *self.names, outcome, source, share)


def read_long(table: Table, reading: Reading, note: Callable[[str], None]) -> Read:
    """A row for each prompt and model. Repeated rows of a prompt and model count by their mean."""
    prompts: dict[tuple[str, str], int] = {}
    models: dict[str, int] = {}
    first_row = array("q")
    keys, values = array("q"), array("d")
    only = {reading.strong, reading.weak} if not reading.by_role and reading.strong and reading.weak else None
    for number, row in table.rows("prompt", "model", "score"):
        head, score = table.head(row), number_in(table.file, number, "score", row["score"])
        model = row["model"]
        if isinstance(head, str) or score is None or not isinstance(model, str) or not model:
            yield number, head if isinstance(head, str) else NO_LABEL if score is None else "no model's name"
            continue
        index = models.setdefault(model, len(models))
        if only is not None and model not in only:
            yield number, "score of a model that is not compared"
            continue
        at = prompts.setdefault(head, len(prompts))
        if at == len(first_row):
            first_row.append(number)
        keys.append(at << 20 | index)
        values.append(score)
    if not models:
        return
    packed, place = np.unique(np.array(keys), return_inverse=True)
    mean = np.bincount(place, np.array(values)) / np.bincount(place)
    owner, column = packed >> 20, packed & ((1 << 20) - 1)
    means = np.bincount(column, mean, len(models)) / np.maximum(np.bincount(column, minlength=len(models)), 1)
    sides = _sides(table, reading, list(models), means, note)
    ends = np.searchsorted(owner, np.arange(len(prompts) + 1))
    for (prompt, source), first, start, end in zip(prompts, first_row, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        scores = np.full(len(models), np.nan)
        scores[column[start:end]] = mean[start:end]
        yield from ((first, found) for found in sides.compare(prompt, source, scores))


def read_wide(table: Table, reading: Reading, note: Callable[[str], None]) -> Read:
    """A row for each prompt, a column for each model."""
    columns = score_columns(table, reading, note)
    means = _column_means(table, columns) if reading.by_role else np.zeros(len(columns))
    sides = _sides(table, reading, columns, means, note)
    for number, row in table.rows("prompt", *columns):
        head = table.head(row)
        if isinstance(head, str):
            yield number, head
        else:
            yield from ((number, found) for found in sides.compare(*head, _scores(table, number, row, columns)))


def score_columns(table: Table, reading: Reading, note: Callable[[str], None]) -> list[str]:
    """The columns of a wide file that hold scores: those named, else those of the two models, else all that hold numbers.

    Raises:
        DataError: a named column is not there.
    """
    named = list(reading.score_columns) or [name for name in (reading.strong, reading.weak) if name]
    for name in named:
        if not table.has(name):
            raise DataError(
                f"{table.file} has no column {name!r}{did_you_mean(name, table.columns)} for a model's scores. "
                f"It has: {', '.join(table.columns)}."
            )
    if named:
        return named
    others = [name for name in table.columns if name not in ("prompt", "source", "contam")]
    looked_at = list(islice(table.rows("prompt", *others), _LOOKED_AT))
    found = [name for name in others if _holds_scores([row[name] for _, row in looked_at])]
    if not found:
        raise DataError(
            f"{table.file} is of no known layout: beside the prompt there are neither labels nor columns of numbers. It has: "
            f"{', '.join(table.columns)}. Rename columns by --column, such as --column winner=vote."
        )
    note(f"{table.file}: took {len(found)} columns of numbers as models' scores: {', '.join(found)}")
    return found


def _holds_scores(values: Sequence[object]) -> bool:
    """Whether all values are numbers, and not row numbers or identifiers: many whole ones of which no two are the same."""
    try:
        found = [number_in("", 0, "", value) for value in values]
    except DataError:
        return False
    numbers = [value for value in found if value is not None]
    distinct = len(set(numbers)) == len(numbers) >= _MANY
    return bool(numbers) and not (distinct and all(value.is_integer() for value in numbers))


def _scores(table: Table, number: int, row: dict[str, object], columns: Sequence[str]) -> Floats:
    found = (number_in(table.file, number, f"score in column {name!r}", row[name]) for name in columns)
    return np.array([np.nan if value is None else value for value in found])


def _column_means(table: Table, columns: Sequence[str]) -> Floats:
    total, count = np.zeros(len(columns)), np.zeros(len(columns))
    for number, row in table.rows("prompt", *columns):
        if not isinstance(table.head(row), str):
            scores = _scores(table, number, row, columns)
            total += np.nan_to_num(scores)
            count += ~np.isnan(scores)
    return total / np.maximum(count, 1)


def _sides(table: Table, reading: Reading, models: list[str], means: Floats, note: Callable[[str], None]) -> Sides:
    """The two models, or the thirds.

    Raises:
        ConfigError: no pair is named, or a name that has no scores.
        DataError: there is only one model.
    """
    if not reading.by_role:
        strong, weak = (_chosen(table, name, models) for name in (reading.strong, reading.weak))
        return Sides([strong], [weak], (models[strong], models[weak]), reading.tie_margin)
    if len(models) < 2:
        raise DataError(
            f"{table.file}: a comparison takes scores of two models; there are those of {', '.join(models) or 'none'}."
        )
    order = np.argsort(means, kind="stable").tolist()
    size = max(1, len(models) // 3)
    weak_third, strong_third = order[:size], order[-size:][::-1]
    for side, third in ((STRONG, strong_third), (WEAK, weak_third)):
        named = ", ".join(f"{models[index]} ({means[index]:.3g})" for index in third)
        note(f"{table.file}: the {side} side is the {size} of {len(models)} models with the "
             f"{'highest' if side == STRONG else 'lowest'} mean score: {named}")  # fmt: skip
    return Sides(strong_third, weak_third, (STRONG, WEAK), reading.tie_margin)


def _chosen(table: Table, name: str | None, models: list[str]) -> int:
    if name is None or name not in models:
        what = "Scores need" if name is None else f"{table.file} has no scores of {name!r}{did_you_mean(name, models)}:"
        raise ConfigError(f"{what} --strong-model and --weak-model out of {', '.join(models)}; or --by-role.")
    return models.index(name)
