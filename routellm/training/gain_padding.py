"""The fit behind `routellm.routers.padding`: real prompts, with pieces of other prompts put around some of them.

It takes no labels: a piece of the prompt itself belongs to it, and what comes from another does not. What is put around are
pieces that ask nothing, of prompts of several pieces: of two questions there would be no telling which was meant. No text that
somebody wrote for padding is learned from, so that such texts can measure what was learned.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.features import PromptFeatures
from routellm.errors import DataError
from routellm.routers.padding import MOST_CHARS, Group, PaddingFilter, features_of_pieces, relations, vectors_of
from routellm.routers.parts import Trees, standardise
from routellm.routers.pieces import MOST, pieces_of
from routellm.training.boosting import TreeSettings, fit_trees
from routellm.training.gain_fit import Floats, Gains
from routellm.training.reading import file_hashes
from routellm.training.teaching import further_prompts
from routellm.training.trainers import Report

Example = list[tuple[str, bool]]

PROMPTS = 24_000
"""So many prompts are drawn; those of one piece are of use only where something is put around them."""

TREES = TreeSettings(trees=200, depth=4, rate=0.12, penalty=20.0, rows=0.5, columns=0.3)
_TREE_ROWS = 40_000

_PENALTY = 50.0
"""Of the ridge regression, a piece's weight as unit."""

_OF_DATA = 0.6
"""The share of draws among the data's prompts; their sources count as the square roots of their sizes."""

_CLEAN = 0.6
"""The share of the drawn prompts around which nothing is put."""

_RUNS, _LENGTHS = (1, 1, 1, 2, 2, 3, 5), (1, 1, 2, 3, 6)
"""How many runs of pieces are put around a prompt, and of how many pieces each: drawn from these."""

_OPTION = re.compile(r"^\(?[A-Ja-j][.):](?![A-Za-z]\.)", re.MULTILINE)


def learn_padding(
    arguments: argparse.Namespace,
    gains: Gains,
    held: NDArray[np.bool_],
    features: PromptFeatures,
    seed: int,
    report: Report,
) -> tuple[PaddingFilter | None, dict[str, Any]]:
    """The filter that `--padding-prompts` asks for, and what a model card tells of it; None and nothing without the flag.

    Args:
        held: which of `gains.prompts` are for validation, and so not for fitting: bool, shape (len(gains.prompts),).
        features: read the prompts.

    Raises:
        DataError: the file can't be read, or no prompt has several pieces.
    """
    file = arguments.padding_prompts
    if file is None:
        return None, {}
    features = features_of_pieces(features)
    others = further_prompts(file, set(gains.prompts), report)
    known = np.flatnonzero(~held)
    source = np.zeros(len(gains.prompts), dtype=np.int64)
    source[gains.prompt] = gains.source
    of_data = np.bincount(source[known])[source[known]] ** -0.5
    share = _OF_DATA if others else 1.0
    chances = np.concatenate([share * of_data / of_data.sum(), np.full(len(others), (1.0 - share) / max(len(others), 1))])
    prompts = [*(gains.prompts[row] for row in known), *others]
    report(f"learning what belongs to a prompt, from {len(prompts):,}")
    found = fit_padding_filter(prompts, chances, features, seed)
    return found, {"padding_prompts": " ".join(*file_hashes([file]).items()), "prompts_of_the_filter": len(prompts)}


