"""The baseline: a win rate drawn uniformly from [0, 1], whatever the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.errors import ConfigError
from routellm.routers.routers import Router


class RandomRouter(Router):
    """Uniform scores; each instance has its own generator.

    Args:
        seed: fixes the sequence of scores; None draws a fresh one.
    """

    blocking = False
    # Uniform by construction, so no prompts were needed to know its quantiles.
    quantiles = ScoreQuantiles((0.0, *(i / 1000 for i in range(1, 1000)), 1.0), "uniform by definition", 0)

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ConfigError(f"The seed of the router 'random' is {seed!r}; it must be a non-negative integer.")
        self._generator = np.random.default_rng(seed)

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return float(self._generator.random())

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return self._generator.random(len(prompts))
