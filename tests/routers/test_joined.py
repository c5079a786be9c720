"""How surface features join an embedding in what sw_ranking compares."""

from __future__ import annotations

import numpy as np
import pytest

from routellm.embeddings.surface import SURFACE_DIM
from routellm.errors import DataError
from routellm.routers.joined import SurfaceScale


def some(n: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Vectors as `PromptFeatures` makes them, with an embedding of 4 and a first feature that never varies."""
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(n, 4 + SURFACE_DIM)).astype(np.float32)
    rows[:, 4] = 1.0
    return rows


def test_features_get_the_length_asked_for_and_embeddings_one() -> None:
    rows = some(500)
    joined = SurfaceScale.of(rows, 0.5).joined(rows)
    assert joined.dtype == np.float32
    assert np.linalg.norm(joined[:, :4], axis=1) == pytest.approx(np.ones(500), abs=1e-6)
    assert np.square(joined[:, 4:]).sum(axis=1).mean() ** 0.5 == pytest.approx(0.5, rel=1e-5)
    assert joined[:, 4:].mean(axis=0) == pytest.approx(np.zeros(SURFACE_DIM), abs=1e-2)


def test_a_feature_that_never_varied_says_nothing_later() -> None:
    rows = some(50)
    scale = SurfaceScale.of(rows, 1.0)
    rows[:, 4] = 100.0
    assert not scale.joined(rows)[:, 4].any()


def test_a_batch_equals_singles_and_an_embedding_of_zeros_stays_one() -> None:
    rows = some(40)
    rows[7, :4] = 0.0
    scale = SurfaceScale.of(rows, 0.5)
    batch = scale.joined(rows)
    assert all(np.array_equal(scale.joined(rows[place : place + 1])[0], batch[place]) for place in range(40))
    assert not batch[7, :4].any()


def test_tensors_make_the_same_scale_again() -> None:
    rows = some(60)
    scale = SurfaceScale.of(rows, 0.5)
    assert np.array_equal(SurfaceScale.from_tensors(scale.tensors()).joined(rows), scale.joined(rows))


@pytest.mark.parametrize("name", ["surface.mean", "surface.factor", "surface.weight"])
def test_tensors_that_are_none_are_refused(name: str) -> None:
    tensors = SurfaceScale.of(some(60), 0.5).tensors()
    for broken in ({}, {name: tensors[name][:0]}, {name: tensors[name].astype(np.float64)}):
        others = {other: tensor for other, tensor in tensors.items() if other != name}
        with pytest.raises(DataError, match="surface features need the tensors"):
            SurfaceScale.from_tensors({**others, **broken})
