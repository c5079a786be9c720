"""The fine-tuning of a classifier; what it shares with other models is in `fine_tuning`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from routellm.training.bert_data import Examples, Rows, Settings, by_length, pad
from routellm.training.bert_model import PromptClassifier
from routellm.training.fine_tuning import FineTuning

TOKENS_AT_ONCE = 1024
"""Of a step's rows, as many go through the encoder together as make this many tokens: gradients add up over the parts. On a
CPU more at once is slower, since the activations leave the cache, and memory stays small whatever the batch size."""


class Fit(FineTuning):
    """One run.

    Attributes:
        offsets: of each source's logits, shape (sources, 3).
        loss_of_offsets_alone: the validation loss of a classifier that knows a prompt's source and nothing of the prompt.

    Args:
        model: its frozen parameters are left alone.
        examples, training, checking: the rows of `examples` to train on, and those that say when to stop.
        state: where the run's state is saved. It can be gone on from with the same rows and settings.
    """

    def __init__(
        self,
        model: PromptClassifier,
        examples: Examples,
        training: Rows,
        checking: Rows,
        settings: Settings,
        state: Path,
    ) -> None:
        self.model = model
        rates = examples.class_rates(training)
        if not settings.source_intercepts:
            rates[:] = examples.share @ rates
        # At the optimiser's pace the offsets would take long to arrive, and the prompts would stand in for them meanwhile.
        self.offsets = nn.Parameter(torch.tensor(np.log(rates), dtype=torch.float32))
        self.offsets.requires_grad = settings.source_intercepts
        trained = {name: each for name, each in model.named_parameters() if each.requires_grad} | {"offsets": self.offsets}
        groups = parameter_groups(trained, settings)
        super().__init__(model, trained, groups, examples, training, checking, settings, state, TOKENS_AT_ONCE)
        self.loss_of_offsets_alone = self.loss(checking, 0.0)
        torch.manual_seed(settings.seed)

    def loss(self, rows: Rows, logits: NDArray[np.float64] | float) -> float:
        """Cross-entropy of logits (shape (len(rows), 3), or 0 for the offsets alone) with each source's offset added: the mean
        over sources of their weighted means."""
        shifted = logits + self.offsets.detach().double().numpy()[self.examples.source[rows]]
        top = shifted.max(axis=1)
        right = (shifted * self.examples.targets[rows]).sum(axis=1)
        each = np.log(np.exp(shifted - top[:, None]).sum(axis=1)) + top - right
        return self.mean_over_sources(rows, each)

    def losses(self, rows: Rows) -> Tensor:
        logits = _forward(self.model, self.examples, rows) + self.offsets[torch.from_numpy(self.examples.source[rows])]
        return nn.functional.cross_entropy(logits, torch.from_numpy(self.examples.targets[rows]).float(), reduction="none")

    def validation_loss(self, rows: Rows) -> float:
        return self.loss(rows, logits_of(self.model, self.examples, rows))


def logits_of(model: PromptClassifier, examples: Examples, rows: Rows) -> NDArray[np.float64]:
    """A classifier's logits, without any source's offset: float64, shape (len(rows), 3)."""
    model.eval()
    found = np.empty((len(examples.ids), 3))
    with torch.inference_mode():
        for part in by_length(examples, rows, TOKENS_AT_ONCE):
            found[part] = _forward(model, examples, part).double().numpy()
    return found[rows]


def _forward(model: PromptClassifier, examples: Examples, rows: Rows) -> Tensor:
    ids, mask = pad(examples, rows)
    logits: Tensor = model(torch.from_numpy(ids), torch.from_numpy(mask))
    return logits


def parameter_groups(trained: Mapping[str, Tensor], settings: Settings) -> list[dict[str, Any]]:
    """Parameters by learning rate and decay; biases, scales and offsets are not decayed.

    Args:
        trained: by name; those of the encoder begin with `encoder.`.
    """
    kinds: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in trained.items():
        if parameter.requires_grad:
            of_head = not name.startswith("encoder.")
            kinds.setdefault((of_head, parameter.ndim > 1 and name != "offsets"), []).append(parameter)
    return [
        {
            "params": parameters,
            "full_rate": settings.head_learning_rate if of_head else settings.learning_rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (of_head, decays), parameters in kinds.items()
    ]
