from __future__ import annotations

import pytest

from routellm.costs import NANO, ModelPrice, PriceList, PriceSettings, Rates, find_price, listed_price, own_price
from routellm.errors import ConfigError
from routellm.types import Usage
from routellm.upstream.base import ModelSpec
from tests.conftest import hide, require


def test_a_price_by_hand_is_exact() -> None:
    price = own_price(0.1, 0.7, 0.025)
    assert price.nanodollars(3, 0) == 300
    assert price.nanodollars(1_000_000, 1_000_000) == 800_000_000
    assert price.nanodollars(1000, 10, 600) == 400 * 100 + 600 * 25 + 10 * 700
    assert price.nanodollars(10, 0, cached_input_tokens=99) == 10 * 25, "no more is cached than there is"
    assert sum(price.nanodollars(1, 0) for _ in range(10_000)) * 1000 == NANO


def test_a_part_of_a_nano_dollar_is_rounded_once() -> None:
    price = own_price(0.0375, 0.0)
    assert [price.nanodollars(tokens, 0) for tokens in (1, 2, 3, 1000)] == [38, 75, 113, 37_500]


def test_without_a_cached_price_cached_input_costs_as_any() -> None:
    assert own_price(2.0, 8.0).nanodollars(1000, 0, 1000) == own_price(2.0, 8.0).nanodollars(1000, 0)


def test_longer_requests_have_their_own_rates() -> None:
    price = ModelPrice(Rates(1000, 2000, 1000), ((100, Rates(3000, 5000, 3000)), (200, Rates(4000, 6000, 4000))), 7)
    assert [price.nanodollars(tokens, 1) for tokens in (100, 101, 201)] == [107 + 2, 315, 817]


def test_the_list_of_what_is_served() -> None:
    specs = [ModelSpec("openai/big", "http://localhost:8000/v1"), ModelSpec("openai/small", "http://localhost:8000/v1")]
    prices = PriceList.load(specs, {"openai/big": PriceSettings(input_per_million=2.0, output_per_million=8.0)})
    usage = Usage(input_tokens=10, output_tokens=1)
    assert prices.nanodollars("openai/big", usage) == 28_000
    assert prices.nanodollars("openai/small", usage) is None
    assert prices.nanodollars("openai/big", None) is None
    assert prices.nanodollars(None, usage) is None
    with pytest.raises(ConfigError, match=r"'openai/bigg', which is not served \(did you mean 'openai/big'\?\)"):
        PriceList.load(specs, {"openai/bigg": PriceSettings(input_per_million=2.0, output_per_million=8.0)})


def test_ones_own_price_goes_before_the_list_price() -> None:
    require("genai_prices")
    spec = ModelSpec("gpt-4o")
    usage = Usage(input_tokens=1000, output_tokens=0)
    assert PriceList.load([spec], {}).nanodollars("gpt-4o", usage) == 2_500_000
    own = {"gpt-4o": PriceSettings(input_per_million=1.0, output_per_million=1.0)}
    assert PriceList.load([spec], own).nanodollars("gpt-4o", usage) == 1_000_000


@pytest.mark.parametrize("price", [-1.0, float("nan"), 2e6])
def test_prices_out_of_range(price: float) -> None:
    with pytest.raises(ValueError, match=r"cached_input_per_million is .*; it must be from 0"):
        PriceSettings(input_per_million=1.0, output_per_million=1.0, cached_input_per_million=price)


def test_list_prices_are_those_of_the_library() -> None:
    genai_prices = require("genai_prices")
    models = "openai/gpt-4o anthropic/claude-sonnet-4-5 google/gemini-2.5-pro deepseek/deepseek-chat groq/llama-3.1-8b-instant"
    for provider, name in (model.split("/") for model in models.split()):
        price = listed_price(name, provider)
        assert price is not None, name
        for given, answered, cached in [
            (1, 0, 0),
            (1234, 567, 89),
            (200_000, 10, 0),
            (200_001, 10, 0),
            (400_000, 80, 300_000),
        ]:
            counted = genai_prices.Usage(input_tokens=given, output_tokens=answered, cache_read_tokens=cached)
            expected = genai_prices.calc_price(counted, name, provider_id=provider).total_price * NANO
            assert abs(price.nanodollars(given, answered, cached) - expected) <= 0.5


def test_without_the_library_prices_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("genai_prices", monkeypatch)
    assert find_price(ModelSpec("gpt-4o")) is None
