"""The engine that asks a model many things: several at once, at the allowed pace, again where a try failed, within a budget.

It serves `routellm responses` and `routellm judge` alike. Whatever is finished is in the journal; what the journal already
holds is not asked again. A stop (Ctrl-C, the budget, a hopeless error) lets calls under way come to their end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from routellm.errors import RouteLLMError
from routellm.evals.collecting.chat import Answer, CallError, ChatModel
from routellm.evals.collecting.conversations import Conversation
from routellm.evals.collecting.journal import Failure, Journal, Row, Usage, call_key
from routellm.evals.collecting.pacing import Clock, Pace, Retries
from routellm.evals.collecting.prices import Budget, Price

REPLY_LIMITS = ("max_completion_tokens", "max_tokens")
"""The request's fields that bound an answer's length, the one that counts first."""

_TOKENS_AROUND = 16
"""Tokens that a message may take beside its text."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all calls of one run have in common; `parameters` are fields of the request, and `system` a system message."""

    source: str
    model: str
    parameters: Mapping[str, Any]

    def key(self, conversation: Conversation, turn: int) -> str:
        """The key of the call that answers a turn (from 1)."""
        turns = conversation.turns[:turn]
        return call_key(self.source, conversation.identity, turns, self.model, self.parameters)


@dataclass(slots=True)
class Tally:
    """How far a run is, in calls. `kept` were in the journal before, `kept_failed` of them as failed; `cut` answers hit the
    limit of their length. `spent` are the dollars of all calls in the journal."""

    total: int = 0
    kept: int = 0
    kept_failed: int = 0
    answered: int = 0
    failed: int = 0
    cut: int = 0
    spent: float = 0.0

    @property
    def done(self) -> int:
        """Calls that are finished, now or before."""
        return self.kept + self.answered + self.failed


@dataclass(slots=True)
class _Worker:
    task: asyncio.Task[None] | None = None
    sending: bool = False


