"""What is tried after a failure, in which order, how long is waited, and what comes back when nothing helps. Time is faked."""

from __future__ import annotations

from contextlib import suppress

import pytest

from routellm.errors import (
    MissingKeyError,
    RequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from tests.dispatch.fakes import (
    Act,
    FakeReply,
    limited,
    one,
    refused,
    reset,
    run,
    several,
    silent,
    told,
    with_spare,
)


def test_a_good_reply_is_handed_on_with_what_send_gave() -> None:
    world, upstream = one(200)

    async def main() -> None:
        dispatched = await world.ask()
        assert told(dispatched) == (200, "m", 1, False)
        assert dispatched.extra is upstream
        assert (world.outstanding(), upstream.replies[0].closed) == (1, 0)
        await dispatched.aclose()
        await dispatched.aclose()
        assert world.outstanding() == 0

    run(main())


@pytest.mark.parametrize("status", [201, 301, 400, 401, 403, 404, 409, 413, 422, 451, 501, 505])
def test_what_no_other_endpoint_would_answer_otherwise_is_handed_on_at_once(status: int) -> None:
    world, _, spare = with_spare([status], [200])
    assert told(run(world.get("m", "s"))) == (status, "m", 1, False)
    assert spare.calls == 0
    assert world.dispatcher.states()[0].failures == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 522, 529])
def test_an_overloaded_or_broken_endpoint_is_followed_by_the_spare(status: int) -> None:
    world, main, _ = with_spare([status], [200])
    assert told(run(world.get("m", "s"))) == (200, "s", 2, True)
    assert main.calls == 1
    assert main.replies[0].closed == 1, "a reply that is not handed on must give its connection back"
    assert world.slept == []


@pytest.mark.parametrize("error", [refused(), reset(), silent()], ids=["refused", "reset", "silent"])
def test_so_is_one_that_gives_no_reply(error: UpstreamError) -> None:
    world, _, _ = with_spare([error], [200], retries={"count": 0})
    assert told(run(world.get("m", "s"))) == (200, "s", 2, True)


def test_the_last_error_reply_is_handed_on_unchanged() -> None:
    last = limited(503, retry_after="60")
    world, main, spare = with_spare([429], [last])
    answer = run(world.get("m", "s"))
    assert told(answer) == (503, "s", 2, True)
    assert answer.reply is last
    assert answer.reply.headers == {"retry-after": "60"}
    assert [reply.closed for reply in main.replies + spare.replies] == [1, 1]
    assert world.outstanding() == 0


def test_a_reply_says_more_than_an_error_that_came_after_it() -> None:
    world, _, _ = with_spare([limited(429, retry_after="60")], [reset()])
    assert told(run(world.get("m", "s"))) == (429, "m", 2, False)


def test_without_any_reply_the_last_error_is_raised_and_says_how_many_were_asked() -> None:
    world, _, _ = with_spare([reset()], [silent()])
    with pytest.raises(UpstreamTimeoutError) as caught:
        run(world.get("m", "s"))
    assert caught.value.attempts == 2
    assert world.outstanding() == 0


# Retries at the same endpoint.


def test_a_connection_that_could_not_be_opened_is_tried_again_once() -> None:
    world, _ = one(refused(), 200)
    world.random = 0.5
    assert told(run(world.get())) == (200, "m", 2, False)
    assert world.slept == [0.125]


def test_and_not_twice() -> None:
    world, upstream = one(refused())
    with pytest.raises(UpstreamError):
        run(world.get())
    assert upstream.calls == 2


@pytest.mark.parametrize("act", [reset(), silent(), 500, 503, 429], ids=str)
def test_what_may_have_been_worked_on_is_not_tried_again_unasked(act: Act) -> None:
    world, upstream = one(act, 200)
    with suppress(UpstreamError):
        run(world.get())
    assert upstream.calls == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_retry_after_is_waited_for_where_it_is_soon(status: int) -> None:
    world, upstream = one(limited(status, retry_after="2"), 200)
    world.random = 1.0
    assert told(run(world.get())) == (200, "m", 2, False)
    assert world.slept == [2.25]  # and a little more, lest all that wait come back at the same moment
    assert upstream.replies[0].closed == 1


@pytest.mark.parametrize("wait", ["4.9", "30", "1e400"])
def test_and_not_where_the_budget_is_shorter(wait: str) -> None:
    world, upstream = one(limited(429, retry_after=wait), 200)
    world.random = 1.0
    assert run(world.get()).reply.status == 429
    assert (upstream.calls, world.slept) == (1, [])


