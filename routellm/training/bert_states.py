"""An encoder that learns a language model's states, in place of comparisons.

What a language model makes of a prompt tells more of what a strong model gains on it than any sentence encoder does, and takes
a hundred times as long. So the encoder is trained to predict it: from its pooled vectors a linear layer reads the principal
components of the states, and is dropped afterwards; the classifier's last layer is fitted to all comparisons then, as
`bert_refit` does. No label is needed, so the prompts of comparisons held for validation may be among those of the states.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from routellm.errors import DataError
from routellm.training.bert_data import Examples, IdsOf, Rows, Settings, pad, token_ids
from routellm.training.bert_fit import TOKENS_AT_ONCE, parameter_groups
from routellm.training.bert_model import PromptClassifier
from routellm.training.bert_refit import pooled_vectors
from routellm.training.fine_tuning import FineTuning
from routellm.training.language_states import MAX_CHARACTERS, read_states

COMPONENTS = 256
"""Principal components of the states that are predicted, at most."""

START_ROWS = 4000
"""The linear layer starts where a ridge regression on so many prompts, read by the encoder as it is, puts it."""

START_PENALTY = 0.01
"""Of that, in units of the prompts, beside a mean variance of 1."""

_LEAST_PROMPTS = 10
_LEAST_VARIANCE = 1e-12


def state_examples(file: str, ids_of: IdsOf, check_size: int, seed: int) -> tuple[Examples, Rows, Rows]:
    """The file's prompts as examples, whose targets are the components of their states: all together vary by 1.

    Args:
        file: made by `routellm.training.language_states`.
        ids_of: gives the token ids of prompts, cut where they are to be cut.
        check_size: so many prompts are held out, drawn by `seed`, but no more than a fifth.

    Returns:
        The examples, the rows to train on, and those to check.

    Raises:
        DataError: the file is of another kind, or has too few prompts.
    """
    read = read_states(file)
    count = len(read.prompts)
    if count < _LEAST_PROMPTS:
        raise DataError(f"{file} has states of {count} prompts; it must have at least {_LEAST_PROMPTS}.")
    order = np.random.default_rng([seed, 14]).permutation(count)
    held = min(check_size, count // 5)
    targets = read.components(COMPONENTS).astype(np.float64)
    targets /= np.sqrt(max(float(targets.var(axis=0).sum()), _LEAST_VARIANCE))
    # Of what comes after, the language model has not seen anything either.
    ids = token_ids([prompt[:MAX_CHARACTERS] for prompt in read.prompts], ids_of)
    examples = Examples(read.prompts, ids, targets, np.ones(count), np.zeros(count, dtype=np.int64), ["states"], np.ones(1))
    return examples, np.sort(order[held:]), np.sort(order[:held])


class Student(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """The encoder of a classifier, and a linear layer from its pooled vectors to the components of states."""

    def __init__(self, classifier: PromptClassifier, components: int) -> None:
        super().__init__()
        self.encoder = classifier.encoder
        self.readout = nn.Linear(classifier.head.in_features, components)
        self._pooled = classifier.pooled

    def pooled(self, examples: Examples, rows: Rows) -> Tensor:
        """What the encoder makes of each row's prompt: shape (len(rows), width)."""
        ids, mask = pad(examples, rows)
        return self._pooled(torch.from_numpy(ids), torch.from_numpy(mask))


class StateFit(FineTuning):
    """One run; the loss is the share of the components' variance that is not predicted, 1 - R^2.

    The token table is trained too: much of a state is in the words alone. Nothing is dropped out: the targets are without
    chance.

    Args:
        classifier: its encoder is trained, but for its frozen layers; its last layer is left alone.
        examples, training, checking: see `state_examples`.
        state: where the run's state is saved. It can be gone on from with the same rows and settings.
    """

    def __init__(
        self,
        classifier: PromptClassifier,
        examples: Examples,
        training: Rows,
        checking: Rows,
        settings: Settings,
        state: Path,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._classifier = classifier
        self.student = Student(classifier, examples.targets.shape[1])
        classifier.encoder.embeddings.word_embeddings.weight.requires_grad = True
        for part in classifier.encoder.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        trained = {name: each for name, each in self.student.named_parameters() if each.requires_grad}
        groups = parameter_groups(trained, settings)
        super().__init__(self.student, trained, groups, examples, training, checking, settings, state, TOKENS_AT_ONCE)
        self._seed = settings.seed

    def start(self) -> None:
        """Put the linear layer where a ridge regression on the encoder as it is puts it."""
        drawn = np.random.default_rng([self._seed, 15]).permutation(self._training)[:START_ROWS]
        vectors, targets = self._read(drawn), self.examples.targets[drawn]
        middle, mean = vectors.mean(axis=0), targets.mean(axis=0)
        vectors -= middle
        penalty = START_PENALTY * max(float((vectors**2).sum(axis=0).mean()), _LEAST_VARIANCE)
        weight = np.linalg.solve(vectors.T @ vectors + penalty * np.eye(vectors.shape[1]), vectors.T @ (targets - mean))
        with torch.no_grad():
            self.student.readout.weight.copy_(torch.from_numpy(weight.T))
            self.student.readout.bias.copy_(torch.from_numpy(mean - middle @ weight))

    def metrics(self) -> dict[str, float]:
        """What the model card tells of a finished run."""
        best = self.progress.best_epoch
        return {
            "states_r2": 1.0 - self.progress.validation[best],
            "best_epoch": best + 1,
            "epochs_run": len(self.progress.validation),
        }

    def losses(self, rows: Rows) -> Tensor:
        found = self.student.readout(self.student.pooled(self.examples, rows))
        return (found - torch.from_numpy(self.examples.targets[rows]).float()).square().sum(dim=1)

    def validation_loss(self, rows: Rows) -> float:
        weight, bias = (each.detach().double().numpy() for each in (self.student.readout.weight, self.student.readout.bias))
        targets = self.examples.targets[rows]
        missed = ((self._read(rows) @ weight.T + bias - targets) ** 2).sum()
        return float(missed / max(float(((targets - targets.mean(axis=0)) ** 2).sum()), _LEAST_VARIANCE))

    def _read(self, rows: Rows) -> NDArray[np.float64]:
        return pooled_vectors(self._classifier, self.examples, rows, TOKENS_AT_ONCE)