def fit_padding_filter(prompts: Sequence[str], chances: Floats, features: PromptFeatures, seed: int) -> PaddingFilter:
    """Fit to prompts, which are drawn with `chances`.

    Raises:
        DataError: no prompt has several pieces, some of which ask nothing.
    """
    examples = _examples(prompts, chances, Random(f"{seed} padding"))  # noqa: S311
    if all(own for example in examples for _, own in example):
        raise DataError(
            "No prompt has several paragraphs, some of which ask nothing: what is padding can't be learned from them."
        )
    belongs = np.array([own for example in examples for _, own in example], dtype=np.float64)
    sizes = np.array([len(example) for example in examples])
    pieces = [[piece for piece, _ in example] for example in examples]
    vectors = np.concatenate([vectors_of(each, features) for each in pieces])
    weights = np.repeat(sizes, sizes) ** -0.5
    mean, scale, dim = vectors.mean(axis=0), vectors.std(axis=0), features.embedder.dim
    scale[scale < 1e-6] = 1.0
    scale[:dim] = vectors[:, :dim].std()
    standard = standardise(vectors, mean, scale)
    own = _own_scores(standard, belongs, weights, np.repeat(np.arange(len(examples)) % 2, sizes))
    starts = [0, *np.cumsum(sizes).tolist()]
    places = [slice(start, end) for start, end in pairwise(starts)]
    groups = [Group.of(each, vectors[at, :dim], own[at].tolist()) for each, at in zip(pieces, places, strict=True)]
    fitted: list[tuple[Trees, float]] = []
    found = np.ones(len(belongs))
    for stage in (1, 2):
        related = [relations(group, found[at].tolist()) for group, at in zip(groups, places, strict=True)]
        rows = np.hstack([np.concatenate(related), standard[:, dim:]]).astype(np.float32)
        trees, constant = _fit_trees(rows, belongs, weights, seed + stage)
        found = np.clip(constant + trees.predict_batch(rows), 0.0, 1.0)
        fitted.append((trees, constant))
    (first, one), (second, two) = fitted
    linear = _ridge(standard, belongs, weights).astype(np.float32)
    return PaddingFilter(features, mean, scale, linear, first, second, (one, two))


def _own_scores(rows: Vector, belongs: Floats, weights: Floats, half: NDArray[np.intp]) -> Floats:
    """Each piece's linear score, fitted to the half that it is not of, since trees must not see scores of their own fit."""
    own = np.empty(len(rows))
    for each in (0, 1):
        fitted = _ridge(rows[half != each], belongs[half != each], weights[half != each])
        own[half == each] = rows[half == each] @ fitted
    return own


def _ridge(rows: Vector, belongs: Floats, weights: Floats) -> Floats:
    target = weights * (belongs - np.average(belongs, weights=weights))
    products = (rows * weights[:, None]).T @ rows + _PENALTY * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(products, rows.T @ target), dtype=np.float64)


def _fit_trees(rows: Vector, belongs: Floats, weights: Floats, seed: int) -> tuple[Trees, float]:
    draw = np.random.default_rng([seed, 11])
    drawn = draw.choice(len(rows), min(_TREE_ROWS, len(rows)), p=weights / weights.sum())
    constant = float(np.float32(belongs[drawn].mean()))
    return fit_trees(rows[drawn], belongs[drawn], TREES, seed), constant


def _examples(prompts: Sequence[str], chances: Floats, draw: Random) -> list[Example]:
    """Prompts with and without something around them; each piece with whether it is the prompt's own."""
    drawn = [pieces_of(prompt[:MOST_CHARS]) for prompt in draw.choices(prompts, chances.tolist(), k=PROMPTS)]
    runs = [run for pieces in drawn for run in _runs(pieces, draw)]
    examples = []
    for pieces in drawn:
        example = [(piece, True) for piece in pieces]
        if runs and draw.random() >= _CLEAN:
            example = _padded(example, runs, draw)
        if len(example) > 1:
            examples.append(example)
    return examples


def _runs(pieces: list[str], draw: Random, most: int = 3) -> list[list[str]]:
    """Up to `most` runs of pieces that don't ask, of a prompt of several."""
    asks = ["?" in piece or bool(_OPTION.search(piece)) for piece in pieces]
    if not any(asks) and asks:
        asks[0] = asks[-1] = True
    runs: list[list[str]] = [[]]
    for piece, ask in zip(pieces, asks, strict=True):
        if ask:
            runs.append([])
        else:
            runs[-1].append(piece)
    runs = [run for run in runs if run]
    draw.shuffle(runs)
    found = []
    for run in runs[:most]:
        length = min(len(run), draw.choice(_LENGTHS))
        start = draw.randrange(len(run) - length + 1)
        found.append(run[start : start + length])
    return found


def _padded(example: Example, runs: list[list[str]], draw: Random) -> Example:
    """The example with other prompts' runs before it, after it or between its pieces."""
    for _ in range(draw.choice(_RUNS)):
        put = [(piece, False) for piece in draw.choice(runs)]
        if len(put) + len(example) > MOST:
            break
        at = draw.choice((0, len(example), 0, len(example), draw.randrange(len(example) + 1)))
        example = [*example[:at], *put, *example[at:]]
    return example
