"""`python -m routellm.training.mf`: train a matrix-factorisation router on preference data.

The result is a folder that a configuration's `checkpoint_path` can point at: weights, `router.json`, and a model card.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import routellm
from routellm.calibration.quantiles import ScoreQuantiles
from routellm.commands import command_parser, run_command
from routellm.embeddings.base import Vector
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.surface import SURFACE_DIM, SURFACE_NAMES
from routellm.errors import ConfigError, DataError
from routellm.routers.checkpoint import save_checkpoint
from routellm.routers.mf import FactorWeights, MatrixFactorizationRouter
from routellm.training.card import model_card
from routellm.training.dataset import Prepared, prepare, split_by_prompt
from routellm.training.factorization import Battles, Factors, Hyperparameters, fit, log_odds, loss_and_gradients
from routellm.training.overlap import read_overlaps
from routellm.training.preferences import STRONG, WEAK, describe_dropped, read_preferences

_CONSTANT = "constant"
_EXAMPLES = """
python -m routellm.training.mf --data battles.jsonl --strong-model gpt-4o --weak-model llama-3-8b --output my-mf
python -m routellm.training.mf --data pairs.parquet --by-role --output my-mf --quantiles-from my_traffic
"""


def fold(
    factors: Factors, prepared: Prepared, mean: Vector, scale: Vector, pair: tuple[int, int], offset: float
) -> FactorWeights:
    """Move standardisation and the serving offset of the logit into the projection, so that raw vectors go in.

    The published form has no intercept, so both end up in the column of the constant feature: exactly, for `pair`.
    """
    projection = factors.projection / scale
    constant = prepared.features.shape[1] - SURFACE_DIM + SURFACE_NAMES.index(_CONSTANT)
    projection[:, constant] -= factors.projection @ (mean / scale)
    unit = factors.models / np.linalg.norm(factors.models, axis=1, keepdims=True)
    direction = factors.classifier * (unit[pair[0]] - unit[pair[1]])
    projection[:, constant] += direction * np.float32(offset / max(float(direction @ direction), 1e-12))
    return FactorWeights(factors.models, projection.astype(np.float32), factors.classifier, tuple(prepared.models))


def serving_offset(logits: NDArray[np.float64], wins: float) -> float:
    """The offset at which the mean of sigmoid(logits + offset) is `wins`, by bisection.

    Training sees decided battles only, so its logits say who wins given that somebody does. What a threshold is held against
    is the chance that the strong model wins outright; an offset maps one mean onto the other and leaves the ranking alone.
    """
    low, high = -50.0, 50.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if float(np.mean(0.5 * (1 + np.tanh(0.5 * (logits + middle))))) < wins:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def train(arguments: argparse.Namespace) -> int:
    """Read, split, fit, calibrate, save."""
    exclude = frozenset(each.train_sha256 for each in read_overlaps(arguments.exclude)) if arguments.exclude else frozenset()
    read = read_preferences(arguments.data, by_role=arguments.by_role, exclude=exclude)
    for line in describe_dropped(read.dropped):
        _say(line)
    features = PromptFeatures(load_embedder(arguments.embedding_model))
    prepared = prepare(read.rows, features)
    pair = _pair(arguments, prepared.models)
    _say(
        f"{len(prepared.battles):,} comparisons ({int(prepared.drawn.sum()):,} ties, "
        f"{'kept as losses of the first model' if arguments.ties == 'loss' else 'not trained on'}) of "
        f"{len(prepared.models)} models on {len(prepared.prompts):,} prompts from {len(prepared.sources)} sources"
    )
    held = split_by_prompt(len(prepared.prompts), arguments.validation_share, arguments.seed)
    mean = prepared.features[~held].mean(axis=0)
    scale = prepared.features[~held].std(axis=0)
    # The constant keeps its 1, and embedding columns share one scale: their ratios mean something.
    width = features.embedder.dim
    scale[:width] = np.sqrt(np.mean(scale[:width] ** 2))
    mean, scale = np.where(scale < 1e-6, 0.0, mean).astype(np.float32), np.where(scale < 1e-6, 1.0, scale).astype(np.float32)
    standard = (prepared.features - mean) / scale

    usable = ~prepared.drawn if arguments.ties == "drop" else np.ones(len(prepared.drawn), dtype=bool)
    of_validation = held[prepared.battles.prompt]
    fitting = prepared.battles.take(np.flatnonzero(usable & ~of_validation))
    checking = prepared.battles.take(np.flatnonzero(usable & of_validation))
    if len(fitting) == 0 or len(checking) == 0 or fitting.target.min() == fitting.target.max():
        raise DataError(
            "Training needs decided comparisons won by either side, in training and in validation; give more data."
        )
    settings = Hyperparameters(
        dim=arguments.dim,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        batch_size=arguments.batch_size,
        noise=arguments.noise,
        epochs=arguments.epochs,
        patience=arguments.patience,
        source_intercepts=not arguments.no_source_intercepts,
        seed=arguments.seed,
    )
    factors, history = fit(
        standard, fitting, checking, len(prepared.models), len(prepared.sources), settings,
        lambda epoch, a, b: _say(f"epoch {epoch + 1}: loss {a:.4f}, validation {b:.4f}"),
    )  # fmt: skip
    weights, router = _calibrated(arguments, prepared, factors, features, mean, scale, pair, of_validation)
    metrics = {
        "validation_loss": history.validation[history.best_epoch],
        "validation_loss_of_offsets_alone": _offsets_alone(fitting, checking, len(prepared.sources)),
        "validation_auc_by_source": _auc_by_source(router, prepared, of_validation & ~prepared.drawn, pair),
        "best_epoch": history.best_epoch + 1,
        "epochs_run": len(history.validation),
    }
    _save(arguments, weights, router, prepared, settings, metrics, read.dropped, pair)
    return 0


def _calibrated(
    arguments: argparse.Namespace,
    prepared: Prepared,
    factors: Factors,
    features: PromptFeatures,
    mean: Vector,
    scale: Vector,
    pair: tuple[int, int],
    of_validation: NDArray[np.bool_],
) -> tuple[FactorWeights, MatrixFactorizationRouter]:
    """Set the serving offset on the validation rows of the pair's own comparisons (of all, if it has none)."""
    strong, weak = (prepared.models[index] for index in pair)
    raw = fold(factors, prepared, mean, scale, pair, 0.0)
    rows = of_validation & (prepared.battles.first == pair[0]) & (prepared.battles.second == pair[1])
    rows = rows if rows.any() else of_validation
    logits = prepared.features[prepared.battles.prompt[rows]].astype(np.float64) @ raw.pair_weights(strong, weak)
    weights = fold(factors, prepared, mean, scale, pair, serving_offset(logits, float(prepared.won[rows].mean())))
    return weights, MatrixFactorizationRouter.from_weights(weights, features, strong, weak)


