"""From a language model's logits to a distribution over ratings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError

MAX_NEW_TOKENS = 6
"""So many tokens are generated, greedily, until one is a rating. A model that was trained on ratings gives one at once."""


class LanguageModel(Protocol):
    """What a rating is read off."""

    @property
    def vocabulary(self) -> int:
        """How many tokens it has logits for."""

    def remember(self, ids: Sequence[int]) -> None:
        """Make ready for texts that begin with these token ids."""

    def last_logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Logits of the token after each text of token ids, shape (len(texts), vocabulary)."""


class Rater:
    """Reads the distribution over ratings off a language model.

    Args:
        model: the model.
        first_token: id of the first rating token.
        n_ratings: how many there are.
        stop: ids of tokens that end an answer.
    """

    def __init__(self, model: LanguageModel, first_token: int, n_ratings: int, stop: frozenset[int]) -> None:
        self._model, self._stop = model, stop
        self._ratings = slice(first_token, first_token + n_ratings)
        self._n = n_ratings

    def probabilities(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """The softmax over the ratings at the first greedily generated position that is one of them.

        Args:
            prompts: token ids, which go through the model as one batch.

        Returns:
            shape (len(prompts), n_ratings); a row of NaN where no rating came within `MAX_NEW_TOKENS` tokens.

        Raises:
            CheckpointError: the model's logits are not finite.
        """
        found = np.full((len(prompts), self._n), np.nan)
        texts = {index: list(ids) for index, ids in enumerate(prompts)}
        for _ in range(MAX_NEW_TOKENS):
            if not texts:
                break
            # The prompt is read again where no rating came at once: rare enough that keeping its state would not pay.
            logits = self._model.last_logits(list(texts.values()))
            if not np.isfinite(logits).all():
                raise CheckpointError(
                    "The language model's logits are not finite. In float16 they overflow: set dtype to bfloat16 or float32. "
                    "Otherwise its weights are damaged."
                )
            for index, row in zip(list(texts), logits, strict=True):
                token = int(row.argmax())
                if self._ratings.start <= token < self._ratings.stop:
                    ratings = row[self._ratings]
                    weights = np.exp(ratings - ratings.max())
                    found[index] = weights / weights.sum()
                if token in self._stop or not np.isnan(found[index]).any():
                    del texts[index]
                else:
                    texts[index].append(token)
        return found
