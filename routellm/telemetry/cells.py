"""Numbers that outlive the process that counted them, and that other processes can read while it counts.

Each worker process counts in a file of its own, mapped into its memory, so that counting is an addition to an array and waits
for nobody. Whoever is asked for the sums reads everybody's files. A worker holds a lock on its file for as long as it lives;
the system takes it back however the worker ends. A new worker goes on in a file whose worker died: nothing that was counted
is lost, and there are never more files than there were workers at once.

In a worker's `N.index` stands a line of JSON for each row, in order: its family, its labels, its width. The rows' numbers
follow each other in `N.cells`, as 64-bit floats.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import mmap
import os
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from routellm.errors import ConfigError

logger = logging.getLogger("routellm.telemetry")

Row: TypeAlias = tuple[str, tuple[str, ...]]
"""A family's name, and its labels' values in the family's order."""

_CELLS = 1 << 16  # half a MiB: dozens of models and routers
_SPILL = 64  # cells at the beginning that belong to no row


class _Line(msgspec.Struct, array_like=True):
    family: str
    labels: tuple[str, ...]
    width: int


@dataclass(slots=True)
class Page:
    """What one worker counted. `alive` is whether it still runs."""

    alive: bool
    rows: dict[Row, array[float]] = field(default_factory=dict)


class Cells:
    """Rows of numbers, this process's to write and everybody's to read.

    For one thread, but for `read`, which any thread may call.

    Args:
        directory: where the workers of one server have their files, and nobody else has any; None keeps the numbers in this
            process's memory.
        passing: families that tell of a process's present state; where a worker goes on in a file, it finds them at 0.

    Attributes:
        values: the numbers; `values[row(...)]` is a row's first one.

    Raises:
        ConfigError: the directory can't be used.
    """

    def __init__(self, directory: Path | None = None, passing: Collection[str] = ()) -> None:
        self._directory = directory
        self._places: dict[Row, tuple[int, int]] = {}
        self._used = _SPILL
        self._index: IO[bytes] | None = None
        self._open = contextlib.ExitStack()
        try:
            memory = self._own_file(directory) if directory is not None else mmap.mmap(-1, 8 * _CELLS)
        except OSError as error:
            self._open.close()
            raise ConfigError(f"The directory {str(directory)!r} can't hold metrics: {error.strerror or error}.") from error
        self._open.callback(memory.close)
        self.values = memoryview(memory).cast("d")
        self._open.callback(self.values.release)
        for (family, _), (start, width) in self._places.items():
            if family in passing:
                self.values[start : start + width] = array("d", bytes(8 * width))

    def row(self, family: str, labels: tuple[str, ...], width: int) -> int:
        """The place of a row's first number; a row that is new starts with `width` zeros.

        Where there is no room left, it is a place that nobody reads.
        """
        found = self._places.get((family, labels))
        if found is not None:
            return found[0]
        start = self._used
        if start + width <= _CELLS and self._note(_Line(family, labels, width)):
            self._used += width
        else:
            logger.error("no room is left for metrics: %s%r is not counted", family, labels)
            start = 0
        self._places[family, labels] = (start, width)
        return start

    def rows(self, family: str) -> list[int]:
        """The places of the first numbers of all this process's rows of a family."""
        return [start for (name, _), (start, _) in self._places.items() if name == family]

    def read(self) -> Iterator[Page]:
        """What every worker has counted up to now, those that are gone included."""
        if self._directory is None:
            places = self._places.copy()  # at once: another thread may be adding one
            yield Page(
                True, {row: array("d", self.values[start : start + width]) for row, (start, width) in places.items() if start}
            )
            return
        for path in sorted(self._directory.glob("*.cells")):
            lines, _ = _read_index(path.with_suffix(".index"))
            with path.open("rb") as file:
                alive = _is_locked(file)
                file.seek(8 * _SPILL)
                numbers = array("d", file.read(8 * sum(line.width for line in lines)))
            starts = itertools.accumulate((line.width for line in lines), initial=0)
            yield Page(
                alive,
                {
                    (line.family, line.labels): numbers[start : start + line.width]
                    for line, start in zip(lines, starts, strict=False)
                },
            )

    def close(self) -> None:
        """Let go of the files; what was counted stays in them. Nothing may be counted any more."""
        self._open.close()

    def _note(self, line: _Line) -> bool:
        """Add a line to the index, where there is one; False where the disk is full."""
        if self._index is None:
            return True
        size = os.fstat(self._index.fileno()).st_size
        content = msgspec.json.encode(line) + b"\n"
        try:
            if self._index.write(content) == len(content):
                return True
        except OSError as error:
            logger.error("can't write %s: %s", self._index.name, error)
        self._index.truncate(size)
        return False

    def _own_file(self, directory: Path) -> mmap.mmap:
        """The mapped cells of the first file that no living worker holds, and its rows."""
        for number in itertools.count():
            path = directory / f"{number}.cells"
            file = self._open.enter_context(path.open("a+b"))
            if _lock(file):
                break
            self._open.pop_all().close()
        # Written out, since a mapped page that a full disk has no room for ends the process that touches it.
        file.write(bytes(8 * _CELLS - file.seek(0, os.SEEK_END)))
        file.flush()
        path = path.with_suffix(".index")
        lines, size = _read_index(path)
        self._index = self._open.enter_context(path.open("ab", buffering=0))
        self._index.truncate(size)  # a line that its writer did not live to end is no line
        for line in lines:
            self._places[line.family, line.labels] = (self._used, line.width)
            self._used += line.width
        return mmap.mmap(file.fileno(), 8 * _CELLS)


def _read_index(path: Path) -> tuple[list[_Line], int]:
    """The whole lines of an index, and how many bytes they take."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    size = content.rfind(b"\n") + 1
    return [msgspec.json.decode(line, type=_Line) for line in content[:size].splitlines()], size


def _lock(file: IO[bytes]) -> bool:
    """Take a file for as long as it stays open in this process; False where another has it."""
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise ConfigError("Metrics of several workers take a system with POSIX file locks, such as Linux or macOS.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(file: IO[bytes]) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