def _auc_by_source(
    router: MatrixFactorizationRouter, prepared: Prepared, rows: NDArray[np.bool_], pair: tuple[int, int]
) -> dict[str, float]:
    """For each source, how often a won comparison scores above a lost one; 0.5 is chance."""
    rows = rows & (prepared.battles.first == pair[0]) & (prepared.battles.second == pair[1])
    found = {}
    for index, source in enumerate(prepared.sources):
        chosen = np.flatnonzero(rows & (prepared.battles.source == index))
        won = prepared.won[chosen]
        if won.any() and not won.all():
            scores = router.calculate_strong_win_rates([prepared.prompts[i] for i in prepared.battles.prompt[chosen]])
            above = (scores[won][:, None] > scores[~won][None, :]).mean()
            equal = (scores[won][:, None] == scores[~won][None, :]).mean()
            found[source] = round(float(above + 0.5 * equal), 4)
    return found


def _offsets_alone(fitting: Battles, checking: Battles, n_sources: int) -> float:
    """The validation loss of a model that knows each source's base rate and nothing of the prompt."""
    zero = np.zeros((1, 1), dtype=np.float32)
    base = Factors(zero + 1, zero, zero[0], log_odds(fitting, n_sources))
    same = Battles(checking.prompt, checking.first * 0, checking.second * 0, checking.target, checking.weight, checking.source)
    return loss_and_gradients(base, np.zeros((len(checking), 1), dtype=np.float32), same)[0]


