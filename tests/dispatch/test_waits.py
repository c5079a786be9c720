"""How long a reply asks to wait, in all its forms, and how long to wait where it does not ask."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.dispatch.settings import RetrySettings
from routellm.dispatch.waits import backoff, retry_after

NOON = 1_784_980_800.0  # Sat, 25 Jul 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1e400"}, inf),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 25 Jul 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 25 Jul 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Saturday, 25-Jul-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 99 Jul 2026 12:00:30 GMT"}, None),
        ({"retry-after": "Sat, 25 Jul 2026 15:00:30 GMT", "date": "Sat, 25 Jul 2026 15:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 25 Jul 2026 12:00:30 GMT", "date": "today"}, 30.0),
    ],
)
def test_what_a_reply_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, lambda: NOON) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_header_makes_it_fail(asked: str, date: str) -> None:
    seconds = retry_after({"retry-after": asked, "retry-after-ms": asked, "date": date}, lambda: NOON)
    assert seconds is None or seconds >= 0.0


def test_the_bound_doubles_up_to_its_cap_and_all_below_it_may_come_out() -> None:
    settings = RetrySettings(first_backoff_seconds=0.25, longest_backoff_seconds=1.5)
    assert [backoff(retry, settings, lambda: 1.0) for retry in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert backoff(3, settings, lambda: 0.0) == 0.0
    assert backoff(1, settings, lambda: 0.5) == 0.25
