"""The pool that scores off the event loop. Its threads are held back by gates, so that nothing here depends on time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from routellm.errors import EmbeddingError, OverloadedError, RouteLLMError
from routellm.routers.routers import Router
from routellm.serving import scoring
from routellm.serving.errors import render_error
from routellm.serving.scoring import ScorePool, ScoreSettings, score_all
from tests.live import PATIENCE


class SlowRouter(Router):
    """Scores by a prompt's length. Keeps its calls, fails on prompts that hold "bad", and waits for `gate` at each call."""

    def __init__(self, *, batches: bool = True, error: BaseException | None = None) -> None:
        self.batches = batches
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self._error = error or ValueError("a bad prompt")

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return float(self.score([prompt])[0])

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return self.score(prompts)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        self.calls.append(list(prompts))
        assert self.gate.wait(PATIENCE)
        if any("bad" in prompt for prompt in prompts):
            raise self._error
        return np.array([1.0 / (1 + len(prompt)) for prompt in prompts])


class BreakDown(BaseException):
    """As a panic in a library in Rust: no Exception."""


def expected(prompt: str) -> float:
    return 1.0 / (1 + len(prompt))


def run(test: Callable[[ScorePool], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def with_pool() -> None:
        pool = ScorePool(ScoreSettings(**settings))
        try:
            await asyncio.wait_for(test(pool), PATIENCE)
        finally:
            pool.close()

    asyncio.run(with_pool())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def under_way(pool: ScorePool, router: SlowRouter, *prompts: str) -> list[asyncio.Task[float]]:
    """One task a prompt, the first of which has the thread, the others in line."""
    tasks = []
    for number, prompt in enumerate(prompts):
        tasks.append(asyncio.create_task(pool.score(router, prompt)))
        await until(lambda number=number: len(router.calls) > 0 if number == 0 else pool.depths()[1] == number)
    return tasks


def test_a_lone_prompt_is_scored_at_once() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        router.gate.set()
        assert await pool.score(router, "abc") == expected("abc")
        assert pool.depths() == (0, 0)

    run(test)


def test_prompts_that_wait_are_scored_together_and_each_gets_its_own_score() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        prompts = ["a" * length for length in range(1, 8)]
        tasks = await under_way(pool, router, *prompts)
        assert pool.depths() == (1, 6)
        router.gate.set()
        assert await asyncio.gather(*tasks) == [expected(prompt) for prompt in prompts]
        assert router.calls == [prompts[:1], prompts[1:5], prompts[5:]]

    run(test, max_batch=4)


def test_a_router_that_gains_nothing_by_batches_gets_one_prompt_at_a_time() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter(batches=False)
        tasks = await under_way(pool, router, "a", "b", "c")
        router.gate.set()
        await asyncio.gather(*tasks)
        assert router.calls == [["a"], ["b"], ["c"]]

    run(test)


def test_routers_take_turns_however_long_their_lines_are() -> None:
    async def test(pool: ScorePool) -> None:
        busy, other = SlowRouter(batches=False), SlowRouter(batches=False)
        tasks = await under_way(pool, busy, "a", "b", "c", "d")
        tasks.append(asyncio.create_task(pool.score(other, "x")))
        await until(lambda: pool.depths() == (1, 4))
        other.gate.set()
        order: list[str] = []
        for task, name in zip(tasks, "abcdx", strict=True):
            task.add_done_callback(lambda _, name=name: order.append(name))
        busy.gate.set()
        await asyncio.gather(*tasks)
        assert order.index("x") == 1

    run(test)


def test_a_bad_prompt_fails_alone() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        tasks = await under_way(pool, router, "first", "good", "bad", "fine")
        router.gate.set()
        scores = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(score) for score in scores] == [float, float, ValueError, float]
        assert router.calls == [["first"], ["good", "bad", "fine"], ["good"], ["bad"], ["fine"]]

    run(test)


@pytest.mark.parametrize("error", [StopIteration(), EmbeddingError("down"), BreakDown()])
def test_whatever_a_router_raises_reaches_its_caller_and_the_pool_goes_on(error: BaseException) -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter(error=error)
        router.gate.set()
        with pytest.raises((RuntimeError, RouteLLMError)):
            await pool.score(router, "bad")
        assert await pool.score(router, "good") == expected("good")

    run(test)


def test_failing_that_takes_long_fails_the_rest_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "RETRY_SECONDS", -1.0)
    router = SlowRouter()
    router.gate.set()
    scores = score_all(router, ["good", "bad 1", "bad 2", "fine"])
    assert scores[0] == expected("good")
    assert [type(score) for score in scores[1:]] == [ValueError] * 3
    assert ["bad 2"] not in router.calls


def test_a_batch_of_another_length_is_not_believed() -> None:
    class Short(SlowRouter):
        def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
            return np.array([0.5])

    router = Short()
    router.gate.set()
    assert score_all(router, ["a", "bb"]) == [expected("a"), expected("bb")]


def test_a_full_line_is_refused_and_says_when_to_come_back() -> None:
    async def test(pool: ScorePool) -> None:
        router, other = SlowRouter(), SlowRouter()
        tasks = await under_way(pool, router, "a", "b", "c")
        with pytest.raises(OverloadedError) as refused:
            await pool.score(router, "d")
        reply = render_error(refused.value, "req-1")
        assert reply.status == 503
        assert (b"retry-after", b"1") in reply.headers
        assert msgspec.json.decode(reply.body)["error"]["code"] == "overloaded"
        another = asyncio.create_task(pool.score(other, "x"))  # each router has a line of its own
        await until(lambda: pool.depths() == (1, 3))
        other.gate.set()
        router.gate.set()
        await asyncio.gather(*tasks, another)

    run(test, queued=2)


def test_who_leaves_the_line_is_not_scored() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        tasks = await under_way(pool, router, "a", "b", "c")
        tasks[1].cancel()
        await until(lambda: pool.depths() == (1, 1))
        router.gate.set()
        assert await tasks[2] == expected("c")
        assert router.calls == [["a"], ["c"]]
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    run(test)


def test_who_leaves_while_being_scored_disturbs_nobody() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        [task] = await under_way(pool, router, "a")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        router.gate.set()
        assert await pool.score(router, "b") == expected("b")

    run(test)


def test_several_threads_score_at_the_same_time() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        tasks = [asyncio.create_task(pool.score(router, prompt)) for prompt in ("a", "b")]
        await until(lambda: len(router.calls) == 2)
        assert pool.depths() == (2, 0)
        router.gate.set()
        await asyncio.gather(*tasks)

    run(test, threads=2)


def test_closing_refuses_what_waits_and_what_comes_after() -> None:
    async def test(pool: ScorePool) -> None:
        router = SlowRouter()
        tasks = await under_way(pool, router, "a", "b")
        pool.close()
        with pytest.raises(OverloadedError, match="shutting down"):
            await tasks[1]
        router.gate.set()
        assert await tasks[0] == expected("a")
        with pytest.raises(OverloadedError, match="shutting down"):
            await pool.score(router, "c")

    run(test)


@pytest.mark.parametrize("section", [{"threads": 0}, {"max_batch": 0}, {"queued": 0}, {"threads": 65}])
def test_a_wrong_setting_is_told(section: dict[str, int]) -> None:
    [(name, value)] = section.items()
    with pytest.raises(msgspec.ValidationError, match=f"{name} is {value}; it must lie from 1"):
        msgspec.convert(section, ScoreSettings)
