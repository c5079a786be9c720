"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from routellm.evals.collecting.engine import Tally
from routellm.evals.collecting.pacing import Clock

_SECONDS_BETWEEN_LINES = 30.0


def say(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def describe(tally: Tally, limit: float | None, priced: bool) -> str:
    """How far a run is, in words: "120/1,307 calls, 2 failed, $0.0412 of at most $5"."""
    parts = [f"{tally.done:,}/{tally.total:,} calls"]
    failed = tally.failed + tally.kept_failed
    if failed:
        parts.append(f"{failed:,} failed")
    if priced:
        parts.append(f"${tally.spent:.4f}" + ("" if limit is None else f" of at most ${limit:g}"))
    else:
        parts.append("cost unknown")
    return ", ".join(parts)


@contextmanager
def progress(limit: float | None, priced: bool, clock: Clock | None = None) -> Iterator[Callable[[Tally], None]]:
    """Show a run; yields what the engine reports to."""
    if sys.stderr.isatty():
        with _bar(limit, priced) as report:
            yield report
        return
    now = (clock or Clock()).now
    said_at = now()

    def report_line(tally: Tally) -> None:
        nonlocal said_at
        if now() - said_at >= _SECONDS_BETWEEN_LINES:
            said_at = now()
            say(describe(tally, limit, priced))

    yield report_line


@contextmanager
def _bar(limit: float | None, priced: bool) -> Iterator[Callable[[Tally], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(tally: Tally) -> None:
            bar.update(task, total=tally.total, completed=tally.done, description=describe(tally, limit, priced))

        yield report
