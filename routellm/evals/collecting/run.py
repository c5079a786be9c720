"""One run of the engine from a command: journal, signals, progress, and a summary that says how to go on."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from routellm.commands import FAILURE, INTERRUPTED, OK
from routellm.evals.collecting.chat import ChatModel
from routellm.evals.collecting.conversations import Conversation
from routellm.evals.collecting.engine import Engine, Job, Tally
from routellm.evals.collecting.journal import Journal, Row
from routellm.evals.collecting.options import Asked
from routellm.evals.collecting.pacing import Pace, Retries
from routellm.evals.collecting.prices import Budget
from routellm.evals.collecting.progress import describe, progress, say

_BY_SIGNAL = "interrupted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the journal's rows that belong to it, and the exit code that the command should give."""

    rows: list[Row]
    code: int


def ask_all(
    arguments: argparse.Namespace, asked: Asked, job: Job, conversations: Sequence[Conversation], journal_path: str
) -> Outcome:
    """Ask what the journal does not hold yet, and say on stderr how it goes.

    Ctrl-C (or SIGTERM) makes no new call and waits for those under way; a second one breaks them off.

    Raises:
        ConfigError, DataError: see `Journal`.
        CallError: see `Engine.run`; what was finished is kept.
    """
    with Journal(journal_path, job.source, job.model, job.parameters) as journal:
        if journal.torn:
            say(f"{journal_path}: dropped a last line that was torn off ({journal.torn:,} bytes); its call is made again.")
        if asked.price is None:
            say(f"The price of {job.model} is not known here; give --price-in and --price-out to see what the calls cost.")
        engine = Engine(
            job,
            ChatModel(asked.upstream, asked.parameters, asked.secrets),
            journal,
            concurrency=arguments.concurrency,
            requests=Pace(arguments.requests_per_minute),
            tokens=Pace(arguments.tokens_per_minute),
            retries=Retries(arguments.max_tries),
            price=asked.price,
            budget=Budget(arguments.max_cost),
            retry_failed=arguments.retry_failed,
            give_up_after=arguments.give_up_after,
        )
        priced = asked.price is not None
        try:
            with progress(arguments.max_cost, priced) as engine.report:
                tally = asyncio.run(_run(engine, asked, conversations))
        finally:
            say(describe(engine.tally, arguments.max_cost, priced))
        wanted = {job.key(one, turn) for one in conversations for turn in range(1, len(one.turns) + 1)}
        rows = [row for row in journal.rows() if row.key in wanted]
    return Outcome(rows, _conclude(engine, tally, journal_path))


async def _run(engine: Engine, asked: Asked, conversations: Sequence[Conversation]) -> Tally:
    try:
        with _signals(engine):
            return await engine.run(conversations)
    finally:
        await asked.upstream.aclose()


def _conclude(engine: Engine, tally: Tally, path: str) -> int:
    if tally.cut:
        say(f"{tally.cut:,} answers were cut off at the longest length; raise --max-tokens in another file to avoid that.")
    failed = tally.failed + tally.kept_failed
    if failed:
        say(f"{failed:,} calls failed; each says why in {path}. The same command with --retry-failed asks them again.")
    if engine.why_stopped is not None:
        say(f"Stopped: {engine.why_stopped}. What is finished is kept in {path}; the same command goes on from there.")
        return INTERRUPTED if engine.why_stopped == _BY_SIGNAL else FAILURE
    return FAILURE if failed else OK


@contextmanager
def _signals(engine: Engine) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an orderly stop while the engine runs."""
    loop = asyncio.get_running_loop()

    again = False

    def stop() -> None:
        nonlocal again
        if again:
            engine.abandon()
            return
        again = True
        say("Stopping: waiting for the calls under way. Ctrl-C again breaks them off.")
        engine.stop(_BY_SIGNAL)

    handled: list[signal.Signals] = []
    try:
        for number in (signal.SIGINT, signal.SIGTERM) if sys.platform != "win32" else ():
            loop.add_signal_handler(number, stop)
            handled.append(number)
    except (RuntimeError, ValueError):  # not in the main thread: who runs this there has means of their own to stop it
        handled.clear()
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
