from __future__ import annotations

import asyncio

import pytest

from routellm.evals.collecting.journal import Usage
from routellm.evals.collecting.prices import Budget, find_price, fixed_price
from routellm.upstream.base import ModelSpec
from tests.conftest import require


def test_a_price_of_ones_own() -> None:
    assert fixed_price(2.0, 8.0)(Usage(1_000_000, 500_000)) == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("name", "dollars"),
    [
        ("gpt-4o", 12.5),
        ("openai/gpt-4o", 12.5),
        ("litellm/openai/gpt-4o", 12.5),
        ("gpt-4-1106-preview", 40.0),
        ("claude-3-5-haiku-latest", 4.8),
    ],
)
def test_list_prices_for_a_million_tokens_each_way(name: str, dollars: float) -> None:
    require("genai_prices")
    price = find_price(ModelSpec(name))
    assert price is not None
    assert price(Usage(1_000_000, 1_000_000)) == pytest.approx(dollars)


def test_cached_tokens_are_cheaper() -> None:
    require("genai_prices")
    price = find_price(ModelSpec("gpt-4o"))
    assert price is not None
    assert price(Usage(1000, 0, cached=1000)) < price(Usage(1000, 0))


@pytest.mark.parametrize("name", ["groq/llama-3.1-8b-instant", "together_ai/mistralai/Mixtral-8x7B-Instruct-v0.1"])
def test_prefixes_of_other_providers_are_known(name: str) -> None:
    require("genai_prices")
    assert find_price(ModelSpec(name)) is not None


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("openai/no-such-model"),
        ModelSpec("demo/strong"),
        ModelSpec("ollama/llama3"),
        ModelSpec("openai/gpt-4o", "http://localhost:8000/v1"),
    ],
)
def test_where_no_list_price_holds_there_is_none(spec: ModelSpec) -> None:
    assert find_price(spec) is None


def test_a_budget_counts_what_is_under_way() -> None:
    async def main() -> None:
        budget = Budget(10.0)
        assert await budget.reserve(6.0)
        waiting = asyncio.ensure_future(budget.reserve(6.0))
        await asyncio.sleep(0)
        assert not waiting.done()  # 6 under way and 6 more would be too much, but the first may turn out cheaper
        budget.settle(6.0, 1.0)
        assert await waiting
        budget.settle(6.0, 6.0)
        assert budget.spent == 7.0
        assert not await budget.reserve(3.5)
        assert await budget.reserve(3.0)

    asyncio.run(main())


def test_without_a_limit_anything_goes() -> None:
    assert asyncio.run(Budget().reserve(1e9))
