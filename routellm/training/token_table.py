"""A static token table that knows three things of each token: the fit, without the models.

A prompt's vector is a mean over its tokens, so what is linear in such a mean folds into a table. Joined are

* `sentence`: what a sentence encoder makes of each token alone, weighted by frequency (`model2vec`): topics;
* `input`: the same encoder's input embeddings, unweighted: style, which hangs on the common words;
* `state`: a prediction of a language model's states of the whole prompt (`routellm.training.language_states`): difficulty.

The prediction is a ridge regression on two things at once, the mean of the tokens' input embeddings and the share of each
token, so that a token is known by its like as long as few prompts hold it. Each part gets the same variance over prompts, and
principal components make one table of the three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import DataError, MissingExtraError

STATE_COMPONENTS = 256
INPUT_PENALTY = 1000.0
"""Of the regression on input embeddings, whose means have a variance of `_VARIANCE` in all."""
TOKEN_PENALTY = 0.1
"""Of the regression on the shares of single tokens."""

_VARIANCE = 256.0
_PRECISION, _MOST_STEPS = 1e-4, 1000
_LEAST = np.float32(1e-30)


class Means:
    """Means of token vectors over prompts.

    Args:
        ids: n prompts' token ids.
        tokens: how many tokens there are.

    Raises:
        MissingExtraError: scipy is not installed.
    """

    def __init__(self, ids: Sequence[NDArray[np.intp]], tokens: int) -> None:
        try:
            from scipy.sparse import csr_matrix
        except ImportError as error:
            raise MissingExtraError("Distilling the static table", "distill") from error
        self._ids, self._tokens = ids, tokens
        lengths = np.array([len(each) for each in ids])
        rows = np.repeat(np.arange(len(ids)), lengths)
        shares = (1.0 / np.maximum(lengths, 1))[rows].astype(np.float32)
        self._shares = csr_matrix((shares, (rows, np.concatenate(ids))),
            shape=(len(ids), tokens))  # fmt: skip

    def take(self, rows: NDArray[np.intp]) -> Means:
        """The means over some of the prompts."""
        return Means([self._ids[row] for row in rows], self._tokens)

    def of(self, vectors: Vector) -> Vector:
        """float32, shape (n, dim), of token vectors of shape (tokens, dim)."""
        return np.asarray(self._shares @ vectors, dtype=np.float32)

    def back(self, values: Vector) -> Vector:
        """`of`, transposed: shape (tokens, k) from (n, k)."""
        return np.asarray(self._shares.T @ values, dtype=np.float32)


def predict_states(means: Means, inputs: Vector, components: Vector) -> tuple[Vector, Vector]:
    """Token vectors whose means predict the prompts' states, shape (tokens, k), and the prediction's constant, (k,).

    Kernel ridge regression, whose solution folds into a table: it is linear in the two parts of the kernel. The kernel itself,
    n times n, is never made.

    Args:
        inputs: the tokens' input embeddings, shape (tokens, width).
        components: principal components of the states, shape (n, k).
    """
    seen = means.of(inputs)
    middle = seen.mean(axis=0)
    seen -= middle
    scale = np.float32(np.sqrt(seen.var(axis=0).sum() / _VARIANCE))
    seen /= scale
    mean = components.mean(axis=0)
    known = np.linalg.inv(seen.T @ seen + np.float32(INPUT_PENALTY) * np.eye(seen.shape[1], dtype=np.float32))

    def times(values: Vector) -> Vector:
        """What the kernel, with its diagonal, makes of values, shape (n, k)."""
        by_tokens = means.of(means.back(values)) / np.float32(TOKEN_PENALTY)
        return np.asarray(values + by_tokens + seen @ (seen.T @ values) / np.float32(INPUT_PENALTY), dtype=np.float32)

    def nearly_solved(values: Vector) -> Vector:
        """The solution, were there no shares of tokens."""
        return np.asarray(values - seen @ (known @ (seen.T @ values)), dtype=np.float32)

    dual = conjugate_gradients(times, nearly_solved, (components - mean).astype(np.float32))
    on_inputs = seen.T @ dual / (INPUT_PENALTY * scale)
    table = (inputs - middle) @ on_inputs + means.back(dual) / TOKEN_PENALTY
    return table.astype(np.float32), mean


def conjugate_gradients(
    times: Callable[[Vector], Vector], nearly_solved: Callable[[Vector], Vector], wanted: Vector
) -> Vector:
    """x with `times(x)` = `wanted`, for a symmetric positive definite linear map; columns are solved side by side.

    Args:
        nearly_solved: the preconditioner: a like map that is near the inverse of `times`.
        wanted: float32, shape (n, k).

    Raises:
        DataError: no solution within `_MOST_STEPS` steps.
    """
    found = np.zeros_like(wanted)
    rest, step = wanted.copy(), nearly_solved(wanted)
    sizes = (rest * step).sum(axis=0)
    enough = _PRECISION * np.linalg.norm(wanted)
    for _ in range(_MOST_STEPS):
        if np.linalg.norm(rest) <= enough:
            return found
        made = times(step)
        length = sizes / np.maximum((step * made).sum(axis=0), _LEAST)
        found += length * step
        rest -= length * made
        turned = nearly_solved(rest)
        before, sizes = sizes, (rest * turned).sum(axis=0)
        step = turned + sizes / np.maximum(before, _LEAST) * step
    raise DataError(
        f"The states can't be predicted: no solution after {_MOST_STEPS} steps. Are they all finite, and do they vary?"
    )


def explained(means: Means, inputs: Vector, components: Vector) -> float:
    """The share of the components' variance that a table explains on prompts that it was not fitted to, every tenth one."""
    held = np.arange(len(components)) % 10 == 0
    fitting, checking = np.flatnonzero(~held), np.flatnonzero(held)
    table, constant = predict_states(means.take(fitting), inputs, components[fitting])
    missed = components[checking] - means.take(checking).of(table) - constant
    return float(1 - np.square(missed).sum() / np.square(components[checking] - constant).sum())


def join(means: Means, parts: Sequence[Vector], dim: int) -> Vector:
    """One table of several, shape (tokens, dim), whose prompts' means are 0 on average over the prompts of `means`.

    Centred so that the cosine of two prompts tells how alike they are beside others, and not that both are text.
    """
    scaled = []
    for part in parts:
        seen = means.of(part)
        scaled.append((part - seen.mean(axis=0)) / np.sqrt(seen.var(axis=0).sum() / _VARIANCE))
    table = np.hstack(scaled).astype(np.float32)
    return np.asarray(table @ principal_directions(means.of(table).astype(np.float64), dim), dtype=np.float32)


def principal_directions(rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Those in which rows with a mean of 0, shape (n, width), vary most: shape (width, min(count, width)), the first first."""
    return np.asarray(np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :count])
