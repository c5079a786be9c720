"""What a router is, and the names that requests and configurations use for them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.errors import ConfigError, did_you_mean
from routellm.registry import Registry
from routellm.types import ModelPair, check_threshold

CONSTANT_PART = "constant"
"""The name of the part of an explanation that every prompt shares; see `Router.explain`."""


LONG_PROMPT = 8_000
"""Characters; beyond so many even a fast router's score may take over a millisecond."""


class Router(ABC):
    """Predicts, for a prompt, the win rate of the strong model over the weak one.

    A subclass gives `calculate_strong_win_rate`; the rest has defaults. Its constructor's keyword arguments are what a
    configuration may set. Register it with `ROUTER_CLS["name"] = MyRouter` or by an entry point in `routellm.routers`.

    Attributes:
        blocking: whether a score may take over a millisecond: a server then keeps it off its event loop. True unless the
            router says otherwise.
        batches: whether many prompts together take less time than one by one: a server then scores those together that wait.
        quantiles: quantiles of its scores over real users' prompts, by which a share of strong calls becomes a threshold
            without any data at hand; None where nobody measured them.
        fingerprint: identifies the exact function that the router computes (its checkpoint's hash, its settings), so that
            scores can be cached; None where they must not be, since nobody vouches that they would be the same again.
    """

    blocking: bool = True
    batches: bool = True
    fingerprint: str | None = None
    quantiles: ScoreQuantiles | None = None

    @abstractmethod
    def calculate_strong_win_rate(self, prompt: str) -> float:
        """The probability, in [0, 1], that the strong model's answer to `prompt` beats the weak model's (paper, eq. 1)."""

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Score many prompts: float64, shape (len(prompts),), equal to single calls in the same order."""
        return np.array([self.calculate_strong_win_rate(prompt) for prompt in prompts], dtype=np.float64)

    def blocks(self, prompt: str) -> bool:
        """Whether the score of this very prompt may take over a millisecond."""
        return self.blocking or len(prompt) > LONG_PROMPT

    def explain(self, prompt: str) -> Mapping[str, float]:
        """What moved the score of `prompt`: contributions to its log-odds by name, positive ones towards the strong model.

        A part named `constant` is the same for every prompt. Empty where the router has no such account to give.
        """
        return {}

    def route(self, prompt: str, threshold: float, pair: ModelPair) -> str:
        """The model of `pair` that answers: the strong one where the win rate is at least `threshold` (paper, section 2).

        Raises:
            RequestError: `threshold` is not a number in [0, 1].
        """
        wins = self.calculate_strong_win_rate(prompt) >= check_threshold(threshold)
        return pair.strong if wins else pair.weak


ROUTER_CLS: Registry[Router] = Registry(
    "router",
    "routellm.routers",
    {
        "adapted": "routellm.routers.adapted:AdaptedRouter",
        "bert": "routellm.routers.bert:BertRouter",
        "causal_llm": "routellm.routers.causal_llm:CausalLLMRouter",
        "gain_fast": "routellm.routers.gain:FastGainRouter",
        "gain_accurate": "routellm.routers.gain:AccurateGainRouter",
        "mf": "routellm.routers.mf:MatrixFactorizationRouter",
        "random": "routellm.routers.random:RandomRouter",
        "sw_ranking": "routellm.routers.sw_ranking:SimilarityWeightedRouter",
    },
)


def build_router(name: str, arguments: Mapping[str, Any] | None = None) -> Router:
    """Construct the router registered under `name` with the keyword arguments that a configuration gives it.

    Raises:
        UnknownNameError: nothing is registered under `name`.
        ConfigError: the class takes no such argument.
    """
    cls = ROUTER_CLS[name]
    if not issubclass(cls, Router):
        raise ConfigError(f"ROUTER_CLS[{name!r}] is {cls!r}, which is not a subclass of routellm.Router.")
    arguments = dict(arguments or {})
    parameters = inspect.signature(cls).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters]
        for key in arguments:
            if key not in known:
                raise ConfigError(
                    f"The router {name!r} takes no argument {key!r}{did_you_mean(key, known)}. "
                    f"It takes: {', '.join(known) or 'none'}."
                )
    return cls(**arguments)
