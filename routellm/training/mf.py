"""The trainer of `mf`: a matrix factorisation on prompt vectors; the fit itself is in `routellm.training.factorization`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.surface import SURFACE_DIM, SURFACE_NAMES
from routellm.errors import ConfigError, DataError
from routellm.routers.checkpoint_features import features_meta
from routellm.routers.mf import FactorWeights, MatrixFactorizationRouter
from routellm.training.dataset import Prepared, prepare
from routellm.training.factorization import Battles, Factors, Hyperparameters, fit, log_odds, loss_and_gradients
from routellm.training.trainers import Report, Trained, Trainer, TrainingData

_CONSTANT = "constant"


class MatrixFactorizationTrainer(Trainer):
    """Fits `mf` to all comparisons, of whichever models; the pair that is served may be any two of them."""

    summary = "matrix factorisation on prompt vectors (numpy; minutes on one core)"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        defaults = Hyperparameters()
        add = parser.add_argument
        add("--ties", choices=("drop", "loss"), default="drop",
            help="leave ties out, as the paper does, or count them as not won by the first model (default: drop)")  # fmt: skip
        add("--embedding-model", default="static", metavar="NAME", help="the embedder (default: static, the bundled one)")
        add("--dim", type=int, default=defaults.dim, help="width of the latent space (default: %(default)s)")
        add("--learning-rate", type=float, default=defaults.learning_rate, help="of Adam (default: %(default)s)")
        add("--weight-decay", type=float, default=defaults.weight_decay, help="of Adam (default: %(default)s)")
        add("--batch-size", type=int, default=defaults.batch_size, help="(default: %(default)s)")
        add("--noise", type=float, default=defaults.noise, help="on prompt vectors while training (default: %(default)s)")
        add("--epochs", type=int, default=defaults.epochs, help="at most (default: %(default)s)")
        add("--patience", type=int, default=defaults.patience, help="epochs without progress (default: %(default)s)")
        add("--stop-on", choices=("pooled", "sources"), default=defaults.stop_on,
            help="pick the epoch by the validation loss of all rows together, or by the mean of each source's, in which a "
            "large source counts no more than a small one; on sources left out both did alike (default: pooled)")  # fmt: skip
        add("--no-source-intercepts", action="store_true", help="learn no offset per source of data")

    def fit(self, data: TrainingData, arguments: argparse.Namespace, work: Path, report: Report) -> Trained:
        settings = _settings(arguments, data.seed)
        features = PromptFeatures(load_embedder(arguments.embedding_model), courtesies=False)
        report("embedding the prompts")
        prepared = prepare(data.rows, features)
        usable = ~prepared.drawn if arguments.ties == "drop" else np.ones(len(prepared.drawn), dtype=bool)
        fitting = prepared.battles.take(np.flatnonzero(usable & ~data.held))
        checking = prepared.battles.take(np.flatnonzero(usable & data.held))
        _check_decided(fitting, checking, arguments.ties)
        report(
            f"{len(fitting):,} comparisons of {len(prepared.models)} models to fit, {len(checking):,} to validate; "
            f"{int(prepared.drawn.sum()):,} ties are {'not used' if arguments.ties == 'drop' else 'not won'}"
        )
        held_prompts = np.zeros(len(prepared.prompts), dtype=bool)
        held_prompts[prepared.battles.prompt[data.held]] = True
        scaling = Scaling.of(prepared.features[~held_prompts], features.embedder.dim)
        factors, history = fit(
            scaling.apply(prepared.features), fitting, checking, len(prepared.models), len(prepared.sources), settings,
            lambda epoch, a, b: report(f"epoch {epoch + 1}: loss {a:.4f}, validation {b:.4f}"),
            work / "mf.safetensors",
        )  # fmt: skip
        weights = _calibrated(prepared, factors, scaling, data)
        router = MatrixFactorizationRouter.from_weights(weights, features, data.strong, data.weak)
        return Trained(
            router,
            weights.tensors(),
            meta={
                "embedder": arguments.embedding_model,
                **features_meta(features),
                "model_ids": list(weights.model_ids),
            },
            settings={"ties": arguments.ties, **asdict(settings)},
            metrics={
                "validation_loss": history.validation[history.best_epoch],
                "validation_loss_of_offsets_alone": _offsets_alone(fitting, checking, len(prepared.sources)),
                "best_epoch": history.best_epoch + 1,
                "epochs_run": len(history.validation),
            },
        )


@dataclass(frozen=True, slots=True)
class Scaling:
    """Standardisation of prompt vectors: `mean` and `scale`, float32, shape (D,).

    The constant keeps its 1, and embedding columns share one scale: their ratios mean something.
    """

    mean: Vector
    scale: Vector

    @classmethod
    def of(cls, features: Vector, width: int) -> Scaling:
        """Measured on `features`, shape (n, D), of which the first `width` columns are the embedding."""
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale[:width] = np.sqrt(np.mean(scale[:width] ** 2))
        constant = scale < 1e-6
        return cls(np.where(constant, 0.0, mean).astype(np.float32), np.where(constant, 1.0, scale).astype(np.float32))

    def apply(self, features: Vector) -> Vector:
        """The standardised vectors."""
        return np.asarray((features - self.mean) / self.scale)


def fold(factors: Factors, prepared: Prepared, scaling: Scaling, pair: tuple[int, int], offset: float) -> FactorWeights:
    """Move standardisation and the serving offset of the logit into the projection, so that raw vectors go in.

    The published form has no intercept, so both end up in the column of the constant feature: exactly, for `pair`.
    """
    projection = factors.projection / scaling.scale
    constant = prepared.features.shape[1] - SURFACE_DIM + SURFACE_NAMES.index(_CONSTANT)
    projection[:, constant] -= factors.projection @ (scaling.mean / scaling.scale)
    unit = factors.models / np.linalg.norm(factors.models, axis=1, keepdims=True)
    direction = factors.classifier * (unit[pair[0]] - unit[pair[1]])
    projection[:, constant] += direction * np.float32(offset / max(float(direction @ direction), 1e-12))
    return FactorWeights(factors.models, projection.astype(np.float32), factors.classifier, tuple(prepared.models))


def serving_offset(logits: NDArray[np.float64], wins: float, weights: NDArray[np.float64] | None = None) -> float:
    """The offset at which the (weighted) mean of sigmoid(logits + offset) is `wins`, by bisection.

    Training sees decided battles only, so its logits say who wins given that somebody does. What a threshold is held against
    is the chance that the strong model wins outright; an offset maps one mean onto the other and leaves the ranking alone.
    """
    low, high = -50.0, 50.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if float(np.average(0.5 * (1 + np.tanh(0.5 * (logits + middle))), weights=weights)) < wins:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _settings(arguments: argparse.Namespace, seed: int) -> Hyperparameters:
    for name in ("dim", "batch_size", "epochs", "patience", "learning_rate"):
        if getattr(arguments, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be above 0.")
    for name in ("weight_decay", "noise"):
        if getattr(arguments, name) < 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be 0 or more.")
    return Hyperparameters(
        dim=arguments.dim,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        batch_size=arguments.batch_size,
        noise=arguments.noise,
        epochs=arguments.epochs,
        patience=arguments.patience,
        source_intercepts=not arguments.no_source_intercepts,
        stop_on=arguments.stop_on,
        seed=seed,
    )


def _check_decided(fitting: Battles, checking: Battles, ties: str) -> None:
    if len(fitting) and len(checking) and fitting.target.min() != fitting.target.max():
        return
    won = np.unique(fitting.target).tolist()
    found = {(): "none", (0.0,): "none that the first model won", (1.0,): "none that the first model did not win"}
    hint = "; where ties mean that the weak model is good enough, --ties loss counts them" if ties == "drop" else ""
    raise DataError(
        f"Training mf needs decided comparisons won by either side, and some for validation. To fit there are "
        f"{len(fitting):,} ({found.get(tuple(won), 'of both kinds')}), for validation {len(checking):,}. Give more data{hint}."
    )


def _calibrated(prepared: Prepared, factors: Factors, scaling: Scaling, data: TrainingData) -> FactorWeights:
    """Set the serving offset on the validation rows of the pair's own comparisons (of all, if it has none)."""
    pair = prepared.models.index(data.strong), prepared.models.index(data.weak)
    raw = fold(factors, prepared, scaling, pair, 0.0)
    rows = data.held & (prepared.battles.first == pair[0]) & (prepared.battles.second == pair[1])
    rows = rows if rows.any() else data.held
    logits = prepared.features[prepared.battles.prompt[rows]].astype(np.float64) @ raw.pair_weights(data.strong, data.weak)
    weights = prepared.weights[rows]
    wins = float(np.average(prepared.won[rows], weights=weights))
    return fold(factors, prepared, scaling, pair, serving_offset(logits, wins, weights))


def _offsets_alone(fitting: Battles, checking: Battles, n_sources: int) -> float:
    """The validation loss of a model that knows each source's base rate and nothing of the prompt."""
    zero = np.zeros((1, 1), dtype=np.float32)
    base = Factors(zero + 1, zero, zero[0], log_odds(fitting, n_sources))
    same = Battles(checking.prompt, checking.first * 0, checking.second * 0, checking.target, checking.weight, checking.source)
    return loss_and_gradients(base, np.zeros((len(checking), 1), dtype=np.float32), same)[0]
