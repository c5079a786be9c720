"""Similarity-weighted ranking: a Bradley-Terry model fitted anew for each prompt (paper, section 4.2).

Battle i, fought on prompt q_i, has the weight 10 * 10^(cos(q, q_i) / max_j cos(q, q_j)) for the prompt q. Models are grouped
into tiers of like strength, which is what is rated; the win rate is that of the strong model's tier over the weak model's.

Nothing is approximated but the embeddings, held in 8 bits: the weights of all battles are summed into a small matrix of wins
among tiers, which has the same best fit as the battles themselves. Battles can be added at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import CheckpointError, ConfigError, DataError
from routellm.routers.battles import Battle, BattleTable, read_battles, read_embedded_battles, usable_battles
from routellm.routers.checkpoint import Checkpoint, load_checkpoint
from routellm.routers.checkpoint_features import features_meta, read_features
from routellm.routers.joined import SurfaceScale
from routellm.routers.mf import PUBLISHED_EMBEDDING, PUBLISHED_STRONG, PUBLISHED_WEAK
from routellm.routers.ranking import Ranking, Settings
from routellm.routers.routers import CONSTANT_PART, Router
from routellm.routers.similarity import Bytes, PromptVectors, quantise

EMBEDDINGS_FILE = "embeddings.npy"
"""The file of a checkpoint with the prompts' vectors, int8; the columns of its battles are tensors of the weight file."""

_SHIPPED = files("routellm.routers") / "data" / "sw_ranking"


class SimilarityWeightedRouter(Router):
    """Scores a prompt by the battles of models on prompts like it.

    The battles are those of a checkpoint, or of data sets. Threads may score while others add battles.

    Args:
        arena_battle_datasets: files, or names on the hub, with battles (`routellm.routers.battles` has the columns).
        arena_embedding_datasets: for each of them the one with its prompts' embeddings, row for row; None computes them with
            `embedding_model`.
        strong_model, weak_model: which two models are compared; None takes the checkpoint's own pair, or with data sets the
            published one. They need not be the models that a request is sent to.
        num_tiers: the number of tiers, at least 2; with fewer models than that, each is a tier. None takes the checkpoint's,
            or 10.
        checkpoint_path: a folder, or a hub repository; without it and without data sets, the shipped one.
        embedding_model: the embedder of prompts: a name, or a mapping with `type` and arguments. None takes the checkpoint's;
            with embedding data sets the published one, text-embedding-3-small; else the bundled one.
        sharpness: how much more similar battles weigh than others; 1 is the paper's. None takes the checkpoint's, or 1.

    Raises:
        CheckpointError: the checkpoint can't be read, or the embedder is not the one of its battles.
        ConfigError: an argument is out of range or does not go with another, a model is unknown to the battles, or both
            models fall into one tier.
        DataError: a data set can't be read or used.
    """

    def __init__(
        self,
        arena_battle_datasets: str | Sequence[str] | None = None,
        arena_embedding_datasets: str | Sequence[str] | None = None,
        strong_model: str | None = None,
        weak_model: str | None = None,
        num_tiers: int | None = None,
        checkpoint_path: str | None = None,
        embedding_model: str | Mapping[str, Any] | None = None,
        sharpness: float | None = None,
    ) -> None:
        battles, embeddings = _names(arena_battle_datasets), _names(arena_embedding_datasets)
        _check_sources(battles, embeddings, checkpoint_path)
        given = {"strong": strong_model, "weak": weak_model, "num_tiers": num_tiers, "sharpness": sharpness}
        if battles:
            settings = Settings(PUBLISHED_STRONG, PUBLISHED_WEAK).replaced(**given)
            features, table, vectors = _read_data_sets(battles, embeddings, embedding_model)
            self._bind(features, Ranking(table, vectors, settings))
        else:
            where = Path(str(_SHIPPED)) if checkpoint_path is None else checkpoint_path
            checkpoint = load_checkpoint(where, "sw_ranking")
            saved = read_settings(checkpoint)
            settings = saved.replaced(**given)
            features, scale, table, vectors = _read_checkpoint(checkpoint, embedding_model)
            self._bind(features, Ranking(table, vectors, settings), scale)
            self.quantiles = checkpoint.quantiles() if settings == saved else None

    @classmethod
    def from_ranking(
        cls, features: PromptFeatures, ranking: Ranking, scale: SurfaceScale | None = None
    ) -> SimilarityWeightedRouter:
        """A router of battles that are at hand, as a trainer has them; `scale` goes with surface features."""
        router = cls.__new__(cls)
        router._bind(features, ranking, scale)
        return router

    def _bind(self, features: PromptFeatures, ranking: Ranking, scale: SurfaceScale | None = None) -> None:
        self.features, self._scale = features, scale
        self._adding = threading.Lock()
        self._take(ranking)

    def _take(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self.fingerprint = f"sw_ranking:{ranking.sha256()}:{self.features.fingerprint}"

    def _vectors(self, prompts: Sequence[str]) -> Bytes:
        vectors = self.features.encode_batch(prompts)
        return quantise(vectors if self._scale is None else self._scale.joined(vectors))

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return float(self.calculate_strong_win_rates([prompt])[0])

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        if not prompts:
            return np.empty(0)
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * self.ranking.win_logits(self._vectors(prompts))))

    def explain(self, prompt: str) -> dict[str, float]:
        """`constant` is the log-odds by all battles weighed alike; `similar_battles` is what this prompt's weights change."""
        ranking = self.ranking  # one and the same for both parts
        constant = ranking.constant_logit()
        logit = float(ranking.win_logits(self._vectors([prompt]))[0])
        return {CONSTANT_PART: constant, "similar_battles": logit - constant}

    def add_battles(self, battles: Iterable[Battle]) -> int:
        """Add battles, also of new models; afterwards the router scores as one that was built with all of them.

        Tiers are formed anew, so that the score of any prompt may move, and `quantiles` are dropped, since nobody measured
        the new scores. Whoever scores meanwhile goes on with the battles of before, and nobody waits but other writers.

        Returns:
            How many were added: those on prompts of at least 16 characters.

        Raises:
            DataError: one is not a battle of two models with a known outcome and a weight over 0. Nothing was added then.
            ConfigError: with them the two models would fall into one tier. Nothing was added then.
        """
        usable = usable_battles(battles)
        if not usable:
            return 0
        place = {prompt: number for number, prompt in enumerate(dict.fromkeys(battle.prompt for battle in usable))}
        vectors = self._vectors(list(place))
        with self._adding:
            extended = self.ranking.extended(BattleTable.of(usable, place), vectors)
            self.quantiles = None
            self._take(extended)
        return len(usable)


