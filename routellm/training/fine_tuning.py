"""The fine-tuning of encoders and language models: AdamW with warm-up and linear decay, early stopping, states to resume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from routellm.errors import CheckpointError, DataError
from routellm.training.bert_data import Examples, Rows, by_length, epoch_order
from routellm.training.resume import load_state, save_state
from routellm.training.schedule import Schedule
from routellm.training.trainers import Report

STATE = "state.safetensors"
GRADIENT_NORM = 1.0


@dataclass(slots=True)
class Progress:
    """Where a run is: the next step to take, and the losses after each epoch so far."""

    step: int = 0
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    running: float = 0.0
    """Sum of the losses of this epoch's steps so far."""

    @property
    def best_epoch(self) -> int:
        """The epoch, from 0, whose weights were kept."""
        return int(np.argmin(self.validation))

    def metrics(self) -> dict[str, float]:
        """What the model card tells of a finished run."""
        best = self.best_epoch
        return {
            "training_loss": self.train[best],
            "validation_loss": self.validation[best],
            "best_epoch": best + 1,
            "epochs_run": len(self.validation),
        }


class FineTuning(ABC):
    """One run.

    Args:
        module: what is put into training mode for a step.
        trained: the parameters that are learned, by name.
        groups: those that have gradients, as the optimiser takes them, with `full_rate`, the rate that warm-up leads to.
        examples, training, checking: the rows of `examples` to train on, and those that say when to stop.
        state: where the run's state is saved. It can be gone on from with the same rows and schedule.
        tokens_at_once: of a step's rows, as many go through together as make this many tokens; gradients add up over them.
    """

    def __init__(
        self,
        module: nn.Module,
        trained: Mapping[str, Tensor],
        groups: list[dict[str, Any]],
        examples: Examples,
        training: Rows,
        checking: Rows,
        schedule: Schedule,
        state: Path,
        tokens_at_once: int,
    ) -> None:
        self.examples, self.progress = examples, Progress()
        self._module, self._trained, self._schedule, self._state = module, dict(trained), schedule, state
        self._training, self._checking, self._tokens_at_once = training, checking, tokens_at_once
        self._best = self._weights()
        self._optimiser = torch.optim.AdamW(groups)
        self._steps_an_epoch = -(-schedule.epoch_size // schedule.batch_size)

    @abstractmethod
    def losses(self, rows: Rows) -> Tensor:
        """Cross-entropy of each row, with its source's offset: shape (len(rows),)."""

    @abstractmethod
    def validation_loss(self, rows: Rows) -> float:
        """Cross-entropy, the mean over sources of their weighted means."""

    def run(self, report: Report) -> None:
        """Train to the end; afterwards the weights are those of the best epoch.

        Raises:
            DataError: the loss is no longer a number.
        """
        for epoch in range(self.progress.step // self._steps_an_epoch, self._schedule.epochs):
            if self._is_over():
                break
            self._run_epoch(epoch, report)
            self._finish_epoch(epoch, report)
        self._put(self._best)

    def resume(self) -> None:
        """Go on from the saved state, if there is one: what follows is what would have followed.

        Raises:
            CheckpointError: the state is damaged, or of another model.
        """
        saved = load_state(self._state)
        if saved is None:
            return
        arrays, about = saved
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "optimiser": {}, "generator": {}}
        try:
            for name, array in arrays.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = torch.from_numpy(array)
            self._put(parts["weights"])
            self._best = {name: parts["best"][name] for name in self._trained}
            self.progress = Progress(**about["progress"])
            self._load_optimiser(parts["optimiser"])
            torch.set_rng_state(parts["generator"]["cpu"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{str(self._state)!r} can't be gone on from: {error!r}. Train without --resume.") from error

    def mean_over_sources(self, rows: Rows, each: NDArray[np.float64]) -> float:
        """The mean over sources of the weighted means of `each`, which has a value for each of `rows`."""
        source, weight = self.examples.source[rows], self.examples.weight[rows]
        totals = np.bincount(source, weight)
        return float(np.mean(np.bincount(source, weight * each)[totals > 0] / totals[totals > 0]))

    def _run_epoch(self, epoch: int, report: Report) -> None:
        schedule = self._schedule
        order = epoch_order(self.examples, self._training, schedule.epoch_size, epoch, schedule.seed)
        for step in range(self.progress.step % self._steps_an_epoch, self._steps_an_epoch):
            self._set_rates()
            self.progress.running += self._step(order[step * schedule.batch_size :][: schedule.batch_size])
            self.progress.step += 1
            if self.progress.step % schedule.save_every == 0 and step + 1 < self._steps_an_epoch:
                mean = self.progress.running / (step + 1)
                report(f"epoch {epoch + 1}, step {step + 1} of {self._steps_an_epoch}: loss {mean:.4f}")
                self._save()

    def _finish_epoch(self, epoch: int, report: Report) -> None:
        self.progress.train.append(self.progress.running / self._steps_an_epoch)
        self.progress.running = 0.0
        self.progress.validation.append(self.validation_loss(self._checking))
        if self.progress.best_epoch == epoch:
            self._best = self._weights()
        report(f"epoch {epoch + 1}: loss {self.progress.train[-1]:.4f}, validation {self.progress.validation[-1]:.4f}")
        self._save()

    def _is_over(self) -> bool:
        done = len(self.progress.validation)
        return done > 0 and done - 1 - self.progress.best_epoch >= self._schedule.patience

    def _step(self, rows: Rows) -> float:
        """One step of the optimiser on `rows`; returns their weighted mean loss."""
        self._module.train()
        total, weight = 0.0, self.examples.weight[rows].sum()
        for part in by_length(self.examples, rows, self._tokens_at_once):
            each = self.losses(part)
            loss = (each * torch.from_numpy(self.examples.weight[part] / weight).to(each)).sum()
            loss.backward()
            total += loss.item()
        if not np.isfinite(total):
            raise DataError(f"The loss is {total} at step {self.progress.step}. Lower --learning-rate, or look at the data.")
        nn.utils.clip_grad_norm_(self._trained.values(), GRADIENT_NORM)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return total

    def _set_rates(self) -> None:
        steps = self._steps_an_epoch * self._schedule.epochs
        rising = max(1.0, self._schedule.warmup * steps)
        step = self.progress.step
        share = min((step + 1) / rising, (steps - step) / max(1.0, steps - rising))
        for group in self._optimiser.param_groups:
            group["lr"] = group["full_rate"] * share

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._trained.items()}

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(weights[name])

    def _save(self) -> None:
        arrays = {f"weights/{name}": as_array(parameter) for name, parameter in self._trained.items()}
        arrays |= {f"best/{name}": as_array(tensor) for name, tensor in self._best.items()}
        for place, moments in self._optimiser.state_dict()["state"].items():
            arrays |= {f"optimiser/{place}/{name}": as_array(tensor) for name, tensor in moments.items()}
        arrays["generator/cpu"] = as_array(torch.get_rng_state())
        self._state.parent.mkdir(parents=True, exist_ok=True)
        save_state(self._state, arrays, {"progress": asdict(self.progress)})

    def _load_optimiser(self, saved: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in saved.items():
            place, _, moment = name.partition("/")
            state.setdefault(int(place), {})[moment] = tensor
        self._optimiser.load_state_dict({"state": state, "param_groups": self._optimiser.state_dict()["param_groups"]})


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's values, wherever it lies."""
    return np.asarray(tensor.detach().cpu().numpy())
