"""What a router that is a sum of parts looks at: an embedding, features of form, words, and other routers' scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.courtesy import without_courtesy
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.form import FORM_NAMES, form_features, form_features_batch
from routellm.embeddings.normal import without_repeats
from routellm.embeddings.surface import SURFACE_NAMES
from routellm.embeddings.words import word_counts, word_counts_batch
from routellm.routers.odds import log_odds
from routellm.routers.routers import Router

if TYPE_CHECKING:
    from routellm.routers.padding import PaddingFilter


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of one prompt, or of n prompts with a first axis of n.

    Attributes:
        embedding: float32, shape (dim,).
        form: surface features, then form features: float32, shape (len(Viewer.form_names),).
        words: float32, shape (BUCKETS,), or (0,) where nobody looks at them.
        prior: the log-odds of the prior routers' scores: float32, shape (n_priors,).
    """

    embedding: Vector
    form: Vector
    words: Vector
    prior: Vector

    def __len__(self) -> int:
        return len(self.embedding)

    def row(self, number: int) -> View:
        """The view of one prompt of many."""
        return View(self.embedding[number], self.form[number], self.words[number], self.prior[number])

    def take(self, rows: NDArray[np.intp]) -> View:
        """The views of some prompts."""
        return View(self.embedding[rows], self.form[rows], self.words[rows], self.prior[rows])


_NOTHING = np.empty(0, dtype=np.float32)


class Viewer:
    """Looks at prompts, without courtesies, without the sentences and lines that they say again, and without padding if there
    is a filter for it.

    Args:
        features: give the embedding and the surface features.
        priors: routers whose scores are seen too, by name.
        words: whether words are looked at.
        padding: leaves out what was put around a question; None keeps it.
    """

    form_names = (*SURFACE_NAMES, *FORM_NAMES)

    def __init__(
        self,
        features: PromptFeatures,
        priors: dict[str, Router],
        *,
        words: bool = True,
        padding: PaddingFilter | None = None,
    ) -> None:
        self.features, self.priors, self.words, self.padding = features, priors, words, padding
        self.blocking = features.embedder.blocking or any(router.blocking for router in priors.values())

    def blocks(self, prompt: str) -> bool:
        """Whether a look at this very prompt may take over a millisecond."""
        slow = self.padding is not None and self.padding.is_slow(prompt)
        return slow or any(router.blocks(prompt) for router in self.priors.values())

    def read(self, prompt: str) -> str:
        """What of a prompt is looked at."""
        prompt = without_repeats(without_courtesy(prompt))
        return prompt if self.padding is None else self.padding.strip(prompt)

    def see(self, prompt: str) -> View:
        """One prompt's view."""
        prompt = self.read(prompt)
        return self._view(self.features.encode(prompt), form_features(prompt), *self.rest(prompt))

    def rest(self, prompt: str) -> tuple[Vector, Vector]:
        """The words and the prior routers' log-odds of a prompt as `read` gives it."""
        scores = [log_odds(router.calculate_strong_win_rate(prompt)) for router in self.priors.values()]
        return word_counts(prompt) if self.words else _NOTHING, np.array(scores, dtype=np.float32) if scores else _NOTHING

    def see_batch(self, prompts: Sequence[str]) -> View:
        """Many prompts' views; rows equal `see` of each prompt."""
        prompts = [self.read(prompt) for prompt in prompts]
        vectors = self.features.encode_batch(prompts)
        return self._view(vectors, form_features_batch(prompts), *self.rest_batch(prompts))

    def rest_batch(self, prompts: Sequence[str]) -> tuple[Vector, Vector]:
        """The words and the prior routers' log-odds of n prompts as `read` gives them, with a first axis of n."""
        scores = np.empty((len(prompts), len(self.priors)), dtype=np.float32)
        for column, router in enumerate(self.priors.values()):
            scores[:, column] = [log_odds(float(score)) for score in router.calculate_strong_win_rates(prompts)]
        words = word_counts_batch(prompts) if self.words else np.empty((len(prompts), 0), dtype=np.float32)
        return words, scores

    def _view(self, vectors: Vector, form: Vector, words: Vector, prior: Vector) -> View:
        width = self.features.embedder.dim
        joined = np.concatenate((vectors[..., width:], form), axis=-1)
        return View(vectors[..., :width], joined, words, prior)
