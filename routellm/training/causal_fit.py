"""The fine-tuning of a language model's adapter on ratings; what it shares with other models is in `fine_tuning`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from routellm.routers.causal.lora import adapt, adapter_tensors, rating_head
from routellm.routers.causal.model import last_logits
from routellm.training.bert_data import Examples, Rows, by_length
from routellm.training.fine_tuning import FineTuning, as_array
from routellm.training.schedule import Schedule

TOKENS_AT_ONCE = 512
"""Of a step's rows, as many go through the model together as make this many tokens: gradients add up over the parts. Each
token takes memory until its gradient is there, some 3 MB where all layers of a model of 135M are trained."""

RATINGS = (2, 4, 5)
"""The rating of the weak model's answer by class: the strong model wins, a tie, the weak model wins.

A tie means that the weak answer would do: 4, the least rating at which the weak model is called. A loss says that it would
not, without saying by how much: 2, in the middle of the ratings 1 to 3 that call the strong model. A win is the best: 5.
"""
N_RATINGS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Schedule):
    """What is set for adapters.

    Attributes:
        rank: of the adapters; alpha: their output's factor is alpha / rank.
        layers: adapt the last so many transformer layers only, which saves the gradients of those below; None for all.
    """

    rank: int = 8
    alpha: float = 16.0
    layers: int | None = None
    learning_rate: float = 5e-4
    batch_size: int = 16
    epoch_size: int = 10_000
    save_every: int = 20


class Fit(FineTuning):
    """One run.

    The loss is the cross-entropy of the rating token over the whole vocabulary, so that greedy generation learns to give a
    rating and nothing else. Where a prompt has several comparisons, their outcomes share the target.

    Args:
        model: a language model of transformers; gets adapters, and an output layer with the rating tokens.
        first_rating: id of the first rating token.
        initial: ids of the vocabulary whose output rows the rating tokens start from.
        examples, training, checking: the rows of `examples` to train on, and those that say when to stop.
        state: where the run's state is saved. It can be gone on from with the same rows and settings.
    """

    def __init__(
        self,
        model: Any,
        first_rating: int,
        initial: list[int],
        examples: Examples,
        training: Rows,
        checking: Rows,
        settings: Settings,
        state: Path,
    ) -> None:
        self.model, self.settings, self._first = model, settings, first_rating
        self._pairs = adapt(model, settings.rank, settings.alpha, settings.layers, settings.seed)
        weight = model.get_output_embeddings().weight
        self._head = rating_head(weight, weight.detach()[initial].clone(), first_rating)
        model.set_output_embeddings(self._head)
        offsets = _base_rates(examples, training, settings.source_intercepts)
        self._offsets = nn.Parameter(offsets.to(weight.device), requires_grad=settings.source_intercepts)
        adapters = {
            f"{name}.{part}": each for name, pair in self._pairs.items() for part, each in zip("ab", pair, strict=True)
        }
        plain = {"rows": self._head.rows, "offsets": self._offsets}
        shared = {"full_rate": settings.learning_rate}
        groups = [
            {"params": list(adapters.values()), "weight_decay": settings.weight_decay, **shared},
            {"params": [each for each in plain.values() if each.requires_grad], "weight_decay": 0.0, **shared},
        ]
        super().__init__(model, plain | adapters, groups, examples, training, checking, settings, state, TOKENS_AT_ONCE)

    def tensors(self) -> dict[str, NDArray[np.float16]]:
        """The adapter as a checkpoint holds it."""
        pairs = {name: (as_array(a), as_array(b)) for name, (a, b) in self._pairs.items()}
        return adapter_tensors(pairs, self.settings.alpha / self.settings.rank, as_array(self._head.rows))

    def validation_loss(self, rows: Rows) -> float:
        self.model.eval()
        each = np.zeros(len(self.examples.ids))
        with torch.inference_mode():
            for part in by_length(self.examples, rows, TOKENS_AT_ONCE):
                each[part] = self.losses(part).double().cpu().numpy()
        return self.mean_over_sources(rows, each[rows])

    def losses(self, rows: Rows) -> Tensor:
        logits = last_logits(self.model, [self.examples.ids[row].tolist() for row in rows.tolist()]).float()
        offsets = self._offsets[torch.from_numpy(self.examples.source[rows])]
        logits = torch.cat([logits[:, : self._first], logits[:, self._first :] + offsets], dim=1)
        ratings = [self._first + rating - 1 for rating in RATINGS]
        shares = torch.from_numpy(self.examples.targets[rows]).to(logits)
        return -(shares * logits.log_softmax(dim=1)[:, ratings]).sum(dim=1)


def _base_rates(examples: Examples, training: Rows, source_intercepts: bool) -> Tensor:
    """Each source's log rates of the ratings over their mean: shape (sources, ratings); 0 without intercepts.

    The offsets start there: at the optimiser's pace they would take long to arrive, and the prompts would stand in for them
    meanwhile. They have a mean of 0 over what is drawn, so that dropping them leaves ratings at their general rate.
    """
    log_rates = np.log(examples.class_rates(training))
    offsets = np.zeros((len(log_rates), N_RATINGS))
    if source_intercepts:
        offsets[:, np.array(RATINGS) - 1] = log_rates - examples.share @ log_rates
    return torch.tensor(offsets, dtype=torch.float32)
