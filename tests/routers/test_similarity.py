"""Cosines in 8 bits: exact for the stored numbers, and near those of the vectors that they stand for."""

import numpy as np
import pytest

from routellm.routers.similarity import PromptVectors, quantise


@pytest.mark.parametrize("width", [16, 256, 1536, 3072])
def test_cosines_are_those_of_the_stored_numbers_to_the_last_bit(width: int) -> None:
    """The worst that 8 bits can hold: every product as large as it gets."""
    random = np.random.default_rng(0)
    peaks = quantise(np.sign(random.standard_normal((50, width))))
    vectors = PromptVectors.of(np.concatenate((peaks, quantise(random.standard_normal((1000, width))))))
    exact = vectors.stored.astype(np.int64) @ peaks[0].astype(np.int64)
    lengths = np.sqrt((vectors.stored.astype(np.int64) ** 2).sum(axis=1))
    assert (next(vectors.relative_cosines(peaks[:1])) == exact * (1 / lengths) / (exact * (1 / lengths)).max()).all()


def test_8_bits_keep_directions() -> None:
    for width in (256, 1536):
        vectors = np.random.default_rng(1).standard_normal((100, width))
        kept = quantise(vectors).astype(np.float64)
        cosines = (vectors * kept).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(kept, axis=1)
        assert cosines.min() > 0.9998
