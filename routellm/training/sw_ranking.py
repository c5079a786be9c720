"""The trainer of `sw_ranking`: battles are weighed and embedded; there is nothing to fit before a prompt comes."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.surface import SURFACE_VERSION
from routellm.errors import ConfigError, DataError
from routellm.routers.battles import MIN_CHARS, Battle, BattleTable
from routellm.routers.joined import SurfaceScale
from routellm.routers.ranking import Ranking, Settings
from routellm.routers.similarity import PromptVectors, quantise
from routellm.routers.sw_ranking import EMBEDDINGS_FILE, SimilarityWeightedRouter, checkpoint_meta
from routellm.training.preferences import Preference
from routellm.training.trainers import Report, Trained, Trainer, TrainingData

_LONGEST = 100.0


class SimilarityWeightedTrainer(Trainer):
    """Makes the battles of `sw_ranking` out of all comparisons that are not held, of whichever models."""

    summary = "similarity-weighted ranking: battles on prompts like the one at hand decide (numpy; seconds)"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--embedding-model", default="static", metavar="NAME", help="the embedder (default: static, the bundled one)")
        add("--surface-length", type=float, default=0.0, metavar="X",
            help="compare prompts by surface features too, of so much length beside the embedding's 1; 0 leaves them out, as "
            "the paper does (default: %(default)s)")  # fmt: skip
        add("--num-tiers", type=int, default=10, metavar="N", help="tiers of models, at most (default: %(default)s)")
        add("--sharpness", type=float, default=1.0, metavar="S",
            help="how much more similar battles weigh than others; 1 is the paper's (default: %(default)s)")  # fmt: skip
        add("--ties", choices=("half", "drop", "loss"), default="half",
            help="count ties as half a win for each, as the paper does, leave them out, or count them as lost by the first "
            "model (default: %(default)s)")  # fmt: skip
        add("--balance", choices=("none", "sources", "outcomes"), default="none",
            help="let battles count as they come, as in the paper; or every source as much as any other; or in each source "
            "also all wins of the first model as much as all of the second (default: %(default)s)")  # fmt: skip

    def fit(self, data: TrainingData, arguments: argparse.Namespace, work: Path, report: Report) -> Trained:
        if not 0.0 <= arguments.surface_length <= _LONGEST:
            raise ConfigError(f"--surface-length is {arguments.surface_length:g}; it must be from 0 to {_LONGEST:g}.")
        settings = Settings(data.strong, data.weak, arguments.num_tiers, arguments.sharpness)
        kept = _kept(data, arguments.ties)
        battles = _weighed(kept, arguments.balance)
        place = {prompt: number for number, prompt in enumerate(dict.fromkeys(battle.prompt for battle in battles))}
        report(f"embedding {len(place):,} prompts of {len(battles):,} battles")
        version = SURFACE_VERSION if arguments.surface_length > 0.0 else None
        features = PromptFeatures(load_embedder(arguments.embedding_model), version, courtesies=False)
        vectors = features.encode_batch(list(place))
        scale = None if version is None else SurfaceScale.of(vectors, arguments.surface_length)
        rows = quantise(vectors if scale is None else scale.joined(vectors))
        ranking = Ranking(BattleTable.of(battles, place), PromptVectors.of(rows), settings)
        report(f"{len(ranking.table.models)} models in {ranking.tier_count} tiers")
        array = work / EMBEDDINGS_FILE
        np.save(array, rows, allow_pickle=False)
        return Trained(
            SimilarityWeightedRouter.from_ranking(features, ranking, scale),
            {**ranking.table.columns(), **(scale.tensors() if scale else {})},
            {**checkpoint_meta(features, ranking), "embedder": arguments.embedding_model},
            files={EMBEDDINGS_FILE: array},
            settings={
                "ties": arguments.ties,
                "balance": arguments.balance,
                "num_tiers": settings.num_tiers,
                "sharpness": settings.sharpness,
                "surface_length": arguments.surface_length,
                "battles": len(battles),
                "prompts": len(place),
            },
        )


def _kept(data: TrainingData, ties: str) -> list[Preference]:
    kept = [
        replace(row, outcome="second") if row.outcome == "tie" and ties == "loss" else row
        for row, held in zip(data.rows, data.held, strict=True)
        if not held and len(row.prompt) >= MIN_CHARS and not (row.outcome == "tie" and ties == "drop")
    ]
    if not kept:
        raise DataError(
            f"No battle is left of {len(data.rows):,} comparisons: they are for validation, on prompts of fewer than "
            f"{MIN_CHARS} characters{', or ties' if ties == 'drop' else ''}. Give more data."
        )
    return kept


def _weighed(rows: Sequence[Preference], balance: str) -> list[Battle]:
    """Battles of the rows, by default as they come.

    Balanced weights are 1 in the mean, so that a battle stands to the ridge of the fit as it does without.
    """
    if balance == "none":
        return [Battle(row.prompt, row.first, row.second, row.outcome, row.weight) for row in rows]
    parts = [part for row in rows for part in (_halves(row) if balance == "outcomes" else [row])]
    groups = [(part.source, part.outcome if balance == "outcomes" else None) for part in parts]
    total: defaultdict[tuple[str, str | None], float] = defaultdict(float)
    for part, group in zip(parts, groups, strict=True):
        total[group] += part.weight
    each = len(parts) / len(total)
    return [
        Battle(part.prompt, part.first, part.second, part.outcome, part.weight * each / total[group])
        for part, group in zip(parts, groups, strict=True)
    ]


def _halves(row: Preference) -> list[Preference]:
    """A tie as half a win for each side, so that either half can weigh what the wins of its side weigh."""
    if row.outcome != "tie":
        return [row]
    return [replace(row, outcome=outcome, weight=row.weight / 2.0) for outcome in ("first", "second")]
