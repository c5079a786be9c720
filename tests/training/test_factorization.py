from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from routellm.errors import CheckpointError
from routellm.training.factorization import (
    Battles,
    Factors,
    Hyperparameters,
    fit,
    initial_factors,
    loss_and_gradients,
    validation_loss,
)


def random_battles(count: int, n_models: int, n_sources: int, seed: int = 0) -> Battles:
    random = np.random.default_rng(seed)
    first = random.integers(0, n_models, count)
    return Battles(
        np.arange(count),
        first,
        (first + random.integers(1, n_models, count)) % n_models,
        random.integers(0, 2, count).astype(np.float32),
        random.random(count).astype(np.float32) + 0.1,
        random.integers(0, n_sources, count),
    )


def test_gradients_equal_finite_differences() -> None:
    random = np.random.default_rng(1)
    shapes = [(5, 7), (7, 9), (7,), (3,)]
    # float64 here, so that the differences are not lost in rounding
    factors = Factors(*(random.standard_normal(shape) for shape in shapes))  # type: ignore[arg-type]
    features: NDArray[np.float32] = random.standard_normal((20, 9))  # type: ignore[assignment]
    battles = random_battles(20, 5, 3)
    gradients = loss_and_gradients(factors, features, battles)[1]
    for array, gradient in zip(factors.arrays(), gradients, strict=True):
        for index in np.ndindex(*array.shape):
            kept, step = float(array[index]), 1e-6
            array[index] = kept + step
            above = loss_and_gradients(factors, features, battles)[0]
            array[index] = kept - step
            below = loss_and_gradients(factors, features, battles)[0]
            array[index] = kept
            assert gradient[index] == pytest.approx((above - below) / (2 * step), abs=2e-6)


def test_loss_is_that_of_bradley_terry_by_hand() -> None:
    # v_M of length 1: (1, 0) and (0, 1); W1 the identity; w2 = (2, 3); q = (0.5, -1): s_a = 2 * 0.5 = 1, s_b = 3 * -1 = -3.
    factors = Factors(*(np.array(a, dtype=np.float32) for a in ([[4, 0], [0, 0.5]], [[1, 0], [0, 1]], [2, 3], [0])))
    one, zero = np.array([0]), np.array([1])
    battle = Battles(one, one, zero, np.array([1], dtype=np.float32), np.array([1], dtype=np.float32), one)
    loss, _ = loss_and_gradients(factors, np.array([[0.5, -1.0]], dtype=np.float32), battle)
    assert loss == pytest.approx(np.log1p(np.exp(-4.0)), rel=1e-5)


