"""Dollars: what a share of strong calls costs on a benchmark's prompts, and how much that saves.

Where the data hold each answer's real cost, that is used. Elsewhere a call is priced by tokens: the prompt's are estimated
from its length, and every answer is taken to have the same stated number of them; such figures are marked as estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routellm import costs
from routellm.errors import ConfigError
from routellm.evals.benchmarks.base import BenchmarkData
from routellm.metrics.curves import Array
from routellm.types import ModelPair

CHARACTERS_PER_TOKEN = 4.0
"""The usual rule of thumb for English text."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class CallCosts:
    """Dollars of each prompt's answer by either model, shape (n,); `estimated` says by which rule, None where measured."""

    strong: Array
    weak: Array
    estimated: str | None

    def of_share(self, scores: Array, share: float) -> float:
        """Mean dollars a call where the `share` of prompts with the highest scores goes to the strong model."""
        strong = np.zeros(len(scores), dtype=bool)
        strong[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
        return float(np.where(strong, self.strong, self.weak).mean())


def cost_saving_ratio(random_cpt: float, router_cpt: float) -> float:
    """The paper's ratio (section 5.3): strong calls that a random router needs for one quality, over those that this one
    needs. NaN where either is unknown, infinity where the router needs none."""
    if np.isnan(random_cpt) or np.isnan(router_cpt):
        return float("nan")
    return random_cpt / router_cpt if router_cpt > 0.0 else float("inf")


def call_costs(data: BenchmarkData, pair: ModelPair, prices: dict[str, Price], answer_tokens: int = 200) -> CallCosts | None:
    """What each call costs; None where a model's price is unknown.

    Args:
        prices: model name -> price, in place of the bundled price list.
        answer_tokens: the stated length of every answer, where real costs are not known.

    Raises:
        ConfigError: a price is negative, or is given for a model that is not of the pair.
    """
    for model, price in prices.items():
        if model not in (pair.strong, pair.weak):
            raise ConfigError(f"A price is given for {model!r}, which is neither {pair.strong!r} nor {pair.weak!r}.")
        if price.input < 0.0 or price.output < 0.0:
            raise ConfigError(f"The price of {model!r} is negative: {price.input}, {price.output}.")
    if not prices and pair.strong in data.costs and pair.weak in data.costs:
        return CallCosts(data.costs[pair.strong], data.costs[pair.weak], None)
    tokens = np.array([len(prompt) / CHARACTERS_PER_TOKEN for prompt in data.prompts])
    found = [prices.get(model) or listed_price(model) for model in (pair.strong, pair.weak)]
    if found[0] is None or found[1] is None:
        return None
    strong, weak = ((tokens * price.input + answer_tokens * price.output) / 1e6 for price in found if price is not None)
    rule = f"prompts at {CHARACTERS_PER_TOKEN:g} characters a token, {answer_tokens} tokens an answer"
    return CallCosts(strong, weak, rule)


def listed_price(model: str) -> Price | None:
    """The price of a model by the bundled list of `genai-prices`; None where it has none.

    Raises:
        MissingExtraError: the extra `eval` is not installed.
    """
    provider, _, rest = model.partition("/")
    for name, provider_id in ((model, None), (rest, provider), (rest, None)):
        if name and (found := costs.listed_price(name, provider_id)):
            return Price(found.rates.input / 1e6, found.rates.output / 1e6)
    return None
