"""What is taken, and what is settled."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from routellm.costs import NANO, PriceList, own_price
from routellm.errors import BudgetError, KeyNotAllowedError, KeysUnavailableError, RateLimitError
from routellm.keys.client import ANONYMOUS, Client
from routellm.keys.guard import Guard
from routellm.keys.lease import FREE, Lease
from routellm.keys.limits import Estimate
from routellm.types import Decision, ModelPair, RequestRecord
from tests.keys.making import NOON, PATIENCE, admitted, guarding, made, record, run, set_clock, spent
from tests.ledger.postgres import PostgresServer

MINUTE, DAY, MONTH = 1_779_999_960, 1_779_926_400, 1_777_593_600  # the windows that NOON lies in
PAIR = ModelPair("openai/big", "openai/small")
PRICES = PriceList({PAIR.strong: own_price(2.5, 10.0), PAIR.weak: own_price(0.15, 0.6)})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return set_clock(monkeypatch)


def client_of(guard: Guard, url: str, **policy: Any) -> Client:
    return admitted(guard, made(url, **policy)[1])


async def take(guard: Guard, client: Client, tokens: int = 0, nanodollars: int | None = 0) -> Lease:
    return await guard.take(client, Estimate(tokens, nanodollars, nanodollars and nanodollars // 10))


def test_without_limits_there_is_nothing_to_take(sqlite_url: str) -> None:
    with guarding(sqlite_url) as guard:
        assert run(take(guard, ANONYMOUS)) is FREE
        assert run(take(guard, client_of(guard, sqlite_url, routers=("mf",)))) is FREE
        FREE.settle(record(10), 5)
        assert spent(guard) == {}


def test_the_real_figures_take_the_place_of_the_estimate(url: str) -> None:
    policy = {"requests_per_minute": 10, "tokens_per_minute": 1000, "dollars_per_day": 1, "dollars_per_month": 1}
    with guarding(url) as guard:
        client = client_of(guard, url, **policy)
        lease = run(take(guard, client, 500, 600))
        reserved = {("requests", MINUTE): 1, ("tokens", MINUTE): 500, ("day", DAY): 600, ("month", MONTH): 600}
        assert spent(guard) == reserved
        lease.settle(record(100, 20), 700)
        lease.settle(record(100, 20), 700)  # a second time does nothing
        settled = {("requests", MINUTE): 1, ("tokens", MINUTE): 120, ("day", DAY): 700, ("month", MONTH): 700}
        assert spent(guard) == settled


@pytest.mark.parametrize(
    ("finished", "nanodollars", "tokens", "day"),
    [
        (record(None, outcome="failed", status=502), None, 0, 0),
        (record(None, outcome="refused", status=402, attempts=0), None, 0, 0),
        (record(None, status=429), None, 0, 0),
        (None, None, 0, 0),
        (record(None), None, 50, 60),  # answered, and nobody knows what it took: the estimate stands
        (record(None, outcome="client-gone", status=499), None, 50, 60),
        (record(None, outcome="client-gone", status=499, attempts=0, upstream_ms=5.0), None, 50, 60),
        (record(None, outcome="client-gone", status=499, attempts=0), None, 0, 0),
        (record(30), None, 30, 60),  # a fallback without a known price
    ],
)
def test_what_is_settled_where_not_all_is_known(
    sqlite_url: str, finished: RequestRecord | None, nanodollars: int | None, tokens: int, day: int
) -> None:
    with guarding(sqlite_url) as guard:
        client = client_of(guard, sqlite_url, tokens_per_minute=100, dollars_per_day=1)
        lease = run(take(guard, client, 50, 60))
        lease.settle(finished, nanodollars)
        assert spent(guard) == {("tokens", MINUTE): tokens, ("day", DAY): day}


def test_over_a_limit_until_the_next_minute(url: str, clock: Any) -> None:
    with guarding(url) as guard:
        client = client_of(guard, url, requests_per_minute=2)
        other = client_of(guard, url, requests_per_minute=1)

        async def use() -> None:
            await take(guard, client)
            await take(guard, client)
            with pytest.raises(RateLimitError) as caught:
                await take(guard, client)
            assert caught.value.retry_after == 20
            await take(guard, other)  # which has its own
            clock.now += 20
            await take(guard, client)

        run(use())
        assert guard.states().over_limit == 1


def test_clock_jumps_let_nothing_through_twice(sqlite_url: str, clock: Any) -> None:
    with guarding(sqlite_url) as guard:
        client = client_of(guard, sqlite_url, requests_per_minute=1, dollars_per_day=1)

        async def use() -> None:
            await take(guard, client, 0, 3 * NANO // 4)
            clock.now -= 60
            with pytest.raises(BudgetError):  # the same day: what is spent stays spent
                await take(guard, client, 0, NANO // 2)
            clock.now += 400 * 86_400  # far ahead, and back again
            await take(guard, client, 0, NANO // 2)
            clock.now = NOON
            with pytest.raises(RateLimitError):
                await take(guard, client)
            clock.now = NOON + 60
            with pytest.raises(BudgetError):
                await take(guard, client, 0, NANO // 2)

        run(use())


def test_many_at_once_never_overshoot(url: str) -> None:
    with guarding(url) as guard:
        client = client_of(guard, url, requests_per_minute=300, dollars_per_day=0.000_001)

        async def use() -> list[Lease | BaseException]:
            return await asyncio.gather(*(take(guard, client, 0, 7) for _ in range(400)), return_exceptions=True)

        answers = run(use())
        assert sum(isinstance(answer, Lease) for answer in answers) == 1000 // 7
        assert {type(answer) for answer in answers} == {Lease, BudgetError}
        assert spent(guard)[("day", DAY)] == 1000 // 7 * 7


def test_a_spent_budget_stops_or_leaves_the_weak_model(sqlite_url: str) -> None:
    strong, weak = Decision(PAIR.strong, "threshold", "mf", 0.5, 0.7), Decision(PAIR.weak, "threshold", "mf", 0.5, 0.2)
    with guarding(sqlite_url) as guard:
        stopped = client_of(guard, sqlite_url, dollars_per_day=0.5)
        goes_on = client_of(guard, sqlite_url, dollars_per_day=0.5, over_budget="weak")
        with pytest.raises(BudgetError, match=r"budget of \$0.50 a day, of which \$0.00 are spent"):
            run(take(guard, stopped, 0, NANO))
        lease = run(take(guard, goes_on, 0, NANO))
        assert lease.only_weak
        decision = lease.decide(strong, PAIR)
        assert decision == Decision(PAIR.weak, "budget", "mf", 0.5, 0.7)
        assert lease.decide(weak, PAIR) is weak
        assert run(take(guard, goes_on, 0, 10)).decide(strong, PAIR) is strong
        for needs_strong in (Decision(PAIR.strong, "pinned"), Decision(PAIR.strong, "modality", "mf", 0.5)):
            with pytest.raises(BudgetError, match="budget is spent, which leaves it 'openai/small'"):
                lease.decide(needs_strong, PAIR)
        lease.settle(record(10), NANO // 20)
        assert spent(guard)[("day", DAY)] == NANO // 20 + 10
        assert guard.states().over_budget == 1


def test_a_budget_needs_prices(sqlite_url: str) -> None:
    with guarding(sqlite_url) as guard:
        client = client_of(guard, sqlite_url, dollars_per_day=1)
        with pytest.raises(KeyNotAllowedError, match="gateway: prices"):
            run(take(guard, client, 0, None))
        assert run(take(guard, client_of(guard, sqlite_url, requests_per_minute=1), 0, None)).only_weak is False
    with guarding(sqlite_url, unpriced="free") as guard:
        lease = run(take(guard, client, 0, None))
        lease.settle(record(10), None)
        assert spent(guard) == {("requests", MINUTE): 1}


def test_an_estimate_counts_the_text_and_all_the_output_that_is_allowed(sqlite_url: str) -> None:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "word " * 400}], "max_tokens": 50})
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    with guarding(sqlite_url, default_output_tokens=300) as guard:
        bounded = guard.estimate(body, fields, PAIR.strong, PAIR.weak, PRICES)
        given = bounded.tokens - 50
        assert 400 <= given <= 700
        assert bounded.nanodollars == given * 2500 + 50 * 10_000
        assert bounded.weak_nanodollars == given * 150 + 50 * 600
        unbounded = {name: value for name, value in fields.items() if name != "max_tokens"}
        assert guard.estimate(body, unbounded, PAIR.strong, PAIR.weak, PRICES).tokens == given + 300
        assert guard.estimate(body, unbounded, PAIR.strong, PAIR.weak, PRICES, answers=False).tokens == given
        assert guard.estimate(body, fields, "unknown", PAIR.weak, PRICES).nanodollars is None


def test_what_was_taken_for_a_client_that_left_is_given_back(sqlite_url: str) -> None:
    with guarding(sqlite_url) as guard:
        client = client_of(guard, sqlite_url, tokens_per_minute=100)

        async def leave() -> None:
            task = asyncio.create_task(take(guard, client, 60))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            deadline = time.monotonic() + PATIENCE
            while True:  # as soon as the thread is through with it there is room again
                try:
                    return (await take(guard, client, 100)).settle(None, None)
                except RateLimitError:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)

        run(leave())
        assert spent(guard) == {("tokens", MINUTE): 0}


def test_settlements_that_wait_are_booked_at_the_end(url: str) -> None:
    with guarding(url) as guard:
        client = client_of(guard, url, dollars_per_day=1)
        leases = [run(take(guard, client, 0, 100)) for _ in range(5)]
        for lease in leases:
            lease.settle(record(1), 30)
    with guarding(url) as guard:
        assert spent(guard) == {("day", DAY): 150}


def test_a_database_that_is_gone_lets_requests_through_and_books_them_later(
    postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with guarding(postgres_url) as guard:
        client = client_of(guard, postgres_url, requests_per_minute=1, dollars_per_day=1)
        run(take(guard, client, 0, 100)).settle(record(1), 100)
        spent(guard)
        postgres.stop()
        try:
            leases = [run(take(guard, client, 0, 100)) for _ in range(3)]
            assert guard.states().unchecked == 3
            assert guard.states().last_error is not None
            for lease in leases:
                lease.settle(record(1), 40)
        finally:
            postgres.start()
        deadline = time.monotonic() + PATIENCE
        while guard.states().last_error is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert spent(guard)[("day", DAY)] == 100 + 3 * 40
        with pytest.raises(RateLimitError):
            run(take(guard, client))
    assert "limits could not be checked: 1; they are let through" in caplog.text
    assert "can't be asked" in caplog.text
    assert "limits are checked again" in caplog.text
    assert "not-asked-for" not in caplog.text, "the database's password"


def test_or_refuses_them(postgres: PostgresServer, postgres_url: str) -> None:
    with guarding(postgres_url, when_unreachable="refuse") as guard:
        client = client_of(guard, postgres_url, requests_per_minute=1)
        free = client_of(guard, postgres_url)
        postgres.stop()
        try:
            with pytest.raises(KeysUnavailableError):
                run(take(guard, client))
            assert run(take(guard, free)) is FREE, "a key without limits needs no database"
        finally:
            postgres.start()


def test_a_database_that_is_late_holds_up_one_request_and_is_caught_up_with(postgres_url: str) -> None:
    with guarding(postgres_url, wait_seconds=0.2) as guard:
        client = client_of(guard, postgres_url, requests_per_minute=1, dollars_per_day=1)
        with guard.store.engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1 FROM keys FOR UPDATE")  # somebody's lock

            async def use() -> list[Lease]:
                return [await take(guard, client, 0, 100) for _ in range(50)]  # 10 s, if each of them waited

            started = time.monotonic()
            leases = run(use())
            assert time.monotonic() - started < 5
            assert guard.states().unchecked == 50
        for lease in leases:
            lease.settle(record(1), 2)
        deadline = time.monotonic() + PATIENCE
        while spent(guard).get(("day", DAY)) != 100:
            assert time.monotonic() < deadline
        assert not spent(guard).get(("requests", MINUTE)), "what was granted too late is given back"
