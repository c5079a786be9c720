"""What is set for any fine-tuning, and how a command's arguments become it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from routellm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is set for any fine-tuning.

    Attributes:
        epoch_size: rows an epoch; after each epoch is validated.
        learning_rate, weight_decay: of AdamW.
        batch_size: rows a step.
        epochs: the most that are run.
        warmup: share of the steps in which the learning rate rises from 0; it falls to 0 over the rest.
        patience: epochs without a better validation loss after which training ends.
        source_intercepts: learn an offset of the logits per source of data and drop it afterwards. Sources differ in how often
            the strong model wins; without the offsets the model learns to tell the source.
        save_every: steps between saved states.
        seed: fixes the order of rows, initial weights and dropout.
    """

    epoch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    batch_size: int
    epochs: int = 3
    warmup: float = 0.06
    patience: int = 2
    source_intercepts: bool = True
    save_every: int
    seed: int = 0


def check_schedule(arguments: argparse.Namespace, whole: Sequence[str] = (), rates: Sequence[str] = ()) -> None:
    """Check what `schedule_of` takes.

    Args:
        whole, rates: further arguments that must be whole numbers from 1 on where they are given, and learning rates.

    Raises:
        ConfigError: an argument is out of its range.
    """
    for name in (*whole, "batch_size", "epochs", "epoch_size", "check_size", "patience", "save_every"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    for name in ("learning_rate", *rates):
        if not 0 < getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must lie between 0 and 1.")
    for name in ("weight_decay", "warmup"):
        if not 0 <= getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be from 0 to below 1.")


def schedule_of(arguments: argparse.Namespace, rows: int, seed: int) -> dict[str, Any]:
    """The fields of `Schedule`; an epoch is all `rows` where the arguments don't say how many."""
    given = ("learning_rate", "weight_decay", "batch_size", "epochs", "warmup", "patience", "save_every")
    return {
        **{name: getattr(arguments, name) for name in given},
        "epoch_size": arguments.epoch_size or rows,
        "source_intercepts": not arguments.no_source_intercepts,
        "seed": seed,
    }
