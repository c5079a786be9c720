"""Leaves out of a prompt what was put around its question to look hard.

A router that reads a longer question as a harder one can be talked into the strong model by anything that stands beside it.
Trees that were fitted to real prompts with pieces of other prompts around them (`routellm.training.gain_padding`) tell by what
a piece is, and by how it goes with the others, whether it belongs. What most likely does not is left out before anything else
looks at the prompt. Prompts of one paragraph are not touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, log1p, sqrt
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.form import FORM_DIM, form_features
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import Checkpoint
from routellm.routers.parts import Trees, standardise, trees_fit
from routellm.routers.pieces import joined, pieces_of

PADDING_VERSION = 1
"""Of the pieces, and of what is computed of them: checkpoints record it, and any change of either is a new version."""

_PREFIX = "padding."
_STAGES = ("first", "second")
_TREES = ("feature", "threshold", "value")
_NAMES = ("mean", "scale", "weights", "constants", *(f"{stage}.{part}" for stage in _STAGES for part in _TREES))

MOST_CHARS = 8_192
"""Longer prompts are left as they are, which bounds what looking at their pieces costs."""

SLOW_CHARS = 1_500
"""Pieces of longer prompts may be so many that looking at them takes over a millisecond."""

LEAST_CHANCE = 0.2
"""Pieces that belong with less of a chance are left out."""

RELATIONS = 35
"""How many columns `relations` has."""

_WORD = re.compile(r"[^\W_]{4,}")
_SAID_EVERYWHERE = frozenset(
    "about after also answer because been before both could does each find following from given have here into more most "
    "must only other over please question same should some such than that their them then there these they this those "
    "true under using very want were what when where which while will with would your".split()
)
_LEAST = 1e-9
_MOST_PLACES, _MOST_PIECES = 5, 12
_DOUBTFUL, _SAID = 0.3, 0.5


@dataclass(frozen=True, slots=True)
class PaddingFilter:
    """What tells pieces that belong to a prompt from others.

    Attributes:
        features: read the pieces.
        mean, scale, weights: float32, shape (features.dim + FORM_DIM,): a linear score of a piece by itself.
        first, second: trees on the standardised features of form and on `relations`, whose sum and constant is the chance that
            a piece belongs; the second ones know what the first ones say of the pieces around.
        constants: of the two.
    """

    features: PromptFeatures
    mean: Vector
    scale: Vector
    weights: Vector
    first: Trees
    second: Trees
    constants: tuple[float, float]

    def is_slow(self, prompt: str) -> bool:
        """Whether `strip` may take over a millisecond."""
        return SLOW_CHARS < len(prompt) <= MOST_CHARS and "\n" in prompt

    def strip(self, prompt: str) -> str:
        """The prompt without pieces that don't belong to it; the very same prompt where all do."""
        if "\n" not in prompt or len(prompt) > MOST_CHARS:
            return prompt
        pieces = pieces_of(prompt)
        if len(pieces) < 2:
            return prompt
        chances = self.chances(pieces)
        least = min(LEAST_CHANCE, max(chances))
        kept = [piece for piece, chance in zip(pieces, chances, strict=True) if chance >= least]
        return prompt if len(kept) == len(pieces) else joined(kept)

    def chances(self, pieces: Sequence[str]) -> list[float]:
        """For each of two pieces and more, whether it belongs."""
        vectors = vectors_of(pieces, self.features)
        standard = standardise(vectors, self.mean, self.scale)
        dim = self.features.embedder.dim
        group = Group.of(pieces, vectors[:, :dim], (standard @ self.weights).tolist())
        rows = np.empty((len(pieces), RELATIONS + standard.shape[1] - dim), dtype=np.float32)
        rows[:, RELATIONS:] = standard[:, dim:]
        chances = [1.0] * len(pieces)
        for trees, constant in zip((self.first, self.second), self.constants, strict=True):
            rows[:, :RELATIONS] = relations(group, chances)
            chances = [min(max(constant + trees.predict(row), 0.0), 1.0) for row in rows]
        return chances


def features_of_pieces(features: PromptFeatures) -> PromptFeatures:
    """What reads the pieces of prompts that are read by `features`: the same, or the bundled table in place of an embedder
    that takes milliseconds, since a prompt may have dozens of pieces."""
    return PromptFeatures(load_embedder()) if features.embedder.blocking else features


