"""Battles laid out so that a Bradley-Terry model of tiers can be fitted for each prompt: the model behind `sw_ranking`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.routers.battles import MIN_CHARS, BattleTable
from routellm.routers.bradley_terry import Floats, count_wins, fit_ratings, group_into_tiers
from routellm.routers.similarity import Bytes, PromptVectors


@dataclass(frozen=True, slots=True)
class Settings:
    """What the win rate depends on beside the battles.

    Attributes:
        strong, weak: the two models compared.
        num_tiers: how many tiers models are grouped into, at most one a model.
        sharpness: s in the weight 10 * 10^(1 + s * (cos / max cos - 1)). 1 is the paper's; more makes similar battles count
            for more against the rest.
    """

    strong: str
    weak: str
    num_tiers: int = 10
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.num_tiers, bool) or not isinstance(self.num_tiers, int) or self.num_tiers < 2:
            raise ConfigError(f"num_tiers is {self.num_tiers!r}; it must be an integer of at least 2.")
        if isinstance(self.sharpness, bool) or not isinstance(self.sharpness, int | float) or not 0 <= self.sharpness <= 100:
            raise ConfigError(f"sharpness is {self.sharpness!r}; it must be a number from 0 to 100.")

    def replaced(self, **changes: Any) -> Settings:
        """These settings with `changes`, of which None leaves a setting as it is."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


class Ranking:
    """Battles of tiers, laid out for summation; never changed, so that threads may share it.

    Raises:
        ConfigError: the battles know no model of a name in `settings`, or both models fall into one tier.
        DataError: no battle is left, or there are ties only.
    """

    def __init__(self, table: BattleTable, vectors: PromptVectors, settings: Settings) -> None:
        self.table, self.vectors, self.settings = table, vectors, settings
        if not len(table):
            raise DataError(
                f"No battle is left to rank models by; give battles on prompts of at least {MIN_CHARS} characters."
            )
        if np.all(table.points == 1):
            raise DataError("All battles are ties, so no model ranks above another; give battles that somebody won.")
        won = table.weight.astype(np.float64) * table.points / 2.0
        lost = table.weight.astype(np.float64) - won
        first, second = table.first.astype(np.intp), table.second.astype(np.intp)
        ratings = fit_ratings(count_wins(first, second, won, lost, len(table.models))[None])[0]
        self.tiers = tiers = group_into_tiers(ratings, settings.num_tiers)
        self.tier_count = int(tiers.max()) + 1
        self.strong, self.weak = (int(tiers[self._place(name)]) for name in (settings.strong, settings.weak))
        if self.strong == self.weak:
            raise ConfigError(
                f"The models {settings.strong!r} and {settings.weak!r} are so near in rating that they share one of "
                f"{self.tier_count} tiers, so no prompt tells them apart. Raise num_tiers (at most {len(table.models)}), or "
                f"compare other models."
            )
        self._lay_out(tiers[first], tiers[second], won, lost)

    def win_logits(self, queries: Bytes) -> Floats:
        """The log-odds that the strong model wins, float64, shape (n,), for prompts' vectors, int8, shape (n, width)."""
        return self._logits([self._wins(self._weights(relative)) for relative in self.vectors.relative_cosines(queries)])

    def constant_logit(self) -> float:
        """The same where every battle weighs alike."""
        return float(self._logits([self._wins(self._weights(np.ones(len(self.vectors))))])[0])

    def extended(self, table: BattleTable, vectors: Bytes) -> Ranking:
        """The ranking by these battles and those of `table`, which are on the prompts of `vectors`."""
        return Ranking(self.table.joined(table, len(self.vectors)), self.vectors.extended(vectors), self.settings)

    def sha256(self) -> str:
        """A hash of the battles, their embeddings and the settings."""
        digest = hashlib.sha256(repr((self.table.models, self.settings)).encode())
        for array in (*self.table.columns().values(), self.vectors.stored, self.vectors.added):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def _place(self, model: str) -> int:
        if model not in self.table.models:
            raise ConfigError(
                f"The battles of sw_ranking know no model {model!r}{did_you_mean(model, self.table.models)}. "
                f"They know: {', '.join(self.table.models)}."
            )
        return self.table.models.index(model)

    def _lay_out(self, first: NDArray[np.intp], second: NDArray[np.intp], won: Floats, lost: Floats) -> None:
        """Sort wins by cell of the tiers' matrix, so that a cell's sum is that of one run of entries.

        Battles within a tier are left out: they don't move the fit.
        """
        cell = np.concatenate((first * self.tier_count + second, second * self.tier_count + first))
        prompt = np.tile(self.table.prompt.astype(np.intp), 2)
        weight = np.concatenate((won, lost))
        kept = (weight > 0.0) & np.tile(first != second, 2)
        key, entry = np.unique(cell[kept] * len(self.vectors) + prompt[kept], return_inverse=True)
        self._weight = np.bincount(entry, weight[kept], len(key))
        self._prompt = key % len(self.vectors)
        self._cells, self._starts = np.unique(key // len(self.vectors), return_index=True)

    def _weights(self, relative: Floats) -> Floats:
        return np.asarray(10.0 * np.exp(log(10.0) * (1.0 + self.settings.sharpness * (relative - 1.0))))

    def _wins(self, weights: Floats) -> Floats:
        # One prompt at a time: its sums then don't depend on which others came with it.
        wins = np.zeros(self.tier_count**2)
        wins[self._cells] = np.add.reduceat(weights[self._prompt] * self._weight, self._starts)
        return wins

    def _logits(self, wins: Sequence[Floats]) -> Floats:
        ratings = fit_ratings(np.array(wins).reshape(len(wins), self.tier_count, self.tier_count))
        return ratings[:, self.strong] - ratings[:, self.weak]
