"""What many requests do to endpoints that limit their rate, are dead, or break off: pauses, breakers, probes. Time is fake."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from routellm.errors import (
    MissingKeyError,
    UpstreamError,
    UpstreamUnavailableError,
)
from routellm.serving.errors import render_error
from tests.dispatch.fakes import (
    FakeReply,
    limited,
    one,
    reset,
    run,
    several,
    told,
    with_spare,
)


def test_in_a_storm_of_429_a_lone_endpoint_is_never_cut_off_and_asked_once_a_request() -> None:
    world, upstream = one(*[429] * 50, 200)
    statuses = [run(world.get()).reply.status for _ in range(51)]
    assert statuses == [429] * 50 + [200]
    assert upstream.calls == 51
    assert world.dispatcher.states()[0].breaker == "closed"


def test_a_request_that_comes_while_a_lone_endpoint_wants_a_pause_waits_for_it_instead_of_asking_twice() -> None:
    world, _ = one(limited(429, retry_after="2"), limited(429, retry_after="2"), 200, retries={"budget_seconds": 3})
    assert run(world.get()).reply.status == 429
    assert world.slept == [2.0]
    assert told(run(world.get())) == (200, "m", 1, False)
    assert world.slept == [2.0, 2.0]


def test_where_the_pause_is_long_and_there_is_nobody_else_it_is_asked_in_spite_of_it() -> None:
    world, _ = one(limited(429, retry_after="30"), 200)
    run(world.get())
    assert told(run(world.get())) == (200, "m", 1, False)
    assert world.slept == []


def test_a_spare_is_asked_instead() -> None:
    world, main, _ = with_spare([limited(429, retry_after="30")], [200])
    assert [told(run(world.get("m", "s")))[1:3] for _ in range(3)] == [("s", 2), ("s", 1), ("s", 1)]
    assert main.calls == 1


def test_a_dead_endpoint_is_left_alone_after_five_failures() -> None:
    world, upstream = one(reset(), retries={"count": 0})
    for _ in range(5):
        with pytest.raises(UpstreamError, match="reset"):
            run(world.get())
    with pytest.raises(UpstreamUnavailableError) as caught:
        run(world.get())
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "upstream_unavailable", 5.0)
    assert (caught.value.attempts, upstream.calls) == (0, 5)
    rendered = render_error(caught.value, "request-id")
    assert (rendered.status, dict(rendered.headers)[b"retry-after"]) == (503, b"5")


def test_its_spare_answers_without_asking_it() -> None:
    world, main, _ = with_spare([503], [200], breaker={"failures": 1})
    assert told(run(world.get("m", "s")))[2:] == (2, True)
    assert told(run(world.get("m", "s")))[2:] == (1, True)
    assert main.calls == 1


def test_a_breaker_that_opens_ends_the_retries() -> None:
    world, upstream = one(limited(503, retry_after="1"), breaker={"failures": 1})
    assert run(world.get()).reply.status == 503
    assert (upstream.calls, world.slept) == (1, [])


def test_all_deployments_down_tell_the_soonest_retry() -> None:
    world, _ = several([reset()], [reset()], breaker={"failures": 1})
    with pytest.raises(UpstreamError, match="reset"):
        run(world.get())
    world.now += 2.0
    with pytest.raises(UpstreamUnavailableError) as caught:
        run(world.get())
    assert caught.value.retry_after == 3.0


def test_where_the_only_endpoint_that_is_not_cut_off_lacks_a_key_waiting_helps() -> None:
    world, _ = several([reset()], [MissingKeyError("no key")], breaker={"failures": 1})
    with pytest.raises(UpstreamError, match="reset"):
        run(world.get())
    with pytest.raises(UpstreamUnavailableError):
        run(world.get())


def test_exactly_one_of_many_requests_probes_and_its_reply_lets_the_others_pass() -> None:
    world, upstream = one(reset(), breaker={"failures": 1})
    answered = asyncio.Event()

    async def slow() -> FakeReply:
        await answered.wait()
        return FakeReply()

    async def main() -> None:
        with pytest.raises(UpstreamError):
            await world.get()
        world.now += 5.0
        upstream.acts = [slow]
        probes = [asyncio.create_task(world.get()) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert upstream.calls == 2
        assert [state.breaker for state in world.dispatcher.states()] == ["half-open"]
        answered.set()
        results = await asyncio.gather(*probes, return_exceptions=True)
        turned_away = [result for result in results if isinstance(result, UpstreamUnavailableError)]
        assert len(turned_away) == 19
        assert upstream.calls == 2
        await world.get()
        assert [state.breaker for state in world.dispatcher.states()] == ["closed"]

    run(main())


def test_a_client_that_leaves_gives_the_probes_place_back() -> None:
    world, upstream = one(reset(), breaker={"failures": 1})

    async def never() -> FakeReply:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        with pytest.raises(UpstreamError):
            await world.get()
        world.now += 5.0
        upstream.acts = [never]
        probe = asyncio.create_task(world.get())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert world.outstanding() == 0
        upstream.acts = [200]
        assert (await world.get()).reply.status == 200

    run(main())


# How a reply's reading ends.


@pytest.mark.parametrize(
    ("ending", "failures"),
    [(UpstreamError("broke off"), 3), (asyncio.CancelledError(), 2), (OSError("client"), 2), (None, 0)],
    ids=["broken", "cancelled", "client", "whole"],
)
def test_what_became_of_the_reply_is_told_to_the_breaker(ending: BaseException | None, failures: int) -> None:
    world, upstream = one(reset(), reset(), 200)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await world.get()
        with suppress(UpstreamError, asyncio.CancelledError, OSError):
            async with await world.ask():
                if ending is not None:
                    raise ending

    run(main())
    [state] = world.dispatcher.states()
    assert (state.failures, state.outstanding) == (failures, 0)
    assert upstream.replies[0].closed == 1


def test_an_endpoint_that_breaks_off_every_reply_is_cut_off_too() -> None:
    world, _ = one(200)

    async def main() -> None:
        for _ in range(5):
            dispatched = await world.ask()
            dispatched.mark_broken()
            await dispatched.aclose()
        with pytest.raises(UpstreamUnavailableError):
            await world.ask()

    run(main())


def test_a_client_that_leaves_while_a_retry_is_waited_for_leaks_nothing() -> None:
    world, upstream = one(limited(503, retry_after="1"))

    async def main() -> None:
        waiting = asyncio.create_task(world.get())
        while not world.slept:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())
    assert (world.outstanding(), upstream.calls, upstream.replies[0].closed) == (0, 1, 1)


def test_opening_and_closing_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    world, upstream = one(reset(), retries={"count": 0})

    async def main() -> None:
        for _ in range(3):
            for _ in range(7):
                with pytest.raises(UpstreamError):
                    await world.get()
            world.now += 60.0  # each time one more probe fails
        upstream.acts = [200]
        for _ in range(5):
            await world.get()

    with caplog.at_level(logging.DEBUG, "routellm.dispatch"):
        run(main())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "m at http://m has failed 5 times in a row and is left alone for 5 s: reset"),
        ("WARNING", "m at http://m answers again"),
    ]


def test_closing_closes_every_upstream() -> None:
    world, main, spare = with_spare([200], [200])
    run(world.dispatcher.aclose())
    assert main.closed
    assert spare.closed
