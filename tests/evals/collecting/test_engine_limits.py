"""What the engine may spend, and how fast it may go."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from routellm.evals.collecting.chat import Answer, ChatModel
from routellm.evals.collecting.engine import Engine, Job
from routellm.evals.collecting.journal import Journal, Usage
from routellm.evals.collecting.pacing import Pace
from routellm.evals.collecting.prices import Budget, fixed_price
from tests.evals.collecting.stage import FakeClock, asked, by_prompt, collect, conversations, echo
from tests.live import LiveServer, Reply

PROMPTS = [f"question {number}" for number in range(12)]


@pytest.mark.parametrize("concurrency", [1, 5])
def test_the_budget_is_never_passed(live: LiveServer, tmp_path: Path, concurrency: int) -> None:
    live.answer = echo
    path = tmp_path / "a.jsonl"
    settings = {"price": fixed_price(0.0, 1e6), "concurrency": concurrency}  # a call costs 2 and at most 10
    engine, tally = collect(live, path, conversations(*PROMPTS), budget=Budget(25.0), **settings)
    assert engine.why_stopped is not None
    assert "$16.0000 of the limit is spent" in engine.why_stopped
    assert len(live.requests) == 8
    assert tally.spent == sum(row.cost or 0.0 for row in by_prompt(path).values()) == 16.0
    # What an earlier run has spent counts too.
    collect(live, path, conversations(*PROMPTS), budget=Budget(25.0), **settings)
    assert len(live.requests) == 8
    _, tally = collect(live, path, conversations(*PROMPTS), budget=Budget(100.0), **settings)
    assert asked(live) == Counter(PROMPTS)
    assert tally.spent == 24.0


def test_an_answer_without_usage_counts_at_its_upper_bound(live: LiveServer, tmp_path: Path) -> None:
    live.replies = [Reply.json({"choices": [{"message": {"content": "Hi"}}]})]
    path = tmp_path / "a.jsonl"
    collect(live, path, conversations("a"), price=fixed_price(0.0, 1e6))
    assert (by_prompt(path)["a"].usage, by_prompt(path)["a"].cost) == (None, 10.0)


class TimedModel(ChatModel):
    """Knows when each request went out."""

    def __init__(self, fake: FakeClock) -> None:
        self.fake = fake
        self.times: list[float] = []

    def body(self, turns: object, answers: object) -> bytes:
        return b"x" * 40

    async def ask(self, body: bytes) -> Answer:
        self.times.append(self.fake.time)
        await asyncio.sleep(0)
        return Answer("ok", "stop", None, Usage(50, 50))


@pytest.mark.parametrize(
    ("limits", "per_minute"),
    [({"requests": 30.0}, 30), ({"tokens": 1000.0}, 10), ({"requests": 30.0, "tokens": 1000.0}, 10), ({}, None)],
)
def test_limits_a_minute_hold_over_all_workers(tmp_path: Path, limits: dict[str, float], per_minute: int | None) -> None:
    fake = FakeClock()
    model = TimedModel(fake)

    async def main(engine: Engine) -> None:
        await engine.run(conversations(*(str(number) for number in range(80))))

    job = Job("test", "m", {"max_tokens": 90})
    with Journal(tmp_path / "a.jsonl", "test", "m", job.parameters) as journal:
        paces = {name: Pace(limit, fake.clock) for name, limit in limits.items()}
        asyncio.run(main(Engine(job, model, journal, concurrency=7, clock=fake.clock, **paces)))
    assert len(model.times) == 80
    if per_minute is None:
        assert fake.time == 0.0
        return
    for start in model.times:
        assert sum(start <= time < start + 59.999 for time in model.times) <= per_minute


def test_tokens_that_were_not_used_are_given_back(tmp_path: Path) -> None:
    fake = FakeClock()
    model = TimedModel(fake)
    job = Job("test", "m", {"max_tokens": 990})  # 1,000 tokens at most, and 100 in fact
    with Journal(tmp_path / "a.jsonl", "test", "m", job.parameters) as journal:
        engine = Engine(job, model, journal, concurrency=2, clock=fake.clock, tokens=Pace(1000, fake.clock))
        asyncio.run(engine.run(conversations(*(str(number) for number in range(20)))))
    assert fake.time < 10 * 60.0  # at 1,000 tokens a call it would take 19 minutes
