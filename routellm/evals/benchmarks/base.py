"""What a benchmark is: prompts, and how good each model's answer to each of them was. The documented extension point."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import RemoteFile
from routellm.errors import DataError, UnknownNameError
from routellm.metrics.curves import Outcomes
from routellm.registry import Registry
from routellm.training.overlap import prompt_hash
from routellm.types import ModelPair

EXCLUDED = "in a contamination list"
"""The reason under which prompts that a list names are counted."""


@dataclass(frozen=True, slots=True)
class BenchmarkData:
    """A benchmark's content, contaminated prompts already left out. It checks itself: see `Raises`.

    Attributes:
        prompts: what routers get to see, n strings, none of them empty.
        qualities: model name -> float64, shape (n,): how good its answer to each prompt was. NaN says that there is no result,
            which only matters to pairs with that model.
        groups: name of a grouping ("domain", "category") -> n labels.
        sha256: of prompts and qualities, so that cached scores and reports can name the data; computed where not given.
        dropped: reason -> how many rows were left out ("contaminated", "duplicate prompt", ...).
        costs: model name -> float64, shape (n,): dollars that each answer cost, for models where that is known.

    Raises:
        DataError: there is no prompt, one is empty, something has another length, or a quality is infinite.
    """

    prompts: tuple[str, ...]
    qualities: Mapping[str, NDArray[np.float64]]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sha256: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        left_out = f" ({', '.join(f'{count:,} left out: {reason}' for reason, count in self.dropped.items())})"
        if not self.prompts:
            raise DataError(f"The benchmark has no prompts{left_out if self.dropped else ''}.")
        for number, prompt in enumerate(self.prompts, 1):
            if not prompt.strip():
                raise DataError(f"Prompt {number:,} of the benchmark is empty; every prompt must hold text.")
        for what, columns in (("qualities", self.qualities), ("labels", self.groups), ("costs", self.costs)):
            for name, values in columns.items():
                if len(values) != len(self.prompts):
                    raise DataError(f"{name!r} has {len(values):,} {what}, but there are {len(self.prompts):,} prompts.")
        for model, qualities in self.qualities.items():
            if np.isinf(qualities).any():
                raise DataError(f"The qualities of {model!r} must be finite numbers; some are infinite.")
        if not self.sha256:
            object.__setattr__(self, "sha256", self._hash())

    def __len__(self) -> int:
        return len(self.prompts)

    def outcomes(self, pair: ModelPair) -> Outcomes:
        """The qualities of a pair's answers.

        Raises:
            UnknownNameError: the benchmark has no answers of one of them; says which models it has.
            DataError: one of them has no result for some prompts; `with_results` leaves those out.
        """
        for model in (pair.strong, pair.weak):
            self._check_model(model)
            lacking = np.flatnonzero(np.isnan(self.qualities[model]))
            if len(lacking):
                raise DataError(
                    f"{model!r} has no result for {len(lacking):,} of {len(self):,} prompts, prompt {lacking[0] + 1:,} the "
                    f"first. Fill them in or leave those rows out."
                )
        return Outcomes.of(self.qualities[pair.strong], self.qualities[pair.weak])

    def with_results(self, pair: ModelPair) -> BenchmarkData:
        """Only the prompts that both models of a pair have a result for; the others are counted as dropped.

        Raises:
            UnknownNameError: the benchmark has no answers of one of them; says which models it has.
            DataError: no prompt is left.
        """
        data = self
        for model in (pair.strong, pair.weak):
            self._check_model(model)
            data = data.take(~np.isnan(data.qualities[model]), f"no result of {model}")
        return data

    def take(self, keep: NDArray[np.bool_], reason: str) -> BenchmarkData:
        """The prompts where `keep`, bool of shape (n,), is true; the others are counted as dropped for `reason`.

        Raises:
            DataError: no prompt is left.
        """
        left_out = int(len(keep) - keep.sum())
        if left_out == 0:
            return self
        return BenchmarkData(
            prompts=tuple(compress(self.prompts, keep)),
            qualities={model: values[keep] for model, values in self.qualities.items()},
            groups={name: tuple(compress(labels, keep)) for name, labels in self.groups.items()},
            dropped={**self.dropped, reason: self.dropped.get(reason, 0) + left_out},
            costs={model: values[keep] for model, values in self.costs.items()},
        )

    def without(self, hashes: Collection[str]) -> BenchmarkData:
        """All prompts but those whose `training.overlap.prompt_hash` is given; those are counted as dropped.

        Raises:
            DataError: no prompt is left.
        """
        return self.take(np.array([prompt_hash(prompt) not in hashes for prompt in self.prompts]), EXCLUDED)

    def _check_model(self, model: str) -> None:
        if model not in self.qualities:
            raise UnknownNameError("model", model, self.qualities)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for prompt in self.prompts:
            text = prompt.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(text) + text)
        for model in sorted(self.qualities):
            digest.update(model.encode() + b"\0" + np.asarray(self.qualities[model], dtype="<f8").tobytes())
        return digest.hexdigest()


class Benchmark(ABC):
    """A benchmark in three short methods. Register a subclass in `BENCHMARKS` or under `routellm.benchmarks`."""

    @abstractmethod
    def files(self) -> Sequence[RemoteFile]:
        """The files that it is made of, by pinned address, size and sha256; empty where its data lie on this machine."""

    @abstractmethod
    def read(self, paths: Sequence[Path]) -> BenchmarkData:
        """Its content, out of local copies of `files()` in the same order.

        Raises:
            DataError: the files are not as they should be.
        """

    @abstractmethod
    def default_pair(self) -> ModelPair | None:
        """The strong and the weak model where nobody names others; None where the user must."""


BENCHMARKS: Registry[Benchmark] = Registry(
    "benchmark",
    "routellm.benchmarks",
    {
        "mmlu": "routellm.evals.benchmarks.mmlu:MMLU",
        "gsm8k": "routellm.evals.benchmarks.gsm8k:GSM8K",
        "mt-bench": "routellm.evals.benchmarks.mt_bench:MTBench",
        "routerbench": "routellm.evals.benchmarks.routerbench:RouterBench",
    },
)