@dataclass
class Engine:
    """Asks a model a list of conversations.

    Attributes:
        job, model, journal: what to ask, whom, and where finished calls go.
        concurrency: how many calls are under way at once, at most.
        requests, tokens: what may go out a minute.
        retries: what is done about tries that fail.
        price: None where it is not known.
        budget: dollars. A call's upper bound is a token for each byte of its text (no tokeniser makes more), and as many
            tokens of answer as are allowed. Tries that fail are counted as free, since no usage comes with an error.
        retry_failed: ask again what the journal holds as failed.
        give_up_after: stop when so many calls in a row have failed; 0 for never.
        report: called with the tally after each finished call.
    """

    job: Job
    model: ChatModel
    journal: Journal
    concurrency: int = 8
    requests: Pace = field(default_factory=lambda: Pace(None))
    tokens: Pace = field(default_factory=lambda: Pace(None))
    retries: Retries = field(default_factory=Retries)
    price: Price | None = None
    budget: Budget = field(default_factory=Budget)
    retry_failed: bool = False
    give_up_after: int = 25
    report: Callable[[Tally], None] = lambda tally: None
    clock: Clock = field(default_factory=Clock)
    tally: Tally = field(default_factory=Tally, init=False)
    why_stopped: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._workers: list[_Worker] = []
        self._error: RouteLLMError | None = None
        self._failed_in_a_row = 0

    async def run(self, conversations: Iterable[Conversation]) -> Tally:
        """Ask everything that is not in the journal yet.

        Raises:
            CallError: every other call would fail as this one did, or too many in a row failed.
            RouteLLMError: a call can't be made (no key), or can't be written down.
        """
        waiting = list(conversations)
        self.tally.total = sum(len(conversation.turns) for conversation in waiting)
        self.tally.spent = self.budget.spent = sum(row.cost or 0.0 for row in self.journal.rows())
        self.report(self.tally)
        queue = iter(waiting)
        self._workers = [_Worker() for _ in range(min(self.concurrency, len(waiting)))]
        for worker in self._workers:
            worker.task = asyncio.create_task(self._work(queue, worker))
        await _all([worker.task for worker in self._workers if worker.task is not None])
        if self._error is not None:
            raise self._error
        return self.tally

    def stop(self, why: str) -> None:
        """Make no new call; those under way come to their end. The first reason given stays."""
        if self.why_stopped is not None:
            return
        self.why_stopped = why
        for worker in self._workers:
            if worker.task is not None and not worker.sending and worker.task is not asyncio.current_task():
                worker.task.cancel()

    def abandon(self) -> None:
        """Break off the calls under way as well."""
        for worker in self._workers:
            if worker.task is not None:
                worker.task.cancel()

    async def _work(self, queue: Iterator[Conversation], worker: _Worker) -> None:
        for conversation in queue:
            if self.why_stopped is not None:
                return
            try:
                await self._converse(conversation, worker)
            except RouteLLMError as error:
                self._error = self._error or error
                self.stop(str(error))
                return

    async def _converse(self, conversation: Conversation, worker: _Worker) -> None:
        answers: list[str] = []
        for turn in range(1, len(conversation.turns) + 1):
            row = self.journal.get(self.job.key(conversation, turn))
            if row is not None and (row.status == "ok" or not self.retry_failed):
                self.tally.kept += 1
                self.tally.kept_failed += row.status == "failed"
            else:
                row = await self._call(conversation, turn, answers, worker)
                if row is None:
                    return
                self._record(row)
            if row.response is None:  # what comes after an answer that is missing can't be asked
                return
            answers.append(row.response)

    async def _call(self, conversation: Conversation, turn: int, answers: list[str], worker: _Worker) -> Row | None:
        """Ask, as often as it takes; None where the run was stopped before there was an end to it."""
        body = self.model.body(conversation.turns[:turn], answers)
        most = self._most(body)
        number = 0
        while self.why_stopped is None:
            number += 1
            try:
                answer = await self._try(body, most, worker)
            except CallError as error:
                if error.hopeless:
                    raise
                pause = self.retries.pause(number, error.retry_after) if error.passing else None
                if pause is None:
                    failure = Failure(error.status, str(error))
                    return self._row(conversation, turn, status="failed", error=failure, tries=number)
                if error.retry_after and error.status in (429, 503):
                    self.requests.hold(error.retry_after)  # the limit is the account's, not this call's
                await self._pause(pause)
                continue
            if answer is None:
                return None
            return self._row(
                conversation,
                turn,
                status="ok",
                response=answer.text,
                finish_reason=answer.finish_reason,
                served_model=answer.model,
                usage=answer.usage,
                cost=self._cost(answer.usage or most),
                tries=number,
            )
        return None

    async def _try(self, body: bytes, most: Usage, worker: _Worker) -> Answer | None:
        """One request; None where the budget has no room for it."""
        dollars = self._cost(most) or 0.0
        if not await self.budget.reserve(dollars):
            self.stop(f"the next call may cost ${dollars:.4f}, and ${self.budget.spent:.4f} of the limit is spent")
            return None
        cost = 0.0
        guess = len(body) / 4 + most.completion_tokens
        try:
            await self.requests.take()
            await self.tokens.take(guess)
            if self.why_stopped is not None:
                return None
            worker.sending = True
            answer = await self.model.ask(body)
            used = answer.usage or most
            cost = self._cost(used) or 0.0
            self.tokens.correct(used.prompt_tokens + used.completion_tokens - guess)
            return answer
        finally:
            worker.sending = False
            self.budget.settle(dollars, cost)

    async def _pause(self, seconds: float) -> None:
        if self.why_stopped is None:
            await self.clock.sleep(seconds)

    def _most(self, body: bytes) -> Usage:
        """More tokens than a request can take."""
        limits = (self.job.parameters.get(name) for name in REPLY_LIMITS)
        return Usage(len(body) + _TOKENS_AROUND, next((limit for limit in limits if isinstance(limit, int)), 0))

    def _cost(self, usage: Usage) -> float | None:
        return None if self.price is None else self.price(usage)

    def _row(self, conversation: Conversation, turn: int, **outcome: Any) -> Row:
        return Row(
            key=self.job.key(conversation, turn),
            source=self.job.source,
            model=self.job.model,
            parameters=dict(self.job.parameters),
            prompt=conversation.prompt,
            turn=turn,
            turns=len(conversation.turns),
            question=conversation.turns[turn - 1],
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            labels=dict(conversation.labels),
            **outcome,
        )

    def _record(self, row: Row) -> None:
        self.journal.append(row)
        self.tally.spent = self.budget.spent
        if row.status == "failed":
            self.tally.failed += 1
            self._failed_in_a_row += 1
        else:
            self.tally.answered += 1
            self._failed_in_a_row = 0
            self.tally.cut += row.finish_reason == "length"
        self.report(self.tally)
        if self.give_up_after and self._failed_in_a_row >= self.give_up_after and row.error is not None:
            raise CallError(f"{self._failed_in_a_row} calls in a row failed, the last with: {row.error.message}")


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for tasks of which `Engine.stop` may cancel some; an exception in one, which is a mistake here, ends all."""
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()
