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

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import MissingExtraError

STATE_COMPONENTS = 256
INPUT_PENALTY = 1000.0
"""Of the regression on input embeddings, whose means have a variance of `_VARIANCE` in all."""
TOKEN_PENALTY = 0.1
"""Of the regression on the shares of single tokens."""

_VARIANCE = 256.0


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

    def alike(self) -> Vector:
        """The products of the prompts' shares of tokens, shape (n, n)."""
        return np.asarray((self._shares @ self._shares.T).toarray(), dtype=np.float32)

    def back(self, values: Vector) -> Vector:
        """`of`, transposed: shape (tokens, k) from (n, k)."""
        return np.asarray(self._shares.T @ values, dtype=np.float32)


def predict_states(means: Means, inputs: Vector, components: Vector) -> tuple[Vector, Vector]:
    """Token vectors whose means predict the prompts' states, shape (tokens, k), and the prediction's constant, (k,).

    Kernel ridge regression, whose solution folds into a table: it is linear in the two parts of the kernel.

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
    kernel = means.alike()
    kernel /= np.float32(TOKEN_PENALTY)
    kernel += seen @ seen.T / np.float32(INPUT_PENALTY)
    kernel[np.diag_indices(len(kernel))] += 1
    dual = np.linalg.solve(kernel, components - mean)
    on_inputs = seen.T @ dual / (INPUT_PENALTY * scale)
    table = (inputs - middle) @ on_inputs + means.back(dual) / TOKEN_PENALTY
    return table.astype(np.float32), mean


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
