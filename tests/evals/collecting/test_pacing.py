from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.evals.collecting.pacing import Pace, Retries
from tests.evals.collecting.stage import FakeClock


def times_of(pace: Pace, fake: FakeClock, amounts: list[float], corrections: list[float] | None = None) -> list[float]:
    """When each amount went out, all of them asked for at once."""
    times: list[float] = []

    async def take(amount: float) -> None:
        await pace.take(amount)
        times.append(fake.time)

    async def main() -> None:
        await asyncio.gather(*(take(amount) for amount in amounts))

    asyncio.run(main())
    return times


@given(st.integers(1, 600), st.integers(1, 40))
def test_no_minute_sees_more_requests_than_the_limit(limit: int, count: int) -> None:
    fake = FakeClock()
    times = times_of(Pace(limit, fake.clock), fake, [1.0] * count)
    assert len(times) == count
    for start in times:
        assert sum(start <= time < start + 59.999 for time in times) <= limit


def test_tokens_wait_for_what_went_out_before() -> None:
    fake = FakeClock()
    assert times_of(Pace(60, fake.clock), fake, [30.0, 120.0, 1.0, 1.0]) == pytest.approx([0.0, 30.0, 150.0, 151.0])


def test_without_a_limit_nothing_waits() -> None:
    fake = FakeClock()
    assert times_of(Pace(None, fake.clock), fake, [1.0, 1e9, 1.0]) == [0.0, 0.0, 0.0]


def test_a_correction_shortens_or_lengthens_the_wait() -> None:
    fake = FakeClock()
    pace = Pace(60, fake.clock)
    times_of(pace, fake, [40.0])
    pace.correct(-30.0)
    assert times_of(pace, fake, [1.0]) == pytest.approx([10.0])
    fake.time = 100.0
    pace.correct(5.0)
    assert times_of(pace, fake, [1.0]) == pytest.approx([105.0])


def test_a_hold_lets_nothing_out_before_its_end_and_shortens_no_other() -> None:
    fake = FakeClock()
    pace = Pace(None, fake.clock)
    pace.hold(7.0)
    pace.hold(2.0)
    assert times_of(pace, fake, [1.0, 1.0]) == pytest.approx([7.0, 7.0])


def test_pauses_grow_with_jitter_up_to_the_longest() -> None:
    retries = Retries(tries=9, first=1.0, longest=20.0, random=random.Random(3))
    for number in range(1, 9):
        most = min(2.0 ** (number - 1), 20.0)
        pauses = [retries.pause(number) for _ in range(50)]
        assert all(pause is not None and most / 2 <= pause <= most for pause in pauses)
        assert len(set(pauses)) > 40
    assert retries.pause(9) is None


def test_the_endpoints_wish_is_kept_and_never_undercut() -> None:
    retries = Retries(tries=3, first=1.0, patience=100.0)
    pauses = [retries.pause(1, 7.0) for _ in range(50)]
    assert all(pause is not None and 7.0 <= pause <= 8.75 for pause in pauses)
    assert retries.pause(1, 101.0) is None
    assert retries.pause(3, 7.0) is None
    assert retries.pause(1, 0.0) is not None
