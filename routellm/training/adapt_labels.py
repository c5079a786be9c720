"""The labels of one's own traffic: how much better the strong model's answer was, prompt by prompt.

A file's layout is told by its columns:

* `prompt`, `strong_score`, `weak_score`: a number for each model's answer;
* `prompt`, `outcome`: "strong", "tie" or "weak", for a gap of 1, 0 or -1;
* `prompt`, `model`, `score`: a row for each prompt and model; the two models are named;
* `prompt` and a column of scores under the name of each of the two models.

Labels are about prompts, so that rows of one prompt count once, with their mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.prompt_files import prompt_text
from routellm.tables import column_names, read_table
from routellm.training.layouts import number_in

FEWEST = 50
"""Prompts that it takes at the least: below, no interval would say anything."""

FEWEST_OF_A_KIND = 5
"""Prompts that the strong model must have won, and must not have won."""

# What is only known not to be a win of the strong model counts as a tie.
_GAPS = {"strong": 1.0, "tie": 0.0, "weak": -1.0, "tie_or_weak": 0.0}

_Row = tuple[str, float | None]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled prompts.

    Attributes:
        prompts: n distinct ones.
        gap: the strong model's score less the weak one's: float64, shape (n,).
        notes: what was out of the ordinary in the file, one sentence each.
    """

    prompts: list[str]
    gap: NDArray[np.float64]
    notes: list[str]

    @property
    def won(self) -> NDArray[np.bool_]:
        """Whether the strong model's answer was the better one: bool, shape (n,)."""
        return self.gap > 0


def read_labels(file: str, strong: str | None = None, weak: str | None = None) -> Labels:
    """Read a file of labels (jsonl, csv, parquet, or a hub data set's name).

    Args:
        strong, weak: names of the two models, where the file holds scores by model.

    Raises:
        ConfigError: the file holds scores by model, and no two of its models are named.
        DataError: the file can't be read or has none of the layouts, a score is no number, an outcome is not known; or what
            is left can't be fitted: too few prompts, or the strong model wins all, none, or no more than it loses.
        MissingExtraError: the file's kind needs a package that is not installed.
    """
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    dropped: Counter[str] = Counter()
    for prompt, gap in _rows(file, strong, weak):
        if not prompt.strip():
            dropped["no prompt"] += 1
        elif gap is None:
            dropped["no label"] += 1
        else:
            gaps[prompt].append(gap)
    notes = [f"left out {count:,} rows: {reason}" for reason, count in dropped.most_common()]
    repeated = sum(len(values) > 1 for values in gaps.values())
    if repeated:
        notes.append(f"{repeated:,} prompts have several labels; their mean counts")
    labels = Labels(list(gaps), np.array([np.mean(values) for values in gaps.values()], dtype=np.float64), notes)
    _check(labels, file, dropped)
    return labels


def _check(labels: Labels, file: str, dropped: Counter[str]) -> None:
    n, wins = len(labels.prompts), int(labels.won.sum())
    if n < FEWEST:
        left_out = f" (left out: {dict(dropped)})" if dropped else ""
        raise DataError(f"{file} has labels of {n} prompts{left_out}; adapting takes {FEWEST} at the least, better 300.")
    if np.ptp(labels.gap) == 0.0:
        raise DataError(
            f"{file}: the gap between the two models is {labels.gap[0]:g} on every prompt, so there is nothing to learn. "
            f"Label prompts on which they differ."
        )
    if min(wins, n - wins) < FEWEST_OF_A_KIND:
        raise DataError(
            f"{file}: the strong model is better on {wins} of {n} prompts; it takes {FEWEST_OF_A_KIND} on which it is and as "
            f"many on which it is not."
        )
    if labels.gap.mean() <= 0.0:
        raise DataError(
            f"{file}: the strong model is no better than the weak one: its mean lead is {labels.gap.mean():.3g}. Are the two "
            f"swapped? If not, send everything to the weak model."
        )


def _rows(file: str, strong: str | None, weak: str | None) -> Iterator[_Row]:
    columns = column_names(file)
    if {"prompt", "model", "score"} <= set(columns):
        return _of_long(file, *_named(file, strong, weak, None))
    if {"prompt", "strong_score", "weak_score"} <= set(columns):
        return _of_scores(file, "strong_score", "weak_score")
    if {"prompt", "outcome"} <= set(columns):
        return _of_outcomes(file)
    if "prompt" in columns and (strong or weak):
        return _of_scores(file, *_named(file, strong, weak, [name for name in columns if name != "prompt"]))
    raise DataError(
        f"{file} has no known layout: it needs the columns prompt, strong_score, weak_score; prompt, outcome; prompt, model, "
        f"score; or prompt and a column of scores for each of --strong-model and --weak-model. It has: {', '.join(columns)}."
    )


def _named(file: str, strong: str | None, weak: str | None, known: list[str] | None) -> tuple[str, str]:
    if not strong or not weak or strong == weak:
        raise ConfigError(f"{file} holds scores by model: name two of its models by --strong-model and --weak-model.")
    for name in (strong, weak):
        if known is not None and name not in known:
            raise ConfigError(f"{file} has no scores of {name!r}{did_you_mean(name, known)}. It has: {', '.join(known)}.")
    return strong, weak


def _of_scores(file: str, strong: str, weak: str) -> Iterator[_Row]:
    for number, (prompt, *scores) in enumerate(read_table(file, ["prompt", strong, weak]), 1):
        first, second = (number_in(file, number, name, score) for name, score in zip((strong, weak), scores, strict=True))
        yield prompt_text(prompt), None if first is None or second is None else first - second


def _of_outcomes(file: str) -> Iterator[_Row]:
    for number, (prompt, outcome) in enumerate(read_table(file, ["prompt", "outcome"]), 1):
        if outcome is not None and outcome != "" and outcome not in _GAPS:
            raise DataError(f"{file}, row {number}: the outcome is {outcome!r}; known are: {', '.join(_GAPS)}.")
        yield prompt_text(prompt), _GAPS.get(outcome)


def _of_long(file: str, strong: str, weak: str) -> Iterator[_Row]:
    scores: defaultdict[str, dict[str, list[float]]] = defaultdict(lambda: {strong: [], weak: []})
    models: set[str] = set()
    for number, (prompt, model, score) in enumerate(read_table(file, ["prompt", "model", "score"]), 1):
        models.add(str(model))
        value = number_in(file, number, "score", score)
        if model in (strong, weak) and value is not None:
            scores[prompt_text(prompt)][model].append(value)
    _named(file, strong, weak, sorted(models))
    for text, found in scores.items():
        complete = found[strong] and found[weak]
        yield text, float(np.mean(found[strong]) - np.mean(found[weak])) if complete else None
