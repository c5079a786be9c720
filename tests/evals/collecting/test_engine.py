from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest

from routellm.errors import DataError
from routellm.evals.collecting.chat import CallError
from routellm.evals.collecting.engine import Engine
from routellm.evals.collecting.journal import Journal, Row, Usage
from routellm.evals.collecting.pacing import Pace, Retries
from routellm.evals.collecting.prices import fixed_price
from tests.evals.collecting.stage import (
    PARAMETERS,
    FakeClock,
    asked,
    by_prompt,
    collect,
    completion,
    conversations,
    echo,
    error,
    question_of,
)
from tests.live import DIE, STALL, Gate, LiveServer, Recorded, Reply, closed_port_url

PROMPTS = [f"question {number}" for number in range(12)]


class FirstTriesFail:
    """Fails the first tries of each question, then echoes it."""

    def __init__(self, failing: Reply, tries: int = 1) -> None:
        self._failing, self._tries = failing, tries
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Recorded) -> Reply:
        with self._lock:
            self._seen[question_of(request)] += 1
            if self._seen[question_of(request)] <= self._tries:
                return self._failing
        return echo(request)


def test_every_question_is_asked_once_and_written_with_all_about_it(live: LiveServer, tmp_path: Path) -> None:
    live.answer = echo
    path = tmp_path / "a.jsonl"
    _, tally = collect(live, path, conversations(*PROMPTS), price=fixed_price(1e6, 1e6))
    assert (tally.total, tally.done, tally.answered, tally.failed, tally.spent) == (12, 12, 12, 0, 84.0)
    assert asked(live) == Counter(PROMPTS)
    rows = by_prompt(path)
    assert set(rows) == set(PROMPTS)
    row = rows["question 3"]
    assert (row.response, row.status, row.tries, row.cost) == ("re: question 3", "ok", 1, 7.0)
    assert (row.usage, row.served_model, row.finish_reason) == (Usage(5, 2), "m-1", "stop")
    assert (row.source, row.model, row.parameters) == ("test", "openai/m", PARAMETERS)


def test_a_second_run_asks_nothing(live: LiveServer, tmp_path: Path) -> None:
    live.answer = echo
    path = tmp_path / "a.jsonl"
    collect(live, path, conversations(*PROMPTS[:8]))
    _, tally = collect(live, path, conversations(*PROMPTS))
    assert (tally.kept, tally.answered) == (8, 4)
    assert asked(live) == Counter(PROMPTS)


def test_later_turns_see_the_answers_before_and_are_kept_each(live: LiveServer, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    live.answer = lambda request: error(400) if question_of(request) == "second" else echo(request)
    _, tally = collect(live, path, conversations(("first", "second", "third"), "other"))
    assert (tally.total, tally.answered, tally.failed) == (4, 2, 1)  # what comes after a failure is not asked
    live.answer = echo
    _, tally = collect(live, path, conversations(("first", "second", "third"), "other"), retry_failed=True)
    assert (tally.kept, tally.answered) == (2, 2)
    assert asked(live) == {"first": 1, "second": 2, "third": 1, "other": 1}
    assert live.requests[-1].json["messages"] == [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "re: first"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "re: second"},
        {"role": "user", "content": "third"},
    ]


@pytest.mark.parametrize(
    "failing",
    [
        error(429, headers={"retry-after": "0.001"}),
        error(429),
        error(408),
        error(503, headers={"retry-after": "0.001"}),
        Reply([DIE]),
        Reply([b'{"choices": [{"mess', DIE], headers={"content-type": "application/json"}),
    ],
)
def test_storms_and_resets_are_sat_out(live: LiveServer, tmp_path: Path, failing: Reply) -> None:
    live.answer = FirstTriesFail(failing, tries=2)
    path = tmp_path / "a.jsonl"
    _, tally = collect(live, path, conversations(*PROMPTS))
    assert (tally.answered, tally.failed) == (12, 0)
    assert {row.tries for row in by_prompt(path).values()} == {3}
    assert set(asked(live).values()) == {3}


def test_a_model_that_falls_silent_is_asked_again(live: LiveServer, tmp_path: Path) -> None:
    live.answer = FirstTriesFail(Reply([STALL]))
    _, tally = collect(live, tmp_path / "a.jsonl", conversations(*PROMPTS[:4]), timeout=0.3)
    assert tally.answered == 4


class RememberingPace(Pace):
    """Knows for how long it was held."""

    def hold(self, seconds: float) -> None:
        self.held = [*getattr(self, "held", []), seconds]
        super().hold(seconds)


def test_the_pause_that_the_endpoint_asks_for_is_kept_by_all_calls(live: LiveServer, tmp_path: Path) -> None:
    fake = FakeClock()
    live.answer = FirstTriesFail(error(429, headers={"retry-after": "7"}))
    pace = RememberingPace(None, fake.clock)
    _, tally = collect(
        live, tmp_path / "a.jsonl", conversations("a", "b"), concurrency=1, clock=fake.clock, requests=pace, retries=Retries(3)
    )
    assert tally.answered == 2
    assert fake.time >= 14.0  # once for each question
    assert pace.held == [7.0, 7.0]  # and no other call would have gone out either
    pauses = [seconds for seconds in fake.sleeps if seconds > 1.0]
    assert all(7.0 <= seconds <= 8.75 for seconds in pauses)


