from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from routellm.costs import NANO
from routellm.errors import BudgetError, RateLimitError, RequestError
from routellm.keys.limits import Estimate, Grant, Limits, Take, Window, grant
from routellm.keys.policy import KeyPolicy
from tests.keys.making import NOON

MINUTE, DAY, MONTH = 1_779_999_960, 1_779_926_400, 1_777_593_600  # the windows that NOON lies in


def limits(**policy: Any) -> Limits:
    return Limits.made("abc", "team a", KeyPolicy(**policy))


def asked(of: Limits, estimate: Estimate, amounts: dict[Window, int]) -> Grant | RequestError:
    return grant(Take(of, estimate, NOON, of.windows(NOON)), amounts)


def at(kind: str, amount: int) -> dict[Window, int]:
    start = {"requests": MINUTE, "tokens": MINUTE, "day": DAY, "month": MONTH}[kind]
    return {Window("abc", start, kind): amount}  # type: ignore[arg-type]


def test_the_windows_are_minutes_days_and_months_of_utc() -> None:
    every = limits(requests_per_minute=1, tokens_per_minute=1, dollars_per_day=1, dollars_per_month=1)
    assert [window.start for window in every.windows(NOON).values()] == [MINUTE, MINUTE, DAY, MONTH]
    for text, start in (("2028-02-29T23:59:59", "2028-02-01"), ("2026-12-31T00:00:00", "2026-12-01")):
        now = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
        assert every.windows(now)["month"].start == datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()


def test_up_to_the_limit_and_no_further() -> None:
    few = limits(requests_per_minute=2, tokens_per_minute=100)
    assert isinstance(asked(few, Estimate(40), {**at("requests", 1), **at("tokens", 60)}), Grant)
    refused = asked(few, Estimate(40), at("requests", 2))
    assert isinstance(refused, RateLimitError)
    assert (refused.status, refused.type, refused.retry_after) == (429, "requests", 20)
    assert "limited to 2 requests a minute" in str(refused)
    refused = asked(few, Estimate(41), at("tokens", 60))
    assert isinstance(refused, RateLimitError)
    assert (refused.type, refused.retry_after) == ("tokens", 20)
    assert "40 are left in this one, and this request is estimated at 41" in str(refused)


def test_what_no_minute_can_take_is_not_to_be_tried_again() -> None:
    refused = asked(limits(tokens_per_minute=100), Estimate(101), {})
    assert isinstance(refused, RateLimitError)
    assert refused.retry_after is None
    assert "smaller max_tokens" in str(refused)


def test_a_spent_budget_stops() -> None:
    little = limits(dollars_per_day=1, dollars_per_month=5)
    assert isinstance(asked(little, Estimate(0, NANO // 10), at("day", 9 * NANO // 10)), Grant)
    refused = asked(little, Estimate(0, NANO // 10 + 1), at("day", 9 * NANO // 10))
    assert isinstance(refused, BudgetError)
    assert (refused.status, refused.code, refused.type) == (402, "budget_exceeded", "insufficient_quota")
    assert "$1.00 a day, of which $0.90 are spent or reserved" in str(refused)
    assert "begins at 2026-05-29 00:00 UTC" in str(refused)
    refused = asked(little, Estimate(), at("month", 5 * NANO))
    assert "The next month begins at 2026-06-01 00:00 UTC" in str(refused)


def test_or_leaves_the_weak_model_whose_price_is_counted_on() -> None:
    weak = limits(dollars_per_day=1, tokens_per_minute=50, over_budget="weak")
    granted = asked(weak, Estimate(10, 500, 20), at("day", NANO))
    assert isinstance(granted, Grant)
    assert granted.only_weak
    assert granted.reserved == {**at("tokens", 10), **at("day", 20)}
    assert isinstance(asked(weak, Estimate(51, 500, 20), at("day", NANO)), RateLimitError)
    assert not getattr(asked(weak, Estimate(10, 500, 20), {}), "only_weak", True)
