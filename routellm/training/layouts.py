"""The layouts of preference data, and how each becomes comparisons.

A file's layout is told by its columns, after those that `--column` names are renamed:

* battles: `prompt`, `model_a`, `model_b` and `winner` ("model_a", "model_b", "tie", ...), or in its place the three 0/1
  columns `winner_model_a`, `winner_model_b`, `winner_tie` of the published data sets;
* pairs: `prompt`, `strong`, `weak` and `outcome` ("strong", "weak", "tie", "tie_or_weak");
* long scores: `prompt`, `model`, `score`, a row for each prompt and model;
* judge's ratings: `prompt` and `rating`, from 1 to 5, of the weak model's answer;
* wide scores: `prompt`, and for each model a column of its scores.

A `source` column says where a row comes from (the file's name stands in), and a non-empty `contam` column names a benchmark
that the row touches: such rows are never used. In battles and pairs a `weight` column says how much a row counts: a share of
models that won, lost or drew becomes that many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.prompt_files import prompt_text
from routellm.routers.battles import VOTE_COLUMNS, WINNERS, Outcome, vote
from routellm.tables import column_names, read_table
from routellm.training.preferences import STRONG, WEAK, Preference

Read: TypeAlias = Iterator[tuple[int, Preference | str]]
"""The row's number in its file, from 1, and a comparison or the reason why there is none."""

COLUMNS = (
    *("prompt", "model_a", "model_b", "winner", *VOTE_COLUMNS),
    *("strong", "weak", "outcome", "model", "score", "rating", "source", "weight", "contam"),
)
"""The columns that the layouts know, and that `--column` may find under other names."""

GOOD_ENOUGH = 4.0
"""The rating from which on the weak model's answer is as good as the strong one's (paper, appendix on augmentation)."""

NO_PROMPT, CONTAMINATED, NO_LABEL, NO_WEIGHT = "no prompt", "touches a benchmark", "no label", "no weight above 0"

