"""What a bert router is trained on: comparisons as token ids and classes, their order, and the settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import valid_utf8
from routellm.errors import DataError
from routellm.training.dataset import CLASSES, held_prompts, weigh_outcomes
from routellm.training.preferences import Preference
from routellm.training.schedule import Schedule

Rows = NDArray[np.int64]

IdsOf: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""Prompts -> each one's token ids."""

_TOKENISED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Schedule):
    """What is set for a classifier; `head_learning_rate` is that of the last layer and the offsets."""

    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-3
    batch_size: int = 32
    save_every: int = 100


@dataclass(frozen=True, slots=True)
class Examples:
    """Comparisons of the strong and the weak model, those of one prompt from one source taken together: n of them.

    Attributes:
        prompts: each row's prompt.
        ids: each row's token ids; rows of one prompt share one array.
        targets: float64, shape (n, 3): the share of each class, see `CLASSES`, by the comparisons' weights.
        weight: float64, shape (n,): the comparisons' weights in sum, scaled to a mean of 1 within each source.
        source: int64, shape (n,): place in `sources`.
        sources: names of the sources of data.
        share: float64, shape (len(sources),): how much of what is trained on comes from each source, in proportion to the
            square root of its weight, so that the largest source does not drown the others.
    """

    prompts: Sequence[str]
    ids: Sequence[NDArray[np.int32]]
    targets: NDArray[np.float64]
    weight: NDArray[np.float64]
    source: Rows
    sources: Sequence[str]
    share: NDArray[np.float64]

    def of_source(self, source: int, among: Rows) -> Rows:
        """Those of the rows `among` that are of one source."""
        own: Rows = among[self.source[among] == source]
        return own

    def class_rates(self, rows: Rows) -> NDArray[np.float64]:
        """How often each class occurs in each source, among `rows`: shape (len(sources), 3), smoothed so that none is 0."""
        counts = np.zeros((len(self.sources), len(CLASSES)))
        np.add.at(counts, self.source[rows], self.targets[rows] * self.weight[rows, None])
        counts += 0.5
        rates: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
        return rates


def make_examples(
    rows: Sequence[Preference], held: NDArray[np.bool_], strong: str, weak: str, ids_of: IdsOf
) -> tuple[Examples, NDArray[np.bool_]]:
    """Turn the comparisons of `strong` and `weak`, either way round, into examples; others say nothing about this pair.

    Args:
        held: which rows are for validation.
        ids_of: gives the token ids of prompts, cut where they are to be cut.

    Returns:
        The examples, and which of them are for validation.

    Raises:
        DataError: no row compares the two, a weight is not a finite number above 0, or training or validation has no
            comparison that the strong model won, or only such.
    """
    merged = weigh_outcomes(rows, strong, weak)
    validates = held_prompts(rows, held)
    sources = sorted({source for _, source in merged})
    place_of = {name: place for place, name in enumerate(sources)}
    source = np.array([place_of[name] for _, name in merged])
    counts = np.array(list(merged.values()))
    for_validation = np.array([prompt in validates for prompt, _ in merged])
    for part, name in ((~for_validation, "training"), (for_validation, "validation")):
        won = counts[part, CLASSES["first"]].sum()
        if not 0.0 < won < counts[part].sum():
            raise DataError(f"The {name} rows need comparisons that the strong model won and others; give more data.")
    weight = counts.sum(axis=1)
    total = np.bincount(source, weight * ~for_validation, len(sources))
    mean = np.bincount(source, weight) / np.bincount(source)
    prompts = [prompt for prompt, _ in merged]
    examples = Examples(
        prompts,
        token_ids(prompts, ids_of),
        counts / weight[:, None],
        weight / mean[source],
        source,
        sources,
        np.sqrt(total) / np.sqrt(total).sum(),
    )
    return examples, for_validation


def token_ids(prompts: Sequence[str], ids_of: IdsOf) -> list[NDArray[np.int32]]:
    """Each prompt's token ids; equal prompts share one array."""
    distinct = list(dict.fromkeys(prompts))
    ids: dict[str, NDArray[np.int32]] = {}
    for start in range(0, len(distinct), _TOKENISED_AT_ONCE):
        part = distinct[start : start + _TOKENISED_AT_ONCE]
        found = ids_of([valid_utf8(prompt) for prompt in part])
        ids.update((prompt, np.array(each, dtype=np.int32)) for prompt, each in zip(part, found, strict=True))
    return [ids[prompt] for prompt in prompts]


def epoch_order(examples: Examples, rows: Rows, size: int, epoch: int, seed: int) -> Rows:
    """The rows that an epoch trains on, in order: `size` of `rows`, from each source by its share.

    Each source's rows are gone through in a random order before any of them comes again, also across epochs: a small source
    is seen more often than a large one. What an epoch holds depends on nothing but the arguments, so that a run can go on in
    the middle of it.
    """
    counts = _allot(examples.share, size)
    parts = []
    for source, count in enumerate(counts):
        own = examples.of_source(source, rows)
        if len(own) == 0 or count == 0:
            continue
        first, last = epoch * count // len(own), ((epoch + 1) * count - 1) // len(own)
        passes = [np.random.default_rng([seed, 11, source, lap]).permutation(own) for lap in range(first, last + 1)]
        start = epoch * count - first * len(own)
        parts.append(np.concatenate(passes)[start : start + count])
    return np.random.default_rng([seed, 12, epoch]).permutation(np.concatenate(parts))


def sample_for_checks(examples: Examples, rows: Rows, size: int, seed: int) -> Rows:
    """At most about `size` of `rows`, from each source alike as far as it has so many."""
    parts = []
    for source in range(len(examples.sources)):
        own = examples.of_source(source, rows)
        parts.append(np.random.default_rng([seed, 13, source]).permutation(own)[: max(1, size // len(examples.sources))])
    return np.concatenate(parts)


def by_length(examples: Examples, rows: Rows, tokens: int) -> Iterator[Rows]:
    """Cut `rows` into parts of similar length, each of at most so many tokens with its padding (or of one row)."""
    lengths = np.array([len(examples.ids[row]) for row in rows])
    part: list[int] = []
    for place in np.argsort(lengths, kind="stable"):
        if part and (len(part) + 1) * int(lengths[place]) > tokens:
            yield np.array(part)
            part = []
        part.append(int(rows[place]))
    if part:
        yield np.array(part)


def pad(examples: Examples, rows: Rows) -> tuple[Rows, Rows]:
    """Token ids and mask, int64 of shape (len(rows), longest)."""
    longest = max(len(examples.ids[row]) for row in rows)
    ids, mask = np.zeros((2, len(rows), longest), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(examples.ids[row])] = examples.ids[row]
        mask[place, : len(examples.ids[row])] = 1
    return ids, mask


def _allot(share: NDArray[np.float64], size: int) -> list[int]:
    """Whole numbers that sum to `size`, as near to `share` as can be."""
    ends = np.rint(np.concatenate(([0.0], np.cumsum(share))) * size).astype(int)
    return [int(count) for count in np.diff(ends)]
