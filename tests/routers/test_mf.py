"""The matrix-factorisation router against the paper's formulas, and against the published checkpoint's format."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from routellm.embeddings.base import EMBEDDERS, Embedder
from routellm.embeddings.surface import SURFACE_DIM
from routellm.errors import CheckpointError, ConfigError
from routellm.routers.checkpoint import WEIGHTS_FILE, save_checkpoint
from routellm.routers.mf import MatrixFactorizationRouter

PROMPTS = ["What is 2 + 2?", "", "Prove it.", "日本語のプロンプト"]


class HashEmbedder(Embedder):
    """Vectors that depend on nothing but the prompt's bytes; 1536 wide, as the published checkpoints want them."""

    dim, fingerprint, blocking = 1536, "hash", True

    def embed_batch(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        rows = [np.random.default_rng(list(prompt.encode()) or [0]).standard_normal(self.dim) for prompt in prompts]
        return np.array(rows, dtype=np.float32).reshape(len(prompts), self.dim)


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDERS, "hash", HashEmbedder)  # type: ignore[arg-type]


def published(folder: Path, **changes: NDArray[np.float32]) -> Path:
    """An untrained file of the published shapes."""
    random = np.random.default_rng(7)
    tensors = {
        "P.weight": random.standard_normal((64, 128), dtype=np.float32),
        "text_proj.0.weight": random.standard_normal((128, 1536), dtype=np.float32) / 40,
        "classifier.0.weight": random.standard_normal((1, 128), dtype=np.float32),
    }
    save_file(tensors | changes, folder / WEIGHTS_FILE)
    return folder


def test_published_format_scores_as_the_formula_says(tmp_path: Path) -> None:
    folder = published(tmp_path)
    router = MatrixFactorizationRouter(str(folder), embedding_model="hash")
    from safetensors.numpy import load_file

    tensors = load_file(folder / WEIGHTS_FILE)
    ids = json.loads((Path(__file__).parents[2] / "routellm/routers/data/published_mf_models.json").read_text())["model_ids"]

    def score(model: str, prompt: str) -> float:
        v = tensors["P.weight"][ids.index(model)].astype(np.float64)
        q = tensors["text_proj.0.weight"].astype(np.float64) @ HashEmbedder().embed(prompt)
        return float(tensors["classifier.0.weight"][0] @ (v / np.linalg.norm(v) * q))

    for prompt in PROMPTS:
        gap = score("gpt-4-1106-preview", prompt) - score("mixtral-8x7b-instruct-v0.1", prompt)
        assert router.calculate_strong_win_rate(prompt) == pytest.approx(1 / (1 + np.exp(-gap)), abs=1e-5)


def test_published_model_names_are_the_64_in_their_order() -> None:
    from routellm.routers.mf import _published_model_ids

    ids = _published_model_ids()
    assert (len(ids), ids[0], ids[24], ids[36], ids[63]) == (
        64,
        "RWKV-4-Raven-14B",
        "gpt-4-1106-preview",
        "mixtral-8x7b-instruct-v0.1",
        "zephyr-7b-beta",
    )


def test_swapping_the_models_mirrors_the_win_rate(tmp_path: Path) -> None:
    folder = str(published(tmp_path))
    one = MatrixFactorizationRouter(folder, "gpt-4-0613", "koala-13b", "hash")
    other = MatrixFactorizationRouter(folder, "koala-13b", "gpt-4-0613", "hash")
    assert np.allclose(one.calculate_strong_win_rates(PROMPTS) + other.calculate_strong_win_rates(PROMPTS), 1.0, atol=1e-12)


def test_the_published_configurations_keys_are_accepted_and_checked(tmp_path: Path) -> None:
    folder = str(published(tmp_path))
    shapes = {"hidden_size": 128, "num_models": 64, "text_dim": 1536, "num_classes": 1, "use_proj": True}
    MatrixFactorizationRouter(folder, embedding_model="hash", **shapes)
    for name, wrong in {"hidden_size": 64, "num_models": 63, "text_dim": 256, "num_classes": 2, "use_proj": False}.items():
        with pytest.raises(CheckpointError, match=name):
            MatrixFactorizationRouter(folder, embedding_model="hash", **{**shapes, name: wrong})


def test_unknown_model_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'gpt-4-0613'"):
        MatrixFactorizationRouter(str(published(tmp_path)), strong_model="gpt-4-613", embedding_model="hash")


def test_embedder_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="1536 numbers, but its features have 256"):
        MatrixFactorizationRouter(str(published(tmp_path)), embedding_model="static")


def test_shipped_checkpoint_refuses_an_embedder_it_was_not_trained_on() -> None:
    with pytest.raises(CheckpointError, match="was trained on vectors of 'static:"):
        MatrixFactorizationRouter(embedding_model="hash")


@pytest.mark.parametrize(
    "changes",
    [
        {"P.weight": np.zeros((63, 128), dtype=np.float32)},
        {"classifier.0.weight": np.zeros((1, 64), dtype=np.float32)},
        {"classifier.0.weight": np.zeros(128, dtype=np.float32)},
        {"text_proj.0.weight": np.zeros((64, 1536), dtype=np.float32)},
        {"text_proj.0.weight": np.full((128, 1536), np.nan, dtype=np.float32)},
    ],
)
def test_wrong_shapes_and_values_are_checkpoint_errors(tmp_path: Path, changes: dict[str, NDArray[np.float32]]) -> None:
    with pytest.raises(CheckpointError):
        MatrixFactorizationRouter(str(published(tmp_path, **changes)), embedding_model="hash")


def test_missing_tensor_is_named_with_what_was_found(tmp_path: Path) -> None:
    save_file({"weights": np.zeros((2, 2), dtype=np.float32)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=r"P\.weight.*found: weights"):
        MatrixFactorizationRouter(str(tmp_path), embedding_model="hash")


def test_without_projection_the_vector_is_used_as_it_comes(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    models = random.standard_normal((2, 1536), dtype=np.float32)
    classifier = random.standard_normal((1, 1536), dtype=np.float32)
    meta = {
        "strong_model": "s",
        "weak_model": "w",
        "embedder": "hash",
        "embedder_fingerprint": "hash",
        "surface_version": None,
        "model_ids": ["s", "w"],
    }
    save_checkpoint(tmp_path, "mf", {"P.weight": models, "classifier.0.weight": classifier}, meta)
    router = MatrixFactorizationRouter(str(tmp_path), use_proj=False)
    unit = models / np.linalg.norm(models, axis=1, keepdims=True)
    gap = float((classifier[0] * (unit[0] - unit[1])) @ HashEmbedder().embed("hello"))
    assert router.calculate_strong_win_rate("hello") == pytest.approx(1 / (1 + np.exp(-gap)), abs=1e-5)
    assert router.blocking  # as its embedder says


def test_explanation_sums_to_the_logit_and_names_every_surface_feature() -> None:
    router = MatrixFactorizationRouter()
    parts = router.explain("How many apples are left if 3 of 7 are eaten?")
    rate = router.calculate_strong_win_rate("How many apples are left if 3 of 7 are eaten?")
    assert sum(parts.values()) == pytest.approx(np.log(rate / (1 - rate)), abs=1e-4)
    assert len(parts) == 1 + SURFACE_DIM


def test_another_pair_than_the_calibrated_one_has_no_quantiles() -> None:
    assert MatrixFactorizationRouter(strong_model="weak", weak_model="strong").quantiles is None
