"""Battles in files of the published layout, for the tests of sw_ranking."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.embeddings.base import Embedder
from routellm.routers.battles import Battle
from routellm.routers.checkpoint import save_checkpoint
from routellm.routers.sw_ranking import EMBEDDINGS_FILE, SimilarityWeightedRouter, checkpoint_meta
from tests.prompts import ODD_PROMPTS

MODELS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
PROMPTS = ["Prove that there are infinitely many primes.", "Say hello to my dog, please.", *ODD_PROMPTS]


class GridEmbedder(Embedder):
    """Whole numbers up to 127 that depend on the prompt's bytes alone, so that 8 bits hold a vector without loss."""

    dim, fingerprint, blocking = 16, "grid", True

    def embed_batch(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        rows = [np.random.default_rng(list(prompt.encode("utf-8", "replace"))).integers(-60, 128, 16) for prompt in prompts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(prompts), self.dim)
        vectors[:, 0] = 127
        return vectors


def random_rows(count: int, seed: int = 0, models: Sequence[str] = MODELS) -> list[dict[str, Any]]:
    """Battles in the published layout; earlier models are stronger, a fifth are ties, and some prompts come twice."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        first, second = random.choice(len(models), 2, replace=False)
        wins = random.random() < 1 / (1 + np.exp(0.6 * (first - second)))
        vote = "winner_tie" if random.random() < 0.2 else "winner_model_a" if wins else "winner_model_b"
        prompt = json.dumps([f"A question about the number {number % 150}", "and a second turn"])
        votes = {name: int(name == vote) for name in ("winner_model_a", "winner_model_b", "winner_tie")}
        rows.append({"prompt": prompt, "model_a": models[first], "model_b": models[second], **votes})
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def embedded(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    vectors = GridEmbedder().embed_batch([json.loads(row["prompt"])[0] for row in rows])
    return write(path, [{"embeddings": vector.tolist()} for vector in vectors])


def build(tmp_path: Path, rows: Sequence[dict[str, Any]], **arguments: Any) -> SimilarityWeightedRouter:
    defaults = {"strong_model": "alpha", "weak_model": "zeta", "embedding_model": "grid"}
    return SimilarityWeightedRouter([write(tmp_path / "battles.jsonl", rows)], **{**defaults, **arguments})


def battles_of(rows: Sequence[dict[str, Any]]) -> list[Battle]:
    names = {"winner_model_a": "first", "winner_model_b": "second", "winner_tie": "tie"}
    return [
        Battle(json.loads(row["prompt"])[0], row["model_a"], row["model_b"], next(v for k, v in names.items() if row[k]))  # type: ignore[arg-type]
        for row in rows
    ]


def save_router(
    router: SimilarityWeightedRouter, folder: Path, embedder: str, quantiles: ScoreQuantiles | None = None
) -> Path:
    """A checkpoint of the router's battles, whose embedder was constructed from that name."""
    folder.mkdir()
    array = folder.with_suffix(".npy")
    np.save(array, router.ranking.vectors.stored)
    meta = {**checkpoint_meta(router.features, router.ranking), "embedder": embedder}
    files = {EMBEDDINGS_FILE: array}
    return save_checkpoint(folder, "sw_ranking", router.ranking.table.columns(), meta, quantiles, files)


def small_checkpoint(folder: Path) -> Path:
    """A checkpoint on the bundled embedder, with quantiles."""
    router = build(folder, random_rows(200), embedding_model="static", num_tiers=4)
    scores = router.calculate_strong_win_rates([f"prompt {number} about {'?' * number}" for number in range(300)])
    return save_router(router, folder / "saved", "static", ScoreQuantiles.of(scores, "made up"))
