"""The fit of a static token table: means, predicted states, three tables in one."""

from __future__ import annotations

import numpy as np
import pytest

from routellm.embeddings.base import Vector
from routellm.errors import DataError
from routellm.training.token_table import INPUT_PENALTY, TOKEN_PENALTY, Means, explained, join, predict_states
from tests.conftest import require

TOKENS, WIDTH = 40, 6


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    require("scipy")
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def ids(random: np.random.Generator) -> list[np.ndarray[tuple[int, ...], np.dtype[np.intp]]]:
    return [random.integers(0, TOKENS, random.integers(1, 12)).astype(np.intp) for _ in range(400)]


@pytest.fixture(scope="module")
def means(ids: list[np.ndarray[tuple[int, ...], np.dtype[np.intp]]]) -> Means:
    return Means(ids, TOKENS)


@pytest.fixture(scope="module")
def inputs(random: np.random.Generator) -> Vector:
    return random.standard_normal((TOKENS, WIDTH)).astype(np.float32)


def test_means_are_means(means: Means, inputs: Vector, ids: list[np.ndarray[tuple[int, ...], np.dtype[np.intp]]]) -> None:
    np.testing.assert_allclose(means.of(inputs), [inputs[each].mean(axis=0) for each in ids], atol=1e-6)
    shares = np.array([np.bincount(each, minlength=TOKENS) / len(each) for each in ids])
    np.testing.assert_allclose(means.back(np.eye(len(ids), 3, dtype=np.float32)), shares[:3].T, atol=1e-6)
    np.testing.assert_allclose(means.take(np.array([5, 2])).of(inputs), means.of(inputs)[[5, 2]], atol=1e-6)


def test_a_prompt_without_tokens_has_a_mean_of_zero(inputs: Vector, random: np.random.Generator) -> None:
    empty = np.empty(0, dtype=np.intp)
    assert not Means([empty, np.array([1], dtype=np.intp)], TOKENS).of(inputs)[0].any()


def test_states_that_hang_on_tokens_are_predicted(means: Means, inputs: Vector, random: np.random.Generator) -> None:
    own = random.standard_normal((TOKENS, 3)).astype(np.float32)  # what input embeddings don't tell
    components = means.of(inputs @ random.standard_normal((WIDTH, 3)).astype(np.float32) + own)
    table, constant = predict_states(means, inputs, components)
    assert table.shape == (TOKENS, 3)
    missed = components - means.of(table) - constant
    assert np.square(missed).sum() < 0.1 * np.square(components - components.mean(axis=0)).sum()
    assert explained(means, inputs, components) > 0.8


def test_the_prediction_is_that_of_kernel_ridge_regression(means: Means, inputs: Vector, random: np.random.Generator) -> None:
    components = random.standard_normal((len(means.of(inputs)), 3)).astype(np.float32)
    shares = means.of(np.eye(len(inputs), dtype=np.float32)).astype(np.float64)
    seen = shares @ inputs
    seen -= seen.mean(axis=0)
    seen /= np.sqrt(seen.var(axis=0).sum() / 256.0)
    kernel = shares @ shares.T / TOKEN_PENALTY + seen @ seen.T / INPUT_PENALTY
    wanted = kernel @ np.linalg.solve(kernel + np.eye(len(kernel)), components - components.mean(axis=0))
    table, constant = predict_states(means, inputs, components)
    np.testing.assert_allclose(means.of(table), wanted, atol=1e-3)
    np.testing.assert_allclose(constant, components.mean(axis=0), atol=1e-6)


def test_states_that_are_not_numbers_are_refused(means: Means, inputs: Vector) -> None:
    with pytest.raises(DataError, match="can't be predicted: no solution after 1000 steps"):
        predict_states(means, inputs, np.full((len(means.of(inputs)), 2), np.nan, dtype=np.float32))


def test_noise_is_not_explained(means: Means, inputs: Vector, random: np.random.Generator) -> None:
    assert explained(means, inputs, random.standard_normal((400, 3)).astype(np.float32)) < 0.1


def test_a_joined_table_keeps_what_its_parts_tell_apart(means: Means, inputs: Vector, random: np.random.Generator) -> None:
    other = 100 * random.standard_normal((TOKENS, 4)).astype(np.float32) + 1000
    table = join(means, (inputs, other), WIDTH + 4)
    assert table.shape == (TOKENS, WIDTH + 4)
    seen = means.of(table)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-2)
    found, *_ = np.linalg.lstsq(np.hstack([seen, np.ones((400, 1), dtype=np.float32)]), means.of(inputs))
    missed = means.of(inputs) - np.hstack([seen, np.ones((400, 1), dtype=np.float32)]) @ found
    assert np.abs(missed).max() < 1e-3, "either part can be read off it, whatever its scale was"
    assert join(means, (inputs, other), 5).shape == (TOKENS, 5)
