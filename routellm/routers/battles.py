"""Battles of models on prompts, as columns: the data that `sw_ranking` weighs anew for each prompt.

A data set of battles has the columns `prompt`, `model_a`, `model_b`, and either the three 0/1 columns `winner_model_a`,
`winner_model_b`, `winner_tie` of the published ones or one column `winner`. Its embeddings, if there are any, are another
data set with the column `embeddings`, row for row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from routellm.errors import DataError
from routellm.prompt_files import prompt_text
from routellm.routers.similarity import quantise
from routellm.tables import column_names, read_table

Outcome: TypeAlias = Literal["first", "second", "tie"]

MIN_CHARS = 16
"""Battles on shorter prompts are left out, as in the paper: too little is asked in them."""

WINNERS: dict[str, Outcome] = {
    "model_a": "first",
    "model_b": "second",
    "tie": "tie",
    "tie (bothbad)": "tie",
    "both_bad": "tie",
}
"""What the column `winner` may hold, in the published data sets and in newer ones."""

VOTE_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")
"""The 0/1 columns that stand for `winner` in the published data sets."""

_VOTED = ("model_a", "model_b", "tie")
_YES = frozenset({"1", "1.0", "true"})
_COLUMNS = {"prompt": np.int32, "first": np.int16, "second": np.int16, "points": np.int8, "weight": np.float32}
_POINTS: Mapping[str, int] = {"first": 2, "tie": 1, "second": 0}
_BLOCK = 1024  # rows of embeddings that are held as floats at a time


@dataclass(frozen=True, slots=True)
class Battle:
    """On `prompt`, did the model `first` win, `second`, or neither? `weight` is for how many battles it counts."""

    prompt: str
    first: str
    second: str
    outcome: Outcome
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class BattleTable:
    """Battles as columns of equal length.

    Attributes:
        models: their names, sorted.
        prompt: int32, which prompt, by its place among the prompts' vectors.
        first, second: int16, places in `models`.
        points: int8, half points of the first model: 2 a win, 1 a tie, 0 a loss.
        weight: float32, over 0.
    """

    models: tuple[str, ...]
    prompt: NDArray[np.int32]
    first: NDArray[np.int16]
    second: NDArray[np.int16]
    points: NDArray[np.int8]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, battles: Sequence[Battle], place: Mapping[str, int]) -> BattleTable:
        """Columns of `battles`, whose prompts have their vectors at `place`."""
        models = tuple(sorted({battle.first for battle in battles} | {battle.second for battle in battles}))
        index = {name: number for number, name in enumerate(models)}
        return cls(
            models,
            np.array([place[battle.prompt] for battle in battles], dtype=np.int32),
            np.array([index[battle.first] for battle in battles], dtype=np.int16),
            np.array([index[battle.second] for battle in battles], dtype=np.int16),
            np.array([_POINTS[battle.outcome] for battle in battles], dtype=np.int8),
            np.array([battle.weight for battle in battles], dtype=np.float32),
        )

    @classmethod
    def from_columns(cls, models: Sequence[Any], columns: Mapping[str, NDArray[Any]], prompts: int) -> BattleTable:
        """A table of columns that come from a file, as `columns` gave them, on so many `prompts`.

        Raises:
            DataError: a column is missing, or of another type or length than the others; or it holds what no battle has.
        """
        found = {name: columns[name] for name in _COLUMNS if name in columns}
        if {name: (column.dtype, column.ndim) for name, column in found.items()} != {
            name: (np.dtype(kind), 1) for name, kind in _COLUMNS.items()
        } or len({len(column) for column in found.values()}) != 1:
            shapes = {name: f"{column.dtype}{list(column.shape)}" for name, column in found.items()}
            raise DataError(f"the columns of battles must be {', '.join(_COLUMNS)}, of one length; found: {shapes}.")
        table = cls(tuple(map(str, models)), **found)
        in_range = (
            _within(table.prompt, prompts)
            and _within(table.first, len(models))
            and _within(table.second, len(models))
            and _within(table.points, 3)
            and bool(np.all(table.weight > 0.0))
        )
        if not in_range:
            raise DataError("a column of battles holds a prompt, a model, points or a weight that can't be.")
        return table

    def __len__(self) -> int:
        return len(self.prompt)

    def columns(self) -> dict[str, NDArray[Any]]:
        """All but `models`, by name."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def joined(self, other: BattleTable, prompts: int) -> BattleTable:
        """These battles and then those of `other`, whose vectors come after the `prompts` vectors of these."""
        models = tuple(sorted({*self.models, *other.models}))
        places = [np.array([models.index(name) for name in table.models], dtype=np.int16) for table in (self, other)]
        return BattleTable(
            models,
            np.concatenate((self.prompt, other.prompt + np.int32(prompts))),
            np.concatenate((places[0][self.first], places[1][other.first])),
            np.concatenate((places[0][self.second], places[1][other.second])),
            np.concatenate((self.points, other.points)),
            np.concatenate((self.weight, other.weight)),
        )


