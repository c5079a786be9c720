"""The file of finished calls: append-only jsonl that survives a kill at any moment.

Each line is a `Row`, written and synced to disk when its call is finished. A line that was torn off by a kill or a crash is
dropped when the file is next opened; its call is made again. One process at a time may write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from routellm.errors import ConfigError, DataError, MissingExtraError

_BEGINNING = b'{"key":"'


class Failure(msgspec.Struct, frozen=True):
    """Why a call failed; `status` is the endpoint's, None where it gave no answer."""

    status: int | None
    message: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the endpoint counted them; `cached` of the prompt's were cheaper."""

    prompt_tokens: int
    completion_tokens: int
    cached: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One finished call.

    Attributes:
        key: hash of the source, the conversation so far, the model and the parameters.
        source: the benchmark or the file that the prompt is from.
        model: the model as the user named it.
        parameters: what was asked of it: temperature, max_tokens, a system prompt, ...
        prompt: what the conversation is known by.
        turn: which of the user's turns this call answers, from 1; `turns` is how many there are.
        question: the text of that turn.
        status: "ok", or "failed" where every try failed.
        response: the answer's text; None where the call failed.
        error: why it failed.
        finish_reason: the endpoint's: "stop", "length", ...
        served_model: the model's name in the reply.
        usage: None where the reply held none.
        cost: dollars; None where the price is not known, and an upper bound where the usage is not.
        tries: how often it was asked.
        at: when it was finished, as ISO 8601 in UTC.
        labels: what the conversation brought along.
    """

    key: str
    source: str
    model: str
    parameters: dict[str, Any]
    prompt: str
    turn: int
    turns: int
    question: str
    status: Literal["ok", "failed"]
    response: str | None = None
    error: Failure | None = None
    finish_reason: str | None = None
    served_model: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    tries: int = 1
    at: str = ""
    labels: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Row).decode


def call_key(source: str, identity: Sequence[str], turns: Sequence[str], model: str, parameters: Mapping[str, Any]) -> str:
    """The key of the call that answers the last of `turns`: equal for equal calls, in any process."""
    parts = [source, list(identity), list(turns), model, dict(parameters)]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]


def read_rows(path: str | Path) -> list[Row]:
    """The finished calls of a file, the last one of each key; a torn last line is passed over.

    Raises:
        DataError: the file can't be read, or is something else.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{str(path)!r} can't be read: {error.strerror or error}.") from error
    return list(_parse(content, path)[0].values())


class Journal:
    """An open file of finished calls. A context manager: the file is locked against other processes while it is open.

    Args:
        path: the file, made where it is missing.
        source, model, parameters: what is about to be asked.

    Attributes:
        torn: bytes of a torn last line that were dropped.

    Raises:
        ConfigError: another process writes to the file, or it holds calls of another source, model or other parameters.
        DataError: the file can't be written, or is something else.
        MissingExtraError: the package that locks files is not installed.
    """

    def __init__(self, path: str | Path, source: str, model: str, parameters: Mapping[str, Any]) -> None:
        self.path = Path(path)
        if self.path.suffix != ".jsonl":
            raise ConfigError(f"The file of answers is {str(path)!r}; its name must end in .jsonl.")
        self._lock = _lock(self.path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            self._lock.release()
            raise DataError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error
        try:
            self._rows, self.torn = self._load()
            _check_same(self.path, self._rows.values(), source, model, parameters)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Row | None:
        """The finished call of this key."""
        return self._rows.get(key)

    def rows(self) -> list[Row]:
        """Every finished call."""
        return list(self._rows.values())

    def append(self, row: Row) -> None:
        """Write a finished call; it is on the disk when this returns.

        Raises:
            DataError: it can't be written (a full disk, say).
        """
        line = _encode(row) + b"\n"
        size = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)  # or else the next row would be written behind half a line
            raise DataError(f"{str(self.path)!r} can't be written: {error.strerror or error}.") from error
        self._rows[row.key] = row

    def close(self) -> None:
        """Close the file and let others have it."""
        os.close(self._file)
        self._lock.release()

    def _load(self) -> tuple[dict[str, Row], int]:
        content = self.path.read_bytes()
        rows, whole = _parse(content, self.path)
        torn = len(content) - whole
        if torn:
            os.ftruncate(self._file, whole)
        elif content and not content.endswith(b"\n"):
            os.write(self._file, b"\n")  # only the line's end was torn off
        return rows, torn


def _parse(content: bytes, path: str | Path) -> tuple[dict[str, Row], int]:
    """The rows by key, and the length of what is whole."""
    rows: dict[str, Row] = {}
    *lines, last = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _read_row(line, f"{path}, line {number}")
            rows[row.key] = row
    if not last:
        return rows, len(content)
    try:
        row = _decode(last)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if last.startswith(_BEGINNING) or _BEGINNING.startswith(last) or not last.strip(b"\0"):
            return rows, len(content) - len(last)
        raise DataError(f"{path}, last line: not a finished call. {_OTHER_FILE}") from None
    rows[row.key] = row
    return rows, len(content)


_OTHER_FILE = "Is this a file that `routellm responses` or `routellm judge` wrote?"


def _read_row(line: bytes, where: str) -> Row:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not a finished call ({error}). {_OTHER_FILE}") from None


def _check_same(path: Path, rows: Iterable[Row], source: str, model: str, parameters: Mapping[str, Any]) -> None:
    now = {"source": source, "model": model, **parameters}
    for row in rows:
        then = {"source": row.source, "model": row.model, **row.parameters}
        if then != now:
            names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
            changes = ", ".join(f"{name} was {then.get(name)!r:.80} and is now {now.get(name)!r:.80}" for name in names)
            raise ConfigError(
                f"{str(path)!r} holds answers that were asked for differently: {changes}. One file holds one kind: repeat "
                f"the arguments of the first run, or give another file."
            )


def _lock(path: Path) -> Any:
    try:
        import filelock
    except ImportError as error:
        raise MissingExtraError("Locking a file of answers", "eval") from error
    if not path.parent.is_dir():
        raise DataError(f"{str(path)!r} can't be written: there is no folder {str(path.parent)!r}.")
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"Another process is writing to {str(path)!r}. Wait for it to end, or give this one another file."
        ) from None
    except OSError as error:
        raise DataError(f"{str(path)!r} can't be written: {error.strerror or error}.") from error
    return lock
