"""Scores that take longer than an event loop may be held up: a few threads, and lines of prompts before them.

While the threads are busy, prompts queue up, each router's in a line of its own. A thread that comes free takes the next
line's foremost prompts, several at once where the router gains by that, and then it is another line's turn; so a slow router
does not hold up a quicker one's prompts for longer than one call. No timer is involved: a prompt that finds a free thread
starts at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TypeAlias

import msgspec

from routellm.errors import OverloadedError, RouteLLMError
from routellm.routers.routers import Router

logger = logging.getLogger("routellm.serving")

NICENESS = 5
"""Of the threads that score. The event loop's thread stays at 0, and so gets the processor as soon as it has work.

With `bert` saturated by 16 clients on a busy machine of 2 cores, 100 requests a second that `mf` decides took 10 to 11 ms at
the 99th percentile in each of three runs. With the thread at 0 it was 16 to 40 ms; with two threads 15 to 400 ms, and no more
scores a second; with eight the median alone was 97 ms. A shorter switch interval of the interpreter changed nothing.
"""

RETRY_SECONDS = 5.0
"""For how long the failing prompts of one batch may keep a thread."""

Score: TypeAlias = float | Exception
"""A win rate, or why there is none."""

_Waiting: TypeAlias = "asyncio.Future[float]"


class ScoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How slow routers are run, in each worker process.

    Attributes:
        threads: how many calls of slow routers run at once.
        max_batch: how many prompts one call takes at most.
        queued: prompts in line for one router; what comes on top is refused.
    """

    threads: int = 1
    max_batch: int = 16
    queued: int = 256

    def __post_init__(self) -> None:
        for name, most in (("threads", 64), ("max_batch", 1_024), ("queued", 1_000_000)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie from 1 to {most:,}")


class ScorePool:
    """Scores prompts off the event loop. Used from one event loop."""

    def __init__(self, settings: ScoreSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.threads, "routellm-score", initializer=_give_way)
        self._running = 0
        self._lines: OrderedDict[Router, OrderedDict[_Waiting, str]] = OrderedDict()  # whose turn it is comes first

    async def score(self, router: Router, prompt: str) -> float:
        """`router.calculate_strong_win_rate(prompt)`. A caller that is cancelled leaves its line.

        Raises:
            OverloadedError: the router's line is full, or the pool was closed.
            Exception: whatever the router raised on this prompt.
        """
        line = self._lines.setdefault(router, OrderedDict())
        if len(line) >= self._settings.queued:
            raise OverloadedError(
                f"{len(line):,} prompts wait for this router's score already, which is the most that this server lets wait. "
                "Try again later.",
                retry_after=1,
            )
        waiting: _Waiting = asyncio.get_running_loop().create_future()
        line[waiting] = prompt
        try:
            self._start()
            return await waiting
        finally:
            line.pop(waiting, None)

    def depths(self) -> tuple[int, int]:
        """How many calls run, and how many prompts are in line."""
        return self._running, sum(map(len, self._lines.values()))

    def close(self) -> None:
        """Refuse whatever waits, and let the threads end with the calls that they are in."""
        for line in self._lines.values():
            for waiting in line:
                _refuse(waiting)
            line.clear()
        self._threads.shutdown(wait=False)

    def _start(self) -> None:
        while self._running < self._settings.threads:
            router = next((router for router, line in self._lines.items() if line), None)
            if router is None:
                return
            self._lines.move_to_end(router)
            line = self._lines[router]
            most = self._settings.max_batch if router.batches else 1
            batch: list[tuple[_Waiting, str]] = []
            while line and len(batch) < most:
                waiting, prompt = line.popitem(last=False)
                if not waiting.done():  # else its caller has left
                    batch.append((waiting, prompt))
            if not batch:
                continue
            try:
                call = asyncio.get_running_loop().run_in_executor(
                    self._threads, score_all, router, [prompt for _, prompt in batch]
                )
            except RuntimeError:  # closed
                for waiting, _ in batch:
                    _refuse(waiting)
                return
            self._running += 1
            call.add_done_callback(partial(self._finish, router, [waiting for waiting, _ in batch]))

    def _finish(self, router: Router, batch: Sequence[_Waiting], call: asyncio.Future[list[Score]]) -> None:
        self._running -= 1
        self._lines.move_to_end(router)  # behind those that came in the meantime
        died = call.exception()  # what is no Exception, such as a panic of a library in Rust
        scores = call.result() if died is None else [RouteLLMError(f"The router's library broke down: {died!r}")] * len(batch)
        for waiting, score in zip(batch, scores, strict=True):
            if waiting.done():
                continue
            if isinstance(score, Exception):
                waiting.set_exception(score)
            else:
                waiting.set_result(score)
        self._start()


def score_all(router: Router, prompts: Sequence[str]) -> list[Score]:
    """Each prompt's score, or the error that it alone makes the router raise.

    Where the prompts can't be scored together, they are scored one by one, so that one bad prompt does not fail its
    neighbours; but once failing has taken `RETRY_SECONDS`, as with an endpoint that is down, the rest fail as the last did.
    """
    if len(prompts) > 1:
        try:
            rates = router.calculate_strong_win_rates(prompts)
            if len(rates) == len(prompts):
                return [float(rate) for rate in rates]
        except Exception as error:  # noqa: BLE001 - a router may raise anything; below it is told apart whose fault it was
            logger.debug("a batch of %d prompts failed, they are scored one by one: %r", len(prompts), error)
    scores: list[Score] = []
    failing = 0.0
    for prompt in prompts:
        started = perf_counter()
        try:
            scores.append(float(router.calculate_strong_win_rate(prompt)))
        except Exception as error:  # noqa: BLE001 - given to whoever asked for this score
            failing += perf_counter() - started
            scores.append(error if not isinstance(error, StopIteration) else RuntimeError("the router raised StopIteration"))
            if failing > RETRY_SECONDS:
                return scores + [scores[-1]] * (len(prompts) - len(scores))
    return scores


def _refuse(waiting: _Waiting) -> None:
    if not waiting.done():
        waiting.set_exception(OverloadedError("This server is shutting down. Try again later.", retry_after=1))


def _give_way() -> None:
    """Let the event loop's thread have the processor first where there are not enough of them."""
    if sys.platform == "linux":  # where each thread has a priority of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