def vectors_of(pieces: Sequence[str], features: PromptFeatures) -> Vector:
    """Each piece's embedding, surface features and features of form: float32, shape (n, features.dim + FORM_DIM)."""
    vectors = np.empty((len(pieces), features.dim + FORM_DIM), dtype=np.float32)
    for row, piece in enumerate(pieces):
        vectors[row, : features.dim] = features.encode(piece)
        vectors[row, features.dim :] = form_features(piece)
    return vectors


@dataclass(frozen=True, slots=True)
class Group:
    """What is known of a prompt's pieces before anything is known of whether they belong.

    Attributes:
        cosines: of each two pieces, 0 of a piece with itself.
        words: how many words each has, without those that are said everywhere.
        shared: of each word that several have, the rows of these.
        sizes: characters of each.
        own: what each scores by itself.
        colons: whether each ends with one.
    """

    cosines: list[list[float]]
    words: list[int]
    shared: list[list[int]]
    sizes: list[int]
    own: list[float]
    colons: list[float]

    @classmethod
    def of(cls, pieces: Sequence[str], embeddings: Vector, own: list[float]) -> Group:
        """That of two pieces and more, whose embeddings have a shape of (n, dim)."""
        cosines: list[list[float]] = (embeddings @ embeddings.T).tolist()
        rows_of: dict[str, list[int]] = {}
        counts = []
        for row, piece in enumerate(pieces):
            cosines[row][row] = 0.0
            words = set(_WORD.findall(piece.lower())) - _SAID_EVERYWHERE
            counts.append(len(words))
            for word in words:
                rows_of.setdefault(word, []).append(row)
        return cls(
            cosines,
            counts,
            [rows for rows in rows_of.values() if len(rows) > 1],
            [len(piece) for piece in pieces],
            own,
            [float(piece.endswith(":")) for piece in pieces],
        )