_OPTIONAL = ("source", "weight", "contam")
# A vote that is only known not to be a win of the strong model says nothing about who did win.
_PAIR_OUTCOMES: dict[str, Outcome] = {"strong": "first", "weak": "second", "tie": "tie", "tie_or_weak": "tie"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are to be read; every layout takes from it what it needs.

    Attributes:
        columns: a layout's column -> its name in the files.
        strong, weak: names of the two models to compare.
        by_role: let one name stand for every strong model and one for every weak model, so that comparisons of many models
            teach one direction. Of scores, the best third of the models is compared with the worst third.
        score_columns: the columns of a wide file that hold scores.
        good_enough: the rating from which on the weak model's answer counts as good as the strong one's.
        tie_margin: scores that differ by no more are a tie.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    strong: str | None = None
    weak: str | None = None
    by_role: bool = False
    score_columns: tuple[str, ...] = ()
    good_enough: float = GOOD_ENOUGH
    tie_margin: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` where settings contradict each other or name what no layout knows."""
        for name in self.columns:
            if name not in COLUMNS:
                raise ConfigError(
                    f"No layout has a column {name!r}{did_you_mean(name, COLUMNS)}. Known: {', '.join(COLUMNS)}."
                )
        if self.by_role and (self.strong or self.weak):
            raise ConfigError(
                f"By role the models are called {STRONG!r} and {WEAK!r}: leave out the strong and the weak model's name, or "
                f"--by-role."
            )
        if not self.tie_margin >= 0.0:
            raise ConfigError(f"The tie margin is {self.tie_margin:g}; it must be 0 or more.")
        if self.strong is not None and self.strong == self.weak:
            raise ConfigError(f"The strong and the weak model are both {self.strong!r}; name two models.")


class Table:
    """A file's rows, under the names of columns that the layouts use.

    Attributes:
        file: its path, or the data set's name.
        found: its columns, under their own names.
    """

    def __init__(self, file: str, mapping: Mapping[str, str]) -> None:
        self.file, self.found = file, column_names(file)
        taken = {name: own for name, own in mapping.items() if own in self.found}
        free = {name: name for name in self.found if name not in taken and name not in taken.values()}
        self._names = {**free, **taken}
        self._default_source = Path(file).stem
        self._texts: dict[str, str] = {}  # rows of one prompt, or of one source, share one string

    @property
    def columns(self) -> list[str]:
        """The names that rows can be asked for."""
        return list(self._names)

    def has(self, *columns: str) -> bool:
        """Whether all of `columns` are there."""
        return all(name in self._names for name in columns)

    def rows(self, *columns: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each row's number and its values of `columns`, and of the optional ones that the file has."""
        wanted = list(dict.fromkeys([*columns, *(name for name in _OPTIONAL if name in self._names)]))
        for number, values in enumerate(read_table(self.file, [self._names[name] for name in wanted]), 1):
            yield number, dict(zip(wanted, values, strict=True))

    def head(self, row: Mapping[str, Any]) -> tuple[str, str] | str:
        """A row's prompt and source, or the reason why the row can't be used."""
        if row.get("contam"):
            return CONTAMINATED
        prompt = prompt_text(row["prompt"])
        source = str(row.get("source") or self._default_source)
        return (self._texts.setdefault(prompt, prompt), self._texts.setdefault(source, source)) if prompt else NO_PROMPT


def read_battles(table: Table, reading: Reading, note: Callable[[str], None]) -> Read:
    """Comparisons of two models by name, with the vote in one column or in three."""
    votes = ("winner",) if table.has("winner") else VOTE_COLUMNS
    for number, row in table.rows("prompt", "model_a", "model_b", *votes):
        label = row["winner"] if "winner" in row else vote([row[name] for name in VOTE_COLUMNS])
        yield number, _comparison(table, number, row, ("model_a", "model_b"), ("winner", label), WINNERS)


def read_pairs(table: Table, reading: Reading, note: Callable[[str], None]) -> Read:
    """Comparisons of a strong and a weak model, by name or by role."""
    for number, row in table.rows("prompt", "strong", "weak", "outcome"):
        found = _comparison(table, number, row, ("strong", "weak"), ("outcome", row["outcome"]), _PAIR_OUTCOMES)
        if reading.by_role and isinstance(found, Preference):
            found = replace(found, first=STRONG, second=WEAK)
        yield number, found


def read_ratings(table: Table, reading: Reading, note: Callable[[str], None]) -> Read:
    """A judge's ratings of the weak model's answers: good enough is a tie, anything below a win of the strong model."""
    strong, weak = reading.strong or STRONG, reading.weak or WEAK
    note(f"{table.file}: ratings from {reading.good_enough:g} on are ties, lower ones are won by {strong!r}")
    for number, row in table.rows("prompt", "rating"):
        head, rating = table.head(row), number_in(table.file, number, "rating", row["rating"])
        if isinstance(head, str) or rating is None:
            yield number, head if isinstance(head, str) else NO_LABEL
            continue
        if not 1 <= rating <= 5:
            raise DataError(f"{table.file}, row {number}: the rating is {rating:g}; ratings go from 1 to 5.")
        yield number, Preference(head[0], strong, weak, "tie" if rating >= reading.good_enough else "first", head[1])


def number_in(file: str, row: int, column: str, value: object) -> float | None:
    """A number, or None for an empty cell or NaN.

    Raises:
        DataError: the cell holds something else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    try:
        found = float(value)  # type: ignore[arg-type]  # what does not convert is told below
    except (TypeError, ValueError):
        raise DataError(f"{file}, row {row}: the {column} is {str(value)[:60]!r}; it must be a number.") from None
    return found if isfinite(found) else None


def _comparison(
    table: Table,
    number: int,
    row: Mapping[str, Any],
    models: tuple[str, str],
    label: tuple[str, Any],
    outcomes: Mapping[str, Outcome],
) -> Preference | str:
    head = table.head(row)
    if isinstance(head, str):
        return head
    if label[1] is None or label[1] == "":
        return NO_LABEL
    if label[1] not in outcomes:
        raise DataError(f"{table.file}, row {number}: the {label[0]} is {label[1]!r}; known are: {', '.join(outcomes)}.")
    first, second = (row[name] for name in models)
    if not isinstance(first, str) or not isinstance(second, str) or not first or not second or first == second:
        return "not two models"
    weight = number_in(table.file, number, "weight", row["weight"]) if "weight" in row else 1.0
    if weight is None or weight <= 0.0:
        return NO_WEIGHT
    return Preference(head[0], first, second, outcomes[label[1]], head[1], weight)
