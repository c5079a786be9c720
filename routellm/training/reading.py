"""From files of preference data to one list of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from routellm.downloads import sha256
from routellm.errors import DataError, did_you_mean
from routellm.routers.battles import VOTE_COLUMNS
from routellm.training.layouts import Read, Reading, Table, read_battles, read_pairs, read_ratings
from routellm.training.overlap import prompt_hash
from routellm.training.preferences import Preferences
from routellm.training.scores import read_long, read_wide

EXCLUDED = "on the list of prompts to leave out"

_Reader: TypeAlias = Callable[[Table, Reading, Callable[[str], None]], Read]
_LAYOUTS: tuple[tuple[tuple[str, ...], _Reader], ...] = (
    (("prompt", "strong", "weak", "outcome"), read_pairs),
    (("prompt", "model_a", "model_b", "winner"), read_battles),
    (("prompt", "model_a", "model_b", *VOTE_COLUMNS), read_battles),
    (("prompt", "model", "score"), read_long),
    (("prompt", "rating"), read_ratings),
)


def read_preferences(
    files: Sequence[str], reading: Reading | None = None, *, exclude: frozenset[str] = frozenset()
) -> Preferences:
    """Read files of preference data (jsonl, csv, parquet, or a hub data set's name), each of a layout of its own.

    Comparisons of the two models that `reading` names have the strong one first.

    Args:
        reading: how; None for the defaults.
        exclude: `overlap.prompt_hash` of prompts that must not be trained on.

    Raises:
        ConfigError: `reading` contradicts itself, or names a model that has no scores.
        DataError: a file can't be read, has no known layout, or holds a label that its layout does not know; or nothing is
            left.
        MissingExtraError: a file's kind needs a package that is not installed.
    """
    reading = reading or Reading()
    reading.check()
    tables = [Table(file, reading.columns) for file in files]
    _check_mapping(tables, reading)
    read = Preferences()
    reverse = (reading.weak, reading.strong)
    for table in tables:
        for number, row in _reader(table, reading)(table, reading, read.notes.append):
            if isinstance(row, str):
                read.dropped[row] += 1
            elif exclude and prompt_hash(row.prompt) in exclude:
                read.dropped[EXCLUDED] += 1
            else:
                read.rows.append(row.turned() if (row.first, row.second) == reverse else row)
                read.files.append(table.file)
                read.numbers.append(number)
    if not read.rows:
        left_out = dict(read.dropped) or "nothing, there are no rows"
        raise DataError(f"No usable row in {', '.join(files)}; left out: {left_out}.")
    return read


def file_hashes(files: Sequence[str]) -> dict[str, str]:
    """Each file's name -> its hash; a data set on the hub has none."""
    return {Path(file).name: f"sha256:{sha256(Path(file))}" if Path(file).is_file() else "hub" for file in files}


def _check_mapping(tables: Sequence[Table], reading: Reading) -> None:
    for name, own in reading.columns.items():
        if not any(own in table.found for table in tables):
            found = list(dict.fromkeys(column for table in tables for column in table.found))
            raise DataError(
                f"No file has the column {own!r}{did_you_mean(own, found)} that was given for {name!r}. "
                f"There are: {', '.join(found) or 'none'}."
            )


def _reader(table: Table, reading: Reading) -> _Reader:
    if not table.found:
        raise DataError(f"{table.file} is empty.")
    if reading.score_columns and table.has("prompt", *reading.score_columns):
        return read_wide
    for columns, reader in _LAYOUTS:
        if table.has(*columns):
            return reader
    if table.has("prompt") and len(table.columns) > 2:
        return read_wide
    layouts = "; ".join(", ".join(columns) for columns, _ in _LAYOUTS)
    raise DataError(
        f"{table.file} has no known layout: it needs the columns {layouts}; or prompt and a column of scores for each model. "
        f"It has: {', '.join(table.found)}. Rename columns by --column prompt=question."
    )