def test_the_budget_counts_from_the_first_attempt() -> None:
    async def slow() -> FakeReply:
        world.now += 4.5
        return limited(503, retry_after="1")

    world, upstream = one(slow, 200)
    assert run(world.get()).reply.status == 503
    assert upstream.calls == 1


def test_an_endpoint_that_says_so_is_not_tried_again() -> None:
    no = limited(503, retry_after="1", x_should_retry="false")
    world, upstream = one(no, 200)
    assert run(world.get()).reply is no
    assert upstream.calls == 1


def test_but_the_spare_still_is() -> None:
    world, _, _ = with_spare([limited(429, x_should_retry="false")], [200])
    assert run(world.get("m", "s")).model == "s"


def test_more_retries_back_off_further_each_time() -> None:
    world, upstream = one(503, retries={"count": 3, "without_retry_after": True, "longest_backoff_seconds": 0.8})
    world.random = 1.0
    assert told(run(world.get())) == (503, "m", 4, False)
    assert world.slept == [0.25, 0.5, 0.8]
    assert [reply.closed for reply in upstream.replies] == [1] * 4


def test_retries_can_be_switched_off() -> None:
    world, upstream = one(refused(), retries={"count": 0})
    with pytest.raises(UpstreamError):
        run(world.get())
    assert upstream.calls == 1


# Several deployments.


@pytest.mark.parametrize(
    "act", [500, 429, limited(429, retry_after="60"), limited(503, retry_after="1"), refused(), reset()], ids=str
)
def test_another_deployment_is_asked_at_once(act: Act) -> None:
    world, _ = several([act], [200])
    assert told(run(world.get())) == (200, "m", 2, False)
    assert world.slept == []


def test_after_a_timeout_the_model_is_not_asked_again_but_its_spare_is() -> None:
    world, (first, second) = several([silent()], [200])
    with pytest.raises(UpstreamTimeoutError):
        run(world.get())
    assert (first.calls, second.calls) == (1, 0)


def test_unless_the_settings_say_so() -> None:
    world, _ = several([silent()], [200], retries={"after_timeout": True})
    assert run(world.get()).attempts == 2


def test_a_connection_that_did_not_open_in_time_is_no_such_timeout() -> None:
    world, _ = several([UpstreamTimeoutError("connect", repeatable=True)], [200])
    assert run(world.get()).attempts == 2


def test_after_all_have_failed_the_one_that_may_be_asked_soonest_is_waited_for() -> None:
    world, (first, second) = several([limited(429, retry_after="3")], [limited(429, retry_after="1"), 200])
    assert told(run(world.get())) == (200, "m", 3, False)
    assert (first.calls, second.calls, world.slept) == (1, 2, [1.0])


def test_one_that_asked_to_be_left_alone_is_left_out_until_then() -> None:
    world, (first, second) = several([limited(429, retry_after="30"), 200], [200])
    run(world.get())
    assert world.dispatcher.states()[0].seconds_left == 30.0
    for _ in range(3):
        run(world.get())
    assert (first.calls, second.calls) == (1, 4)
    world.now += 30.0
    run(world.get())
    assert first.calls == 2


def test_a_rate_limit_without_retry_after_puts_the_others_first_for_a_moment() -> None:
    world, (first, second) = several([429, 200], [200])
    run(world.get())
    run(world.get())
    assert (first.calls, second.calls) == (1, 2)
    world.now += 1.0
    run(world.get())
    assert first.calls == 2


def test_retry_after_is_believed_up_to_a_limit() -> None:
    world, _ = several([limited(503, retry_after="86400")], [200])
    run(world.get())
    assert world.dispatcher.states()[0].seconds_left == 60.0


def test_a_deployment_without_a_key_is_passed_over() -> None:
    world, _ = several([MissingKeyError("no key")], [200])
    assert told(run(world.get())) == (200, "m", 1, False)
    assert world.dispatcher.states()[0].failures == 0


def test_where_no_other_is_left_its_key_is_what_is_missing() -> None:
    world, _ = several([MissingKeyError("no key")], [MissingKeyError("no key")])
    with pytest.raises(MissingKeyError):
        run(world.get())
    assert world.outstanding() == 0


def test_a_request_that_can_not_be_made_is_the_clients_and_counts_against_nobody() -> None:
    world, _, spare = with_spare([RequestError("images")], [200])
    with pytest.raises(RequestError):
        run(world.get("m", "s"))
    assert (spare.calls, world.outstanding(), world.dispatcher.states()[0].failures) == (0, 0, 0)


def test_a_reply_in_hand_is_closed_when_a_spare_raises() -> None:
    world, main, _ = with_spare([503], [RequestError("images")])
    with pytest.raises(RequestError):
        run(world.get("m", "s"))
    assert main.replies[0].closed == 1
