"""The last layer of a classifier, fitted anew in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from routellm.errors import ConfigError
from routellm.training.bert_data import Examples
from routellm.training.gain_kinds import check_kinds
from tests.conftest import require

WIDTH = 6


@pytest.fixture(autouse=True)
def libraries() -> None:
    require("torch")


def make_model() -> Any:
    """A classifier whose pooled vector is the mean of its tokens' rows in a table."""
    import torch
    from torch import nn

    class Model(nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 3)

        def pooled(self, ids: Any, mask: Any) -> Any:
            return (self.table(ids) * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    return Model()


def make_examples(model: Any, directions: dict[str, np.ndarray[Any, Any]], rows: int = 600) -> Examples:
    """Comparisons of two kinds whose outcomes follow a direction each, in sources of different base rates."""
    random = np.random.default_rng(3)
    ids = [random.integers(0, 50, random.integers(1, 9)).astype(np.int32) for _ in range(rows)]
    table = model.table.weight.detach().double().numpy()
    vectors = np.array([table[each].mean(axis=0) for each in ids])
    sources = [f"{kind}/{number}" for kind in directions for number in range(2)]
    source = random.integers(0, len(sources), rows)
    scores = np.array([vectors[row] @ directions[sources[source[row]].split("/")[0]] for row in range(rows)])
    wins = 1 / (1 + np.exp(-scores - np.array([2.0, -2.0] * len(directions))[source]))
    targets = np.stack([wins, np.zeros(rows), 1 - wins], axis=1)
    return Examples([""] * rows, ids, targets, np.ones(rows), source, sources, np.full(len(sources), 1 / len(sources)))


def log_odds(model: Any, examples: Examples) -> np.ndarray[Any, Any]:
    from routellm.training.bert_refit import pooled_vectors

    rows = np.arange(len(examples.ids))
    weight, bias = model.head.weight.detach().double().numpy(), model.head.bias.detach().double().numpy()
    logits = pooled_vectors(model, examples, rows, 64) @ weight.T + bias
    return np.asarray(logits[:, 0] - np.logaddexp(logits[:, 1], logits[:, 2]))


def test_the_layer_follows_all_kinds_alike_and_keeps_its_spread() -> None:
    from routellm.training.bert_refit import refit_head

    model = make_model()
    first, second = np.eye(WIDTH)[0] * 5, np.eye(WIDTH)[1] * 0.5
    examples = make_examples(model, {"one": first, "two": second})
    before = log_odds(model, examples).std()
    refit_head(model, examples, np.arange(len(examples.ids)), 64)
    after = log_odds(model, examples)
    assert after.std() == pytest.approx(before, rel=1e-3)
    direction = model.head.weight.detach().double().numpy()
    assert not direction[1:].any()
    share = direction[0] / np.linalg.norm(direction[0])
    assert share[:2].min() > 0.4, "a kind counts by its spread, not by the size of its effect"
    assert np.abs(share[2:]).max() < 0.25
    assert not model.head.bias.any()


def test_only_the_given_rows_are_fitted_to() -> None:
    from routellm.training.bert_refit import refit_head

    models = [make_model() for _ in range(2)]
    examples = make_examples(models[0], {"one": np.eye(WIDTH)[0]})
    rows = np.arange(0, 600, 2)
    refit_head(models[0], examples, rows, 64)
    examples.targets[1::2] = [1.0, 0.0, 0.0]
    refit_head(models[1], examples, rows, 64)
    np.testing.assert_array_equal(models[0].head.weight.detach().numpy(), models[1].head.weight.detach().numpy())


def test_sources_are_compared_where_that_is_said() -> None:
    from routellm.training.bert_refit import refit_head

    model = make_model()
    examples = make_examples(model, {"one": np.zeros(WIDTH)})
    table = model.table.weight.detach().double().numpy()
    means = np.array([table[ids].mean(axis=0) @ np.eye(WIDTH)[2] for ids in examples.ids])
    examples.source[:] = means < 0.0  # the source of the higher base rate has the larger third column, and that is all
    examples.targets[:] = np.where(examples.source[:, None] == 0, [0.9, 0.0, 0.1], [0.1, 0.0, 0.9])
    refit_head(model, examples, np.arange(600), 64, across=["one"])
    direction = model.head.weight.detach().double().numpy()[0]
    assert direction[2] > 0.9 * np.linalg.norm(direction)
    refit_head(model, examples, np.arange(600), 64)
    assert np.linalg.norm(model.head.weight.detach().double().numpy()) < 1e-3 * np.linalg.norm(direction)


def test_a_kind_that_the_data_lack_is_refused() -> None:
    sources = make_examples(make_model(), {"gain": np.zeros(WIDTH), "length": np.zeros(WIDTH)}).sources
    check_kinds("--across", ["gain", "length"], sources)
    with pytest.raises(
        ConfigError, match=r"--across names the kind 'gains' \(did you mean 'gain'\?\); the data have: 'gain', 'length'"
    ):
        check_kinds("--across", ["gains"], sources)
