"""A classifier's last layer fitted anew, in closed form, once the encoder is fine-tuned.

Fine-tuning goes through part of the rows, and bends one layer to comparisons that mean different things. Ridge regressions on
what the encoder makes of all rows, one for each kind of comparison, cost one more reading of the prompts; divided by their
spread and added, they are one direction, which is what the layer becomes: the logit of strong wins, with those of the other
two classes left to their offsets.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from routellm.training.bert_data import Examples, Rows, by_length, pad
from routellm.training.bert_model import PromptClassifier
from routellm.training.gain_fit import balanced, centred, platt
from routellm.training.gain_kinds import kind_of

Floats = NDArray[np.float64]

PENALTY = 1.0
"""In units of the rows' weight, for pooled vectors whose columns have a variance of 1."""

_LEAST_SPREAD = 1e-9


def pooled_vectors(model: PromptClassifier, examples: Examples, rows: Rows, tokens_at_once: int) -> Floats:
    """What the encoder makes of each row's prompt: shape (len(rows), width)."""
    model.eval()
    found = np.empty((len(examples.ids), model.head.in_features))
    first_of: dict[int, int] = {}  # rows of one prompt share one array of ids
    first = np.array([first_of.setdefault(id(examples.ids[row]), row) for row in rows.tolist()])
    with torch.inference_mode():
        for part in by_length(examples, np.unique(first), tokens_at_once):
            ids, mask = pad(examples, part)
            found[part] = model.pooled(torch.from_numpy(ids), torch.from_numpy(mask)).double().numpy()
    return np.asarray(found[first])


def refit_head(
    model: PromptClassifier, examples: Examples, rows: Rows, tokens_at_once: int, across: Collection[str] = ()
) -> None:
    """Replace the model's last layer by one fitted to `rows`.

    Log-odds keep the spread that they have on these; of a layer that was never trained they get the likeliest one.

    The target is the share of wins less that of losses, centred within each source.

    Args:
        across: kinds whose sources can be compared with each other: centred as a whole.
    """
    vectors = pooled_vectors(model, examples, rows, tokens_at_once)
    weight, bias = (each.detach().double().numpy() for each in (model.head.weight, model.head.bias))
    logits = vectors @ weight.T + bias
    spread = float((logits[:, 0] - np.logaddexp(logits[:, 1], logits[:, 2])).std())
    scale = np.maximum(vectors.std(axis=0), _LEAST_SPREAD)
    gain = examples.targets[:, 0] - examples.targets[:, 2]
    kinds = np.array([kind_of(name) for name in examples.sources])[examples.source[rows]]
    direction = np.zeros(vectors.shape[1])
    for kind in np.unique(kinds):
        own = kinds == kind
        source = examples.source[rows[own]]
        found = _ridge((vectors / scale)[own], gain[rows[own]], source, source * (kind not in across))
        told = float(((vectors / scale) @ found).std())
        if told > _LEAST_SPREAD:
            direction += found / told
    direction /= scale
    direction /= max(float((vectors @ direction).std()), _LEAST_SPREAD)
    if spread < _LEAST_SPREAD:
        weights = balanced(examples.source[rows])
        scores = centred(vectors @ direction, examples.source[rows], weights)
        spread, _ = platt(scores, examples.targets[rows, 0], weights)
    direction *= spread
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[0] = torch.from_numpy(direction)
        model.head.bias.zero_()


def _ridge(vectors: Floats, target: Floats, source: Rows, groups: Rows) -> Floats:
    """Weights of the columns of `vectors`, for a target that is centred within `groups`."""
    weights = balanced(source)
    vectors, target = vectors - np.average(vectors, axis=0, weights=weights), centred(target, groups, weights)
    products = (vectors * weights[:, None]).T @ vectors + PENALTY * weights.sum() * np.eye(vectors.shape[1])
    return np.asarray(np.linalg.solve(products, vectors.T @ (weights * target)))