def checkpoint_meta(features: PromptFeatures, ranking: Ranking) -> dict[str, Any]:
    """The fields of a checkpoint's `router.json`. The name of the embedder is not among them: only the caller knows what it
    was constructed from."""
    settings = ranking.settings
    return {
        "strong_model": settings.strong,
        "weak_model": settings.weak,
        "num_tiers": settings.num_tiers,
        "sharpness": settings.sharpness,
        **features_meta(features),
        "model_ids": list(ranking.table.models),
    }


def read_settings(checkpoint: Checkpoint) -> Settings:
    """The settings that a checkpoint was saved with.

    Raises:
        CheckpointError: one is missing or out of range.
    """
    try:
        return Settings(
            checkpoint.field("strong_model", str),
            checkpoint.field("weak_model", str),
            checkpoint.field("num_tiers", int),
            checkpoint.field("sharpness", (int, float)),
        )
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error


def _read_checkpoint(
    checkpoint: Checkpoint, embedding_model: str | Mapping[str, Any] | None
) -> tuple[PromptFeatures, SurfaceScale | None, BattleTable, PromptVectors]:
    path, tensors = checkpoint.path, checkpoint.tensors
    try:
        rows = np.load(checkpoint.file(EMBEDDINGS_FILE), mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path / EMBEDDINGS_FILE}: is no array of numpy: {error}.") from error
    if rows.dtype != np.int8 or rows.ndim != 2:
        raise CheckpointError(f"{path / EMBEDDINGS_FILE}: must hold int8 in two dimensions, not {rows.dtype} in {rows.ndim}.")
    features = read_features(checkpoint, embedding_model)
    try:
        table = BattleTable.from_columns(checkpoint.field("model_ids", list), tensors, len(rows))
        scale = None if features.surface_version is None else SurfaceScale.from_tensors(tensors)
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if rows.shape[1] != features.dim:
        raise CheckpointError(
            f"{path}: holds vectors of {rows.shape[1]} numbers, where its features have {features.dim}: its files don't fit "
            f"together."
        )
    return features, scale, table, PromptVectors.of(rows)


def _read_data_sets(
    battles: Sequence[str], embeddings: Sequence[str], embedding_model: str | Mapping[str, Any] | None
) -> tuple[PromptFeatures, BattleTable, PromptVectors]:
    embedder = load_embedder(embedding_model or (PUBLISHED_EMBEDDING if embeddings else None))
    features = PromptFeatures(embedder, surface_version=None)
    tables, blocks = [], []
    for number, source in enumerate(battles):
        if embeddings:
            table, rows = read_embedded_battles(source, embeddings[number])
        else:
            kept = [battle for battle in read_battles(source) if battle is not None]
            place = {prompt: place for place, prompt in enumerate(dict.fromkeys(battle.prompt for battle in kept))}
            table, rows = BattleTable.of(kept, place), quantise(features.encode_batch(list(place)))
        if len(rows) and rows.shape[1] != embedder.dim:
            raise ConfigError(
                f"The embeddings in {embeddings[number]!r} have {rows.shape[1]} numbers, but the embedder "
                f"{embedder.fingerprint!r} makes {embedder.dim}. Set embedding_model to the one that they were made with."
            )
        tables.append(table)
        blocks.append(rows if len(rows) else np.empty((0, embedder.dim), dtype=np.int8))
    joined = tables[0]
    for table, before in zip(tables[1:], np.cumsum([len(rows) for rows in blocks[:-1]]), strict=True):
        joined = joined.joined(table, int(before))
    return features, joined, PromptVectors.of(np.concatenate(blocks))


def _names(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _check_sources(battles: Sequence[str], embeddings: Sequence[str], checkpoint_path: str | None) -> None:
    if battles and checkpoint_path is not None:
        raise ConfigError("sw_ranking takes arena_battle_datasets or checkpoint_path, not both.")
    if embeddings and len(embeddings) != len(battles):
        raise ConfigError(
            f"arena_embedding_datasets has {len(embeddings)} entries for {len(battles)} arena_battle_datasets; each data set "
            f"of battles needs its own embeddings, in the same order."
        )
