"""What a trainer of one kind of router is, and the names by which `routellm train` knows them."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.registry import Registry
from routellm.routers.routers import Router
from routellm.training.preferences import Preference

Report = Callable[[str], None]
"""Takes one line of progress."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Comparisons, already read, checked and split.

    Attributes:
        rows: every usable comparison, ties among them. Those of `strong` and `weak` have the strong model first.
        held: for each row, whether it is for validation: bool, shape (len(rows),). All rows of a prompt are on one side.
        strong, weak: the names in `rows` of the pair of models that the router is to tell apart.
        seed: for everything that the trainer draws.
    """

    rows: Sequence[Preference]
    held: NDArray[np.bool_]
    strong: str
    weak: str
    seed: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted router and what a folder must hold to load it again.

    Attributes:
        router: scores as the loaded folder will.
        tensors: what goes into `model.safetensors`.
        meta: the fields of `router.json` that the router's own loader reads.
        files: more files of the folder: name -> where the trainer put it.
        settings: what was set and what was drawn, for the model card.
        metrics: what was measured on the validation rows while fitting.
    """

    router: Router
    tensors: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


class Trainer(ABC):
    """Fits one kind of router. `routellm train NAME` does the rest: it reads and checks the data, splits it by prompt,
    measures the result on the validation prompts, and saves folder and model card."""

    summary: str
    """One line of help."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the flags that only this kind of router has."""

    @abstractmethod
    def fit(self, data: TrainingData, arguments: argparse.Namespace, work: Path, report: Report) -> Trained:
        """Fit on the rows that are not held, stop early by those that are.

        Args:
            work: a folder for what makes a broken-off run resumable (`--resume`), and for `Trained.files`.

        Raises:
            DataError: the rows can't be fitted (one class only, ties only, ...).
            ConfigError: an argument is out of its range.
        """


TRAINERS: Registry[Trainer] = Registry(
    "trainer",
    "routellm.trainers",
    {
        "bert": "routellm.training.bert:BertTrainer",
        "causal_llm": "routellm.training.causal_llm:CausalLLMTrainer",
        "gain_fast": "routellm.training.gain:FastGainTrainer",
        "gain_accurate": "routellm.training.gain:AccurateGainTrainer",
        "mf": "routellm.training.mf:MatrixFactorizationTrainer",
        "sw_ranking": "routellm.training.sw_ranking:SimilarityWeightedTrainer",
    },
)
