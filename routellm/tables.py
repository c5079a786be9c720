"""Rows of tables, one interface for jsonl, csv, parquet and text files and for data sets on the hub.

csv, text and jsonl need nothing beyond the core; parquet needs the extra `eval` and the hub the extra `hub`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from routellm.errors import DataError, MissingExtraError, did_you_mean

Rows: TypeAlias = Iterator[tuple[Any, ...]]
"""Rows of a table, each with the values of the columns that were asked for; a value that a row lacks is None."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def read_table(source: str, columns: Sequence[str], split: str = "train") -> Rows:
    """Read `columns` of a table, row by row.

    Args:
        source: a file's path (.jsonl, .csv, .parquet or .txt), or `owner/name` of a data set on the hub.
        columns: names of columns. A text file has one column, its lines, under whatever name is asked for.
        split: which split of a data set on the hub.

    Raises:
        DataError: there is no such file, it is of another kind, broken (the line is named), or lacks a column.
        MissingExtraError: its kind needs a package that is not installed.
    """
    path = Path(source)
    if _is_hub_name(source):
        return _read_hub(source, columns, split)
    rows: Rows = _by_suffix(path, _READERS)(path, columns)
    return rows


def column_names(source: str, split: str = "train") -> list[str]:
    """The names of a table's columns; of a .jsonl file, the fields of its first object. Arguments and errors: `read_table`."""
    path = Path(source)
    if _is_hub_name(source):
        return list(_load_hub(source, split).column_names)
    return list(_by_suffix(path, _HEADERS)(path))


def write_table(path: str | Path, table: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length to a .jsonl, .csv or .parquet file; it appears whole or not at all.

    Raises:
        DataError: the file is of another kind, or can't be written.
        MissingExtraError: its kind needs a package that is not installed.
    """
    path = Path(path)
    write = _by_suffix(path, _WRITERS)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial, table)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise what `write_table` would, as far as that can be told before there is anything to write."""
    path = Path(path)
    _by_suffix(path, _WRITERS)
    if path.suffix == ".parquet":
        _pyarrow()
    if path.is_dir() or not path.parent.is_dir():
        raise DataError(f"{str(path)!r} can't be written: {'it' if path.is_dir() else 'its folder'} is not a file's place.")


def _is_hub_name(source: str) -> bool:
    path = Path(source)
    if path.is_file():
        return False
    if _HUB_NAME.fullmatch(source) and path.suffix not in _READERS:
        return True
    raise DataError(f"There is no file {source!r}. Give a path, or owner/name of a data set on the Hugging Face hub.")


def _by_suffix(path: Path, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return known[path.suffix.lower()]
    except KeyError:
        raise DataError(f"{str(path)!r} is of no known kind; its name must end in {' or '.join(known)}.") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 text ({error.reason}).") from error


def _check_columns(wanted: Iterable[str], found: Iterable[str], where: object) -> None:
    found = list(found)
    for name in wanted:
        if name not in found:
            raise DataError(
                f"{where} has no column {name!r}{did_you_mean(name, found)}. It has: {', '.join(found) or 'none'}."
            )


def _read_text(path: Path, columns: Sequence[str]) -> Rows:
    for _, line in _lines(path):
        yield (line.rstrip("\r\n"),) * len(columns)


def _read_jsonl(path: Path, columns: Sequence[str]) -> Rows:
    checked = False
    for number, line in _lines(path):
        if not line.strip():
            continue
        row = _jsonl_object(path, number, line)
        if not checked:
            _check_columns(columns, row, path)
            checked = True
        yield tuple(row.get(name) for name in columns)


def _jsonl_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)  # unlike msgspec, it takes the lone surrogates that scraped prompts may hold
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno}).") from error
    except RecursionError as error:
        raise DataError(f"{path}, line {number}: not valid JSON (nested too deeply).") from error
    if not isinstance(row, dict):
        raise DataError(f'{path}, line {number}: must be an object, such as {{"prompt": ...}}.')
    return row


def _read_csv(path: Path, columns: Sequence[str]) -> Rows:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses a prompt of 128 KiB
    reader = csv.DictReader((line for _, line in _lines(path)), strict=True)
    try:
        _check_columns(columns, reader.fieldnames or (), path)
        for row in reader:
            if None in row:
                raise DataError(f"{path}, line {reader.line_num}: more values than the header names. Quote commas in values.")
            yield tuple(row.get(name) for name in columns)
    except csv.Error as error:
        raise DataError(f"{path}, in the row from line {reader.line_num + 1} on: not valid CSV ({error}).") from error


def _read_parquet(path: Path, columns: Sequence[str]) -> Rows:
    pyarrow = _pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(columns, file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
                yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read as parquet: {error}") from error


def _read_hub(name: str, columns: Sequence[str], split: str) -> Rows:
    table = _load_hub(name, split)
    _check_columns(columns, table.column_names, f"The data set {name!r}")
    for row in table.select_columns(list(columns)):
        yield tuple(row[column] for column in columns)


def _load_hub(name: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"The data set {name!r} (there is no such file, so it is looked for on the hub)", "hub"
        ) from error
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the library has no common class for what a hub, a network and a file format can do
        raise DataError(
            f"The data set {name!r}, split {split!r}, can't be loaded from the hub: {error}. "
            f"Check the name and the network, or give the path of a file."
        ) from error


def _jsonl_header(path: Path) -> list[str]:
    for number, line in _lines(path):
        if line.strip():
            return list(_jsonl_object(path, number, line))
    return []


def _csv_header(path: Path) -> list[str]:
    try:
        return list(csv.DictReader(line for _, line in _lines(path)).fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{path}, line 1: not valid CSV ({error}).") from error


def _parquet_header(path: Path) -> list[str]:
    pyarrow = _pyarrow()
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read as parquet: {error}") from error


def _write_jsonl(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for values in zip(*table.values(), strict=True):
            file.write(encode(dict(zip(table, values, strict=True))) + b"\n")


def _write_csv(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def _write_parquet(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    pyarrow = _pyarrow()
    pyarrow.parquet.write_table(pyarrow.table({name: list(values) for name, values in table.items()}), path)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("A parquet file", "eval") from error
    return pyarrow


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet, ".txt": _read_text}
_HEADERS: dict[str, Callable[[Path], list[str]]] = {".jsonl": _jsonl_header, ".csv": _csv_header, ".parquet": _parquet_header}
_WRITERS = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
