"""Checkpoints of sw_ranking: what is saved is loaded, and what can't be is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from routellm.embeddings.base import EMBEDDERS
from routellm.errors import CheckpointError, ConfigError
from routellm.routers.checkpoint import META_FILE, load_checkpoint, save_checkpoint
from routellm.routers.sw_ranking import EMBEDDINGS_FILE, SimilarityWeightedRouter
from tests.routers.battle_files import PROMPTS, GridEmbedder, battles_of, build, random_rows, save_router


@pytest.fixture(autouse=True)
def grid_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDERS, "grid", GridEmbedder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    router = build(tmp_path, random_rows(300), num_tiers=4)
    return save_router(router, tmp_path / "saved", "grid")


def test_a_checkpoint_scores_as_what_it_was_made_from(tmp_path: Path, folder: Path) -> None:
    made, loaded = build(tmp_path, random_rows(300), num_tiers=4), SimilarityWeightedRouter(checkpoint_path=str(folder))
    assert loaded.calculate_strong_win_rates(PROMPTS).tolist() == made.calculate_strong_win_rates(PROMPTS).tolist()
    assert loaded.fingerprint == made.fingerprint
    assert isinstance(loaded.ranking.vectors.stored, np.memmap)


def test_settings_given_go_over_those_saved(folder: Path) -> None:
    loaded = SimilarityWeightedRouter(checkpoint_path=str(folder), num_tiers=6, weak_model="delta", sharpness=2)
    assert (loaded.ranking.tier_count, loaded.ranking.settings.weak, loaded.ranking.settings.sharpness) == (6, "delta", 2)
    assert loaded.quantiles is None


def test_battles_can_be_added_to_a_checkpoint(tmp_path: Path, folder: Path) -> None:
    loaded = SimilarityWeightedRouter(checkpoint_path=str(folder))
    more = random_rows(50, seed=4)
    loaded.add_battles(battles_of(more))
    whole = build(tmp_path, random_rows(300) + more, num_tiers=4)
    assert loaded.calculate_strong_win_rates(PROMPTS) == pytest.approx(whole.calculate_strong_win_rates(PROMPTS), abs=1e-9)


def test_a_checkpoint_and_data_sets_do_not_go_together(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        build(tmp_path, random_rows(10), checkpoint_path=str(folder))


def test_a_checkpoint_refuses_another_embedder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="was trained on vectors of 'grid', not of 'static:"):
        SimilarityWeightedRouter(checkpoint_path=str(folder), embedding_model="static")


def change(folder: Path, tmp_path: Path, array: NDArray[Any] | bytes | None = None, **tensors: NDArray[Any]) -> None:
    """Save the folder again with other content, so that all hashes fit it."""
    checkpoint = load_checkpoint(folder, "sw_ranking")
    file = tmp_path / "other.npy"
    if array is None:
        array = np.load(folder / EMBEDDINGS_FILE)
    if isinstance(array, bytes):
        file.write_bytes(array)
    else:
        np.save(file, array)
    meta = {key: value for key, value in (checkpoint.meta or {}).items() if key not in ("weights_sha256", "files")}
    save_checkpoint(folder, "sw_ranking", {**checkpoint.tensors, **tensors}, meta, files={EMBEDDINGS_FILE: file})


@pytest.mark.parametrize(
    "tensors",
    [
        {"prompt": np.full(300, 150, dtype=np.int32)},
        {"first": np.full(300, 6, dtype=np.int16)},
        {"second": np.full(300, -1, dtype=np.int16)},
        {"points": np.full(300, 3, dtype=np.int8)},
        {"weight": np.zeros(300, dtype=np.float32)},
        {"weight": np.ones(299, dtype=np.float32)},
        {"first": np.zeros(300, dtype=np.float32)},
    ],
    ids=lambda tensors: next(iter(tensors)),
)
def test_columns_that_can_not_be_are_checkpoint_errors(tmp_path: Path, folder: Path, tensors: dict[str, NDArray[Any]]) -> None:
    change(folder, tmp_path, **tensors)
    with pytest.raises(CheckpointError, match=str(folder)):
        SimilarityWeightedRouter(checkpoint_path=str(folder))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((150, 16), dtype=np.float32),
        np.zeros(150, dtype=np.int8),
        np.zeros((150, 15), dtype=np.int8),
        np.zeros((149, 16), dtype=np.int8),
        b"no array",
        b"",
    ],
    ids=lambda array: repr(getattr(array, "shape", array)),
)
def test_embeddings_that_do_not_fit_are_checkpoint_errors(tmp_path: Path, folder: Path, array: NDArray[Any] | bytes) -> None:
    change(folder, tmp_path, array)
    with pytest.raises(CheckpointError, match=str(folder)):
        SimilarityWeightedRouter(checkpoint_path=str(folder))


def test_pickled_objects_are_never_loaded(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "objects.npy"
    np.save(file, np.array([{"a": 1}], dtype=object))
    change(folder, tmp_path, file.read_bytes())
    with pytest.raises(CheckpointError, match=EMBEDDINGS_FILE):
        SimilarityWeightedRouter(checkpoint_path=str(folder))


def test_settings_of_a_checkpoint_out_of_range(folder: Path) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps({**meta, "num_tiers": 0}))
    with pytest.raises(CheckpointError, match="num_tiers is 0"):
        SimilarityWeightedRouter(checkpoint_path=str(folder))
