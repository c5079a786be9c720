"""The circuit breaker by itself."""

from __future__ import annotations

from routellm.dispatch.breaker import Breaker
from routellm.dispatch.settings import BreakerSettings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(failures: int = 3, seconds: float = 5.0, longest: float = 20.0) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(BreakerSettings(failures=failures, open_seconds=seconds, longest_open_seconds=longest), clock), clock


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(breaker.enter())


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    assert (breaker.state, breaker.admits(), breaker.seconds_left()) == ("closed", True, 0.0)
    fail(breaker)
    assert (breaker.state, breaker.admits(), breaker.seconds_left()) == ("open", False, 5.0)


def test_a_whole_reply_in_between_begins_the_row_anew() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    breaker.succeeded(breaker.enter())
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_reply_that_has_only_begun_does_not() -> None:
    breaker, _ = make()
    for _ in range(3):
        token = breaker.enter()
        breaker.replied(token)
        breaker.failed(token)  # it broke off
    assert breaker.state == "open"


def test_after_its_time_one_call_passes_and_a_good_reply_closes_it() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += 5.0
    assert (breaker.state, breaker.admits()) == ("half-open", True)
    probe = breaker.enter()
    assert (breaker.state, breaker.admits()) == ("half-open", False)
    assert breaker.replied(probe)
    assert (breaker.state, breaker.admits()) == ("closed", True)


def test_one_that_breaks_off_the_probes_reply_is_open_again_at_once() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += 5.0
    probe = breaker.enter()
    breaker.replied(probe)
    breaker.failed(probe)
    assert (breaker.state, breaker.seconds_left()) == ("open", 10.0)


def test_the_time_doubles_up_to_its_cap_and_a_whole_reply_sets_it_back() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    waits = []
    for _ in range(4):
        waits.append(breaker.seconds_left())
        clock.now += breaker.seconds_left()
        fail(breaker)
    assert waits == [5.0, 10.0, 20.0, 20.0]
    clock.now += breaker.seconds_left()
    probe = breaker.enter()
    breaker.replied(probe)
    breaker.succeeded(probe)
    fail(breaker, 3)
    assert breaker.seconds_left() == 5.0


def test_a_call_that_tells_nothing_leaves_the_place_to_the_next() -> None:
    breaker, clock = make()
    fail(breaker, 3)
    clock.now += 5.0
    breaker.left(breaker.enter())
    assert breaker.admits()
    assert breaker.failures == 3


def test_calls_from_before_it_opened_count_for_nothing() -> None:
    breaker, clock = make()
    early, late = breaker.enter(), breaker.enter()
    fail(breaker, 3)
    breaker.succeeded(early)
    assert breaker.failures == 3
    clock.now += 5.0
    breaker.enter()
    breaker.left(late)  # not the probe: its place stays taken
    assert not breaker.admits()
    breaker.failed(late)
    assert breaker.state == "half-open"


def test_zero_switches_it_off() -> None:
    breaker, _ = make(failures=0)
    fail(breaker, 1000)
    assert breaker.admits()