def _save(
    arguments: argparse.Namespace,
    weights: FactorWeights,
    router: MatrixFactorizationRouter,
    prepared: Prepared,
    settings: Hyperparameters,
    metrics: Mapping[str, Any],
    dropped: Counter[str],
    pair: tuple[int, int],
) -> None:
    real = [prepared.sources.index(source) for source in arguments.quantiles_from or prepared.sources]
    prompts = [prepared.prompts[i] for i in np.unique(prepared.battles.prompt[np.isin(prepared.battles.source, real)])]
    what = arguments.quantiles_note or f"training prompts of {', '.join(arguments.quantiles_from or prepared.sources)}"
    quantiles = ScoreQuantiles.of(router.calculate_strong_win_rates(prompts), what)
    meta = {
        "strong_model": prepared.models[pair[0]],
        "weak_model": prepared.models[pair[1]],
        "embedder": arguments.embedding_model,
        "embedder_fingerprint": router.features.embedder.fingerprint,
        "surface_version": router.features.surface_version,
        "training": {
            "routellm_version": routellm.__version__,
            "data": {Path(file).name: _file_hash(file) for file in arguments.data},
            "excluded": {Path(file).name: _file_hash(file) for file in filter(None, [arguments.exclude])},
            "rows_by_source": dict(Counter(prepared.sources[i] for i in prepared.battles.source)),
            "rows_left_out": dict(dropped),
            "ties": arguments.ties,
            "by_role": arguments.by_role,
            "validation_share": arguments.validation_share,
            **asdict(settings),
        },
        "metrics": metrics,
        "model_ids": list(weights.model_ids),
    }
    folder = save_checkpoint(arguments.output, "mf", weights.tensors(), meta, quantiles)
    (folder / "README.md").write_text(model_card("mf", meta, quantiles, arguments.card_notes), encoding="utf-8")
    _say(f"saved {folder}")


def _pair(arguments: argparse.Namespace, models: list[str]) -> tuple[int, int]:
    names = (arguments.strong_model or STRONG, arguments.weak_model or WEAK)
    for name in names:
        if name not in models:
            raise ConfigError(
                f"The data hold no model {name!r}. Give --strong-model and --weak-model out of: {', '.join(models)}"
                + ("." if arguments.by_role else "; or --by-role for files with the columns strong and weak.")
            )
    return models.index(names[0]), models.index(names[1])


def _file_hash(file: str) -> str:
    path = Path(file)
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "hub"


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def build_parser(prog: str = "python -m routellm.training.mf") -> argparse.ArgumentParser:
    """The command's arguments."""
    defaults = Hyperparameters()
    parser = command_parser(prog, "Train a matrix-factorisation router on preference data.", _EXAMPLES, train)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="FILE", help="preference data: jsonl, csv, parquet, or a hub data set")
    add("--output", required=True, metavar="DIR", help="where the checkpoint goes")
    add("--strong-model", metavar="NAME", help=f"the data's model that is served as the strong one (default: {STRONG})")
    add("--weak-model", metavar="NAME", help=f"the data's model that is served as the weak one (default: {WEAK})")
    add("--by-role", action="store_true", help="in files with the columns strong and weak, treat all strong models as one")
    add("--exclude", metavar="FILE", help="leave out the prompts of this list, which `routellm contamination` wrote")
    add("--ties", choices=("drop", "loss"), default="drop", help="leave ties out, as the paper does, or count them as not won")
    add("--embedding-model", default="static", metavar="NAME", help="the embedder (default: static, the bundled one)")
    add("--validation-share", type=float, default=0.1, metavar="SHARE", help="of the prompts (default: 0.1)")
    add("--quantiles-from", nargs="+", metavar="SOURCE", help="sources whose prompts stand for real users' (default: all)")
    add("--quantiles-note", metavar="TEXT", help="what those prompts are, in words")
    add("--card-notes", metavar="TEXT", help="a paragraph for the model card: sources and licences")
    add("--dim", type=int, default=defaults.dim, help="width of the latent space (default: %(default)s)")
    add("--learning-rate", type=float, default=defaults.learning_rate, help="of Adam (default: %(default)s)")
    add("--weight-decay", type=float, default=defaults.weight_decay, help="of Adam (default: %(default)s)")
    add("--batch-size", type=int, default=defaults.batch_size, help="(default: %(default)s)")
    add("--noise", type=float, default=defaults.noise, help="on prompt vectors while training (default: %(default)s)")
    add("--epochs", type=int, default=defaults.epochs, help="at most (default: %(default)s)")
    add("--patience", type=int, default=defaults.patience, help="epochs without progress (default: %(default)s)")
    add("--no-source-intercepts", action="store_true", help="learn no offset per source of data")
    add("--seed", type=int, default=defaults.seed, help="(default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