def relations(group: Group, chances: Sequence[float]) -> list[list[float]]:
    """How each piece goes with the others, and where it stands: n rows of `RELATIONS` columns.

    Args:
        chances: that each piece belongs, as far as is known.
    """
    # Lists, not arrays: of the few pieces that most prompts have these are faster by far.
    own, sizes, n = group.own, group.sizes, len(group.own)
    core = max(range(n), key=lambda row: chances[row] + 1e-3 * own[row])
    rival = max(score for row, score in enumerate(own) if row != core)
    total = sum(sizes)
    in_order = sorted(chances)
    middle = (in_order[n // 2] + in_order[(n - 1) // 2]) / 2.0
    of_all = _of_all(group, chances)
    with_rest = _likeness_to_rest(group, chances)
    shared = _words_shared(group, core, chances)
    rows = []
    for row in range(n):
        after = row + 1 if row + 1 < n else None
        lead = rival if row == core else own[core]
        cosines = group.cosines[row]
        rows.append(
            [
                *(own[row], lead, own[row] - lead),
                *(own[row - 1] if row else 0.0, own[after] if after else 0.0),
                *(with_rest[row], 1.0 if row == core else cosines[core], max(cosines), max(map(mul, cosines, chances))),
                *(cosines[row - 1] if row else 0.0, cosines[after] if after else 0.0),
                *shared[row],
                *(row / (n - 1), min(row, _MOST_PLACES), min(n - 1 - row, _MOST_PLACES), row == core, row - core),
                *(log1p(sizes[row]) / 10.0, sizes[row] / total, log(sizes[row] / sizes[core])),
                *(group.colons[row], group.colons[row - 1] if row else 0.0),
                *(chances[row], chances[row] - middle),
                *(chances[row - 1] if row else 0.0, chances[after] if after else 0.0),
                *of_all,
            ]
        )
    return rows


def _of_all(group: Group, chances: Sequence[float]) -> list[float]:
    """What is the same for all pieces of a prompt: the best score, how many there are, and how many most likely belong."""
    total = sum(group.sizes)
    doubtful = sum(size for size, chance in zip(group.sizes, chances, strict=True) if chance < _DOUBTFUL)
    likely = sum(map(mul, chances, group.sizes))
    return [max(group.own), min(len(chances), _MOST_PIECES), max(chances), min(chances), likely / total, doubtful / total]


def _likeness_to_rest(group: Group, chances: Sequence[float]) -> list[float]:
    """The cosine of each piece with all others together, as far as they belong."""
    weights = [sqrt(size) * chance for size, chance in zip(group.sizes, chances, strict=True)]
    sums = [sum(map(mul, cosines, weights)) for cosines in group.cosines]
    squares = [weight * weight for weight in weights]
    whole = sum(map(mul, weights, sums)) + sum(squares)
    return [
        each / sqrt(max(whole - 2.0 * weight * each - square, _LEAST))
        for each, weight, square in zip(sums, weights, squares, strict=True)
    ]


def _words_shared(group: Group, core: int, chances: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Of each piece's words: the share and the number said in others that belong, and in the core."""
    others, in_core = [0] * len(chances), [0] * len(chances)
    for rows in group.shared:
        said = sum([chances[row] for row in rows])
        for row in rows:
            others[row] += said - chances[row] > _SAID
            in_core[row] += core in rows
    found = []
    for row, (count, in_others, in_it) in enumerate(zip(group.words, others, in_core, strict=True)):
        count = max(count, 1)
        found.append((in_others / count, log1p(in_others), 1.0 if row == core else in_it / count, log1p(in_it)))
    return found


def padding_tensors(padding: PaddingFilter | None) -> dict[str, NDArray[Any]]:
    """What a checkpoint holds of a filter; nothing where there is none."""
    if padding is None:
        return {}
    tensors: dict[str, NDArray[Any]] = {
        f"{_PREFIX}mean": padding.mean,
        f"{_PREFIX}scale": padding.scale,
        f"{_PREFIX}weights": padding.weights,
        f"{_PREFIX}constants": np.array(padding.constants, dtype=np.float32),
    }
    for stage, trees in zip(_STAGES, (padding.first, padding.second), strict=True):
        tensors |= {f"{_PREFIX}{stage}.{part}": getattr(trees, part) for part in _TREES}
    return tensors


def read_padding(checkpoint: Checkpoint, features: PromptFeatures, remedy: str) -> PaddingFilter | None:
    """The filter that a checkpoint holds for prompts read by `features`; None where it was made without one.

    Raises:
        CheckpointError: the filter is of another version or was fitted to another embedder's vectors, or its tensors are
            missing or don't fit.
    """
    meta = checkpoint.meta or {}
    version = meta.get("padding_version")
    if version is None:
        return None
    if version != PADDING_VERSION:
        raise CheckpointError(
            f"{checkpoint.path}: needs padding_version {version!r}; this release has {PADDING_VERSION}. {remedy}"
        )
    fitted_to = meta.get("padding_fingerprint", features.embedder.fingerprint)
    features = features_of_pieces(features)
    if fitted_to != features.embedder.fingerprint:
        raise CheckpointError(
            f"{checkpoint.path}: its filter of padding was fitted to vectors of {fitted_to!r}, not of "
            f"{features.embedder.fingerprint!r}. {remedy}"
        )
    found = {name.removeprefix(_PREFIX): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(_PREFIX)}
    for name in _NAMES:
        if name not in found:
            raise CheckpointError(f"{checkpoint.path}: the tensor '{_PREFIX}{name}' is missing. {remedy}")
    mean, scale, weights, constants = (found[name] for name in ("mean", "scale", "weights", "constants"))
    one, two = ([found[f"{stage}.{part}"] for part in _TREES] for stage in _STAGES)
    columns = RELATIONS + features.dim - features.embedder.dim + FORM_DIM
    fits = [each.shape == (features.dim + FORM_DIM,) for each in (mean, scale, weights)]
    fits += [constants.shape == (2,), bool(np.all(scale > 0))]
    fits += [trees_fit(feature, threshold, value, columns) for feature, threshold, value in (one, two)]
    if not all(fits):
        raise CheckpointError(f"{checkpoint.path}: the tensors of its filter of padding don't fit together. {remedy}")
    trees = Trees(*one), Trees(*two)
    return PaddingFilter(features, mean, scale, weights, *trees, (float(constants[0]), float(constants[1])))