def planted(count: int, seed: int) -> tuple[NDArray[np.float32], Battles]:
    """Battles of two models whose outcome depends on the first of four features."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, 4)).astype(np.float32)
    target = (random.random(count) < 1 / (1 + np.exp(-3 * features[:, 0]))).astype(np.float32)
    zeros = np.zeros(count, dtype=np.int64)
    return features, Battles(np.arange(count), zeros, zeros + 1, target, np.ones(count, dtype=np.float32), zeros)


def test_fit_finds_a_planted_preference() -> None:
    features, battles = planted(1500, 0)
    settings = Hyperparameters(dim=8, learning_rate=3e-3, epochs=15)
    train, validation = battles.take(np.arange(1000)), battles.take(np.arange(1000, 1500))
    factors, history = fit(features, train, validation, 2, 1, settings)
    assert history.validation[history.best_epoch] < 0.5 < np.log(2)
    unit = factors.models / np.linalg.norm(factors.models, axis=1, keepdims=True)
    direction = (factors.classifier * (unit[0] - unit[1])) @ factors.projection
    assert direction[0] > 5 * np.abs(direction[1:]).max()


def test_same_seed_same_weights_and_another_seed_others() -> None:
    features, battles = planted(300, 0)
    settings = Hyperparameters(dim=4, epochs=2)
    one, again = (fit(features, battles, battles, 2, 1, settings)[0] for _ in range(2))
    other = fit(features, battles, battles, 2, 1, Hyperparameters(dim=4, epochs=2, seed=1))[0]
    assert all((a == b).all() for a, b in zip(one.arrays(), again.arrays(), strict=True))
    assert not (one.projection == other.projection).all()


def test_early_stopping_keeps_the_best_epoch() -> None:
    features, battles = planted(200, 0)
    flipped = Battles(
        battles.prompt, battles.first, battles.second, 1 - battles.target, battles.weight, battles.source
    )  # validation that contradicts training: each epoch makes it worse
    settings = Hyperparameters(dim=4, learning_rate=1e-2, epochs=50, patience=3)
    seen: list[int] = []
    factors, history = fit(features, battles, flipped, 2, 1, settings, lambda epoch, a, b: seen.append(epoch))
    assert seen == list(range(len(history.validation)))
    assert len(history.validation) == history.best_epoch + settings.patience + 1 < 50
    assert loss_and_gradients(factors, features, flipped)[0] == pytest.approx(min(history.validation))


def test_source_intercepts_take_up_base_rates_and_can_be_switched_off() -> None:
    random = np.random.default_rng(0)
    count = 2000
    source = random.integers(0, 2, count)
    target = (random.random(count) < np.where(source == 0, 0.9, 0.1)).astype(np.float32)
    zeros = np.zeros(count, dtype=np.int64)
    battles = Battles(np.arange(count), zeros, zeros + 1, target, np.ones(count, dtype=np.float32), source)
    features = np.ones((count, 1), dtype=np.float32)
    settings = Hyperparameters(dim=4, learning_rate=1e-2, epochs=10)
    offsets = fit(features, battles, battles, 2, 2, settings)[0].offsets
    assert offsets[0] > 1 > -1 > offsets[1]
    off = Hyperparameters(dim=4, learning_rate=1e-2, epochs=10, source_intercepts=False)
    assert (fit(features, battles, battles, 2, 2, off)[0].offsets == 0).all()


def test_a_fit_that_broke_off_goes_on_to_the_same_result(tmp_path: Path) -> None:
    features, battles = planted(300, 0)
    settings = Hyperparameters(dim=4, learning_rate=3e-3, epochs=6)
    rows = np.arange(300)
    train, validation = battles.take(rows[:200]), battles.take(rows[200:])

    def broken_off(epoch: int, *_: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    whole, history = fit(features, train, validation, 2, 1, settings)
    with pytest.raises(KeyboardInterrupt):
        fit(features, train, validation, 2, 1, settings, broken_off, tmp_path / "state")
    epochs: list[int] = []
    rest, resumed = fit(
        features, train, validation, 2, 1, settings, lambda epoch, *_: epochs.append(epoch), tmp_path / "state"
    )
    assert epochs == [3, 4, 5]
    assert all((a == b).all() for a, b in zip(whole.arrays(), rest.arrays(), strict=True))
    assert resumed == history
    again, _ = fit(features, train, validation, 2, 1, settings, lambda *_: pytest.fail("it was done"), tmp_path / "state")
    assert all((a == b).all() for a, b in zip(whole.arrays(), again.arrays(), strict=True))


def test_a_corrupt_state_is_told(tmp_path: Path) -> None:
    features, battles = planted(20, 0)
    (tmp_path / "state").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="Train without --resume"):
        fit(features, battles, battles, 2, 1, Hyperparameters(epochs=1), keep=tmp_path / "state")


def test_by_sources_the_validation_loss_is_the_mean_over_sources() -> None:
    features, battles = planted(100, 0)
    battles.source[:10] = 1
    factors = initial_factors(2, 4, 2, Hyperparameters(dim=4))
    parts = [battles.take(np.arange(10)), battles.take(np.arange(10, 100))]
    small, large = (loss_and_gradients(factors, features[part.prompt], part)[0] for part in parts)
    assert validation_loss(factors, features, battles, "pooled") == pytest.approx(0.1 * small + 0.9 * large)
    assert validation_loss(factors, features, battles, "sources") == pytest.approx(0.5 * small + 0.5 * large)