def _within(column: NDArray[np.signedinteger[Any]], end: int) -> bool:
    return bool(np.all((column >= 0) & (column < end)))


def usable_battles(battles: Iterable[Battle]) -> list[Battle]:
    """Those on prompts of at least `MIN_CHARS` characters.

    Raises:
        DataError: one is of a model with itself, its outcome is unknown, or its weight is not a number over 0.
    """
    kept = []
    for battle in battles:
        if battle.first == battle.second or battle.outcome not in _POINTS:
            raise DataError(
                f"A battle is of two models, with the outcome first, second or tie; not {battle.first!r}, {battle.second!r}, "
                f"{battle.outcome!r}."
            )
        if not 0.0 < battle.weight < math.inf:
            raise DataError(f"A battle's weight is {battle.weight!r}; it must be a number over 0.")
        if len(battle.prompt) >= MIN_CHARS:
            kept.append(battle)
    return kept


def read_battles(source: str) -> Iterator[Battle | None]:
    """The battles of a data set (a file, or a name on the hub), row by row; None for a row that can't be used: its prompt is
    short or missing, or it is not of two models.

    Raises:
        DataError: it can't be read, lacks a column, or names a winner that is unknown.
        MissingExtraError: its kind needs a package that is not installed.
    """
    winners = ["winner"] if "winner" in column_names(source) else list(VOTE_COLUMNS)
    for number, row in enumerate(read_table(source, ["prompt", "model_a", "model_b", *winners]), 1):
        first, second = row[1], row[2]
        winner = row[3] if len(winners) == 1 else vote(row[3:])
        if winner not in WINNERS:
            raise DataError(f"{source}, row {number}: the winner is {winner!r}; known are: {', '.join(WINNERS)}.")
        prompt = prompt_text(row[0])
        named = isinstance(first, str) and isinstance(second, str) and first != second
        yield Battle(prompt, first, second, WINNERS[winner]) if named and len(prompt) >= MIN_CHARS else None


def read_embedded_battles(battles: str, embeddings: str) -> tuple[BattleTable, NDArray[np.int8]]:
    """The usable battles of a data set, and out of another one their prompts' vectors: int8, shape (distinct prompts, width).

    Raises:
        DataError: as `read_battles`; or the two differ in length, or a row of embeddings is not as wide as the others or holds
            something else than finite numbers.
    """
    kept: list[Battle] = []
    place: dict[str, int] = {}
    blocks: list[NDArray[np.int8]] = []
    waiting: list[NDArray[np.float32]] = []
    count: Counter[str] = Counter()
    for battle, embedding in zip_longest(
        ((battle,) for battle in read_battles(battles)), read_table(embeddings, ["embeddings"])
    ):
        count.update(battles=battle is not None, embeddings=embedding is not None)
        if battle is None or embedding is None or battle[0] is None:
            continue  # where one has ended, the other is read on for its length
        kept.append(battle[0])
        if battle[0].prompt not in place:
            place[battle[0].prompt] = len(place)
            waiting.append(_vector(embedding[0], f"{embeddings}, row {count['embeddings']}", waiting, blocks))
        if len(waiting) == _BLOCK:
            blocks.append(quantise(np.array(waiting)))
            waiting = []
    if count["battles"] != count["embeddings"]:
        raise DataError(
            f"{battles} has {count['battles']:,} rows and {embeddings} has {count['embeddings']:,}: embeddings belong to "
            f"battles row for row, so the lengths must agree."
        )
    if waiting:
        blocks.append(quantise(np.array(waiting)))
    return BattleTable.of(kept, place), np.concatenate(blocks) if blocks else np.empty((0, 0), dtype=np.int8)


def _vector(
    value: object, where: str, waiting: list[NDArray[np.float32]], blocks: list[NDArray[np.int8]]
) -> NDArray[np.float32]:
    try:
        vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the embedding is no list of numbers: {error}.") from error
    if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
        raise DataError(f"{where}: the embedding must be a list of finite numbers.")
    width = waiting[0].shape[0] if waiting else blocks[0].shape[1] if blocks else len(vector)
    if len(vector) != width:
        raise DataError(f"{where}: the embedding has {len(vector)} numbers, those before it {width}.")
    return vector


def vote(votes: Sequence[Any]) -> str | None:
    """The winner by the values of `VOTE_COLUMNS`; None where none of them says yes."""
    return next((winner for winner, value in zip(_VOTED, votes, strict=True) if str(value).lower() in _YES), None)