def test_a_pause_beyond_all_patience_fails_the_call(live: LiveServer, tmp_path: Path) -> None:
    live.replies = [error(429, headers={"retry-after": "3600"})]
    path = tmp_path / "a.jsonl"
    _, tally = collect(live, path, conversations("a"))
    assert tally.failed == 1
    assert by_prompt(path)["a"].tries == 1


@pytest.mark.parametrize(
    ("reply", "status", "tries"),
    [
        (error(400, "too long"), 400, 1),
        (error(500, "broken"), 500, 4),
        (Reply([b"<html>"], whole=True), 200, 1),
        (Reply([DIE]), None, 4),
        (completion(None), 200, 1),
    ],
)
def test_a_failed_call_is_written_as_failed_and_asked_again_only_on_demand(
    live: LiveServer, tmp_path: Path, reply: Reply, status: int | None, tries: int
) -> None:
    path = tmp_path / "a.jsonl"
    live.answer = lambda request: reply if question_of(request) == "bad" else echo(request)
    _, tally = collect(live, path, conversations("good", "bad"))
    assert (tally.answered, tally.failed) == (1, 1)
    row = by_prompt(path)["bad"]
    assert (row.status, row.response, row.tries) == ("failed", None, tries)
    assert row.error is not None
    assert row.error.status == status
    before = len(live.requests)
    _, tally = collect(live, path, conversations("good", "bad"))
    assert (tally.kept, tally.kept_failed, len(live.requests)) == (2, 1, before)
    live.answer = echo
    _, tally = collect(live, path, conversations("good", "bad"), retry_failed=True)
    assert (tally.kept, tally.answered) == (1, 1)
    with Journal(path, "test", "openai/m", PARAMETERS) as journal:
        assert {row.status for row in journal.rows()} == {"ok"}


def test_what_would_fail_every_call_ends_the_run_and_writes_nothing(live: LiveServer, tmp_path: Path) -> None:
    live.replies = [error(401, "bad key")]
    path = tmp_path / "a.jsonl"
    with pytest.raises(CallError, match="401: bad key"):
        collect(live, path, conversations(*PROMPTS), concurrency=2)
    assert path.read_text() == ""
    assert len(live.requests) <= 2


def test_a_dead_endpoint_is_given_up(tmp_path: Path, live: LiveServer) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(CallError, match=r"3 calls in a row failed, the last with: The model 'openai/m' could not be reached"):
        collect(live, path, conversations(*PROMPTS), concurrency=1, base_url=closed_port_url(), give_up_after=3)
    assert {row.status for row in by_prompt(path).values()} == {"failed"}
    assert len(by_prompt(path)) == 3


def test_failures_between_answers_are_no_reason_to_give_up(tmp_path: Path, live: LiveServer) -> None:
    live.answer = lambda request: error(400) if int(question_of(request)[-1]) % 2 else echo(request)
    _, tally = collect(live, tmp_path / "a.jsonl", conversations(*PROMPTS[:10]), concurrency=1, give_up_after=2)
    assert (tally.answered, tally.failed) == (5, 5)


def test_a_stop_waits_for_what_is_under_way_and_keeps_it(live: LiveServer, tmp_path: Path) -> None:
    gate = Gate()
    body = completion("late").steps[0]
    live.replies = [Reply([gate, body])]
    path = tmp_path / "a.jsonl"

    async def stop(engine: Engine) -> None:
        await asyncio.to_thread(live.wait_for_request, 2)
        engine.stop("enough")
        gate.open()

    engine, tally = collect(live, path, conversations(*PROMPTS), concurrency=3, while_running=stop)
    assert (engine.why_stopped, tally.answered) == ("enough", 3)
    assert len(live.requests) == len(by_prompt(path)) == 3


def test_a_stop_cuts_pauses_and_waits_short(live: LiveServer, tmp_path: Path) -> None:
    live.replies = [error(500)]
    path = tmp_path / "a.jsonl"

    async def stop(engine: Engine) -> None:
        await asyncio.to_thread(live.wait_for_request, 1)
        while any(worker.sending for worker in engine._workers):
            await asyncio.sleep(0.01)
        engine.stop("enough")

    _, tally = collect(
        live, path, conversations(*PROMPTS), concurrency=2, retries=Retries(tries=9, first=3600.0), while_running=stop
    )
    assert (tally.done, path.read_text()) == (0, "")  # no end was reached, so nothing is written, and all can be asked again


def test_abandoning_breaks_off_what_is_under_way(live: LiveServer, tmp_path: Path) -> None:
    live.replies = [Reply([STALL])]

    async def abandon(engine: Engine) -> None:
        await asyncio.to_thread(live.wait_for_request, 1)
        engine.stop("enough")
        engine.abandon()

    _, tally = collect(live, tmp_path / "a.jsonl", conversations(*PROMPTS), concurrency=2, while_running=abandon)
    assert tally.done == 0


def test_a_full_disk_ends_the_run(live: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live.answer = echo
    written = []

    def append(self: Journal, row: Row) -> None:
        if written:
            raise DataError("'a.jsonl' can't be written: No space left on device.")
        written.append(row)

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(DataError, match="No space left"):
        collect(live, tmp_path / "a.jsonl", conversations(*PROMPTS), concurrency=1)
    assert len(live.requests) == 2


def test_a_mistake_in_this_package_is_not_hidden(live: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "append", lambda self, row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        collect(live, tmp_path / "a.jsonl", conversations(*PROMPTS), concurrency=3)


def test_nothing_to_ask(live: LiveServer, tmp_path: Path) -> None:
    _, tally = collect(live, tmp_path / "a.jsonl", [])
    assert (tally.total, tally.done) == (0, 0)
