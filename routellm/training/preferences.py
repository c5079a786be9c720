"""Preference data: who won on which prompt, from files of several layouts into one table.

Two layouts are read, told apart by their columns:

* battles: `prompt`, `model_a`, `model_b` and `winner` ("model_a", "model_b", "tie", ...), or in its place the three 0/1
  columns `winner_model_a`, `winner_model_b`, `winner_tie` of the published data sets;
* pairs: `prompt`, `strong`, `weak` and `outcome` ("strong", "weak", "tie", "tie_or_weak").

A `source` column says where a row comes from (the file's name stands in), and a non-empty `contam` column names a benchmark
that the row touches: such rows are never used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from routellm.errors import DataError
from routellm.tables import column_names, read_table
from routellm.training.overlap import prompt_hash

Outcome: TypeAlias = Literal["first", "second", "tie"]

STRONG, WEAK = "strong", "weak"
"""The names that stand for every strong and every weak model where pairs are read by role."""

_BATTLE_OUTCOMES: dict[str, Outcome] = {
    "model_a": "first",
    "model_b": "second",
    "tie": "tie",
    "tie (bothbad)": "tie",
    "both_bad": "tie",
}
# A vote that is only known not to be a win of the strong model says nothing about who did win.
_PAIR_OUTCOMES: dict[str, Outcome] = {"strong": "first", "weak": "second", "tie": "tie", "tie_or_weak": "tie"}
_BATTLE_COLUMNS = ("prompt", "model_a", "model_b")
_VOTE_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")


@dataclass(frozen=True, slots=True)
class Preference:
    """One comparison: on `prompt`, did `first` win, `second`, or neither?"""

    prompt: str
    first: str
    second: str
    outcome: Outcome
    source: str


@dataclass(slots=True)
class Preferences:
    """The comparisons that were read, and for each reason how many rows were left out."""

    rows: list[Preference] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def read_preferences(files: Sequence[str], *, by_role: bool = False, exclude: frozenset[str] = frozenset()) -> Preferences:
    """Read files of preference data (jsonl, csv, parquet, or a hub data set's name).

    Args:
        by_role: in files of the pairs layout, let one name stand for every strong model and one for every weak model, so that
            pairs of many models teach one direction.
        exclude: `overlap.prompt_hash` of prompts that must not be trained on.

    Raises:
        DataError: a file can't be read, has neither layout, or holds an outcome that none of them knows; or nothing is left.
        MissingExtraError: a file's kind needs a package that is not installed.
    """
    read = Preferences()
    for file in files:
        columns = column_names(file)
        for row in _rows(file, columns, by_role):
            if isinstance(row, str):
                read.dropped[row] += 1
            elif exclude and prompt_hash(row.prompt) in exclude:
                read.dropped["near-copy of a benchmark's prompt"] += 1
            else:
                read.rows.append(row)
    if not read.rows:
        raise DataError(f"No usable row in {', '.join(files)}; left out: {dict(read.dropped) or 'nothing'}.")
    return read


def _rows(file: str, columns: Sequence[str], by_role: bool) -> Iterator[Preference | str]:
    extra = [name for name in ("source", "contam") if name in columns]
    if {"prompt", "strong", "weak", "outcome"} <= set(columns):
        wanted, outcomes, where = ["prompt", "strong", "weak", "outcome"], _PAIR_OUTCOMES, "outcome"
    elif {*_BATTLE_COLUMNS, "winner"} <= set(columns):
        wanted, outcomes, where = [*_BATTLE_COLUMNS, "winner"], _BATTLE_OUTCOMES, "winner"
    elif {*_BATTLE_COLUMNS, *_VOTE_COLUMNS} <= set(columns):
        wanted, outcomes, where = [*_BATTLE_COLUMNS, *_VOTE_COLUMNS], _BATTLE_OUTCOMES, "winner"
    else:
        raise DataError(
            f"{file}: needs the columns prompt, model_a, model_b, winner, or prompt, strong, weak, outcome. "
            f"It has: {', '.join(columns)}."
        )
    for number, values in enumerate(read_table(file, [*wanted, *extra]), 1):
        row = dict(zip([*wanted, *extra], values, strict=True))
        label = row[where] if where in row else _vote(row)
        if label not in outcomes:
            raise DataError(f"{file}, row {number}: the {where} is {label!r}; known are: {', '.join(outcomes)}.")
        yield _preference(row, wanted, outcomes[label], Path(file).stem, by_role and wanted[1] == "strong")


def _preference(row: dict[str, Any], wanted: list[str], outcome: Outcome, file: str, by_role: bool) -> Preference | str:
    prompt, first, second = prompt_text(row["prompt"]), row[wanted[1]], row[wanted[2]]
    if row.get("contam"):
        return "touches a benchmark"
    if not prompt:
        return "no prompt"
    if not isinstance(first, str) or not isinstance(second, str) or first == second:
        return "not two models"
    if by_role:
        first, second = STRONG, WEAK
    return Preference(prompt, first, second, outcome, str(row.get("source") or file))


def prompt_text(value: object) -> str:
    """The prompt's text; the published data sets hold a JSON list of turns, of which the first was judged first."""
    if isinstance(value, str) and value.startswith('["'):
        try:
            turns = json.loads(value)
        except ValueError:
            return value.strip()
        value = turns[0] if turns and isinstance(turns[0], str) else value
    return value.strip() if isinstance(value, str) else ""


def _vote(row: dict[str, Any]) -> str:
    votes = ("model_a", "model_b", "tie")
    return next((vote for vote, name in zip(votes, _VOTE_COLUMNS, strict=True) if row[name] in (1, "1", True)), "none")


def describe_dropped(dropped: Counter[str]) -> Iterable[str]:
    """One line for each reason why rows were left out."""
    return (f"left out {count:,} rows: {reason}" for reason, count in dropped.most_common())
