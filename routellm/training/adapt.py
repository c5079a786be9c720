"""`python -m routellm.training.adapt` (`routellm adapt`): fit a shipped router to one's own traffic from few labels.

Some 100 to 2,000 prompts with a label of how much better the strong model's answer was are enough, and seconds on a CPU. The
result is saved only where cross-validation shows that it ranks these prompts better than the shipped router.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import routellm
from routellm.calibration.quantiles import ScoreQuantiles
from routellm.commands import FAILURE, OK, command_parser, run_command
from routellm.config import load_config
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import ConfigError
from routellm.routers.adapted import KIND
from routellm.routers.checkpoint import save_checkpoint
from routellm.routers.parts_router import PartsRouter, meta_of, tensors_of
from routellm.routers.routers import ROUTER_CLS, Router, build_router
from routellm.routers.views import Viewer
from routellm.training.adapt_card import adapted_card
from routellm.training.adapt_labels import Labels, read_labels
from routellm.training.adapt_model import Adapted, adapt
from routellm.training.card import with_interval
from routellm.training.reading import file_hashes
from routellm.training.testprompts import TestPrompts

EmbedderSpec: TypeAlias = str | dict[str, Any]

_EXAMPLES = """
routellm adapt --labels labels.jsonl --output my-router
routellm adapt --router mf --labels scores.parquet --strong-model gpt-4o --weak-model llama-3-8b --output my-router
routellm adapt --labels labels.csv        # only measure, save nothing
"""


def run(arguments: argparse.Namespace) -> int:
    """Read, fit, tell, save."""
    start = time.perf_counter()
    labels = read_labels(arguments.labels, arguments.strong_model, arguments.weak_model)
    for note in labels.notes:
        _say(note)
    config = load_config(arguments.config, ROUTER_CLS) if arguments.config else {}
    names = list(dict.fromkeys(arguments.router))
    priors = {name: _prior(name, config.get(name, {})) for name in names}
    shipped = names[0]
    embedding_model, features = features_for(priors[shipped], arguments.embedding_model)
    viewer = Viewer(features, priors)
    adapted = adapt(labels, viewer, arguments.seed)
    verdict = adapted.verdict
    wins = int(labels.won.sum())
    _say(f"{len(labels.prompts):,} prompts, {wins:,} won by the strong model; {time.perf_counter() - start:.1f} s")
    measured = {shipped: verdict.shipped, "adapted": verdict.adapted, "difference": verdict.difference}
    told = ", ".join(f"{name} {with_interval(each.rounded())}" for name, each in measured.items())
    _say(f"APGR by cross-validation: {told}")
    if not verdict.better:
        _say(
            f"Not shown to be better than {shipped}: the interval of the difference does not lie above 0. Label more prompts, "
            f"stay with {shipped}, or save it all the same with --force."
        )
    if arguments.output and (verdict.better or arguments.force):
        _say(f"saved {_save(arguments, embedding_model, labels, adapted, viewer, config)}")
    return OK if verdict.better or arguments.force else FAILURE


def _prior(name: str, settings: Mapping[str, Any]) -> Router:
    router = build_router(name, settings)
    if router.fingerprint is None:
        raise ConfigError(f"The router {name!r} can't be adapted: nothing vouches that it scores a prompt alike each time.")
    return router


def features_for(router: Router, given: str | None = None) -> tuple[EmbedderSpec, PromptFeatures]:
    """The embedder for adapting a router, and the features with it.

    Args:
        given: an embedder to take; None takes the one that the router looks at prompts by, where it is a sum of parts, and
            else the bundled table.
    """
    if given is None and isinstance(router, PartsRouter):
        return router.embedding_model, router.features
    return given or "static", PromptFeatures(load_embedder(given))


def _save(
    arguments: argparse.Namespace,
    embedding_model: EmbedderSpec,
    labels: Labels,
    adapted: Adapted,
    viewer: Viewer,
    config: Mapping[str, Mapping[str, Any]],
) -> Path:
    n = len(labels.prompts)
    quantiles = ScoreQuantiles.of(adapted.win_rates, f"cross-validated scores of the {n:,} labelled prompts")
    verdict = adapted.verdict
    meta = {
        "embedder": embedding_model,
        **meta_of(viewer),
        "priors": [
            {"router": name, "arguments": dict(config.get(name, {})), "fingerprint": router.fingerprint}
            for name, router in viewer.priors.items()
        ],
        "strong_model": arguments.strong_model or "strong",
        "weak_model": arguments.weak_model or "weak",
        "training": {
            "routellm_version": routellm.__version__,
            "labels": file_hashes([arguments.labels]),
            "prompts": n,
            "won": int(labels.won.sum()),
            "mean_gap": float(labels.gap.mean()),
            "seed": arguments.seed,
            "notes": labels.notes,
            "test_prompts": _test_prompts(labels.prompts),
        },
        "metrics": {
            "apgr": {name: getattr(verdict, name).rounded() for name in ("shipped", "adapted", "difference")},
            "better": verdict.better,
            "apgr_alone": adapted.apgr_alone,
            "influence": adapted.influence,
        },
    }
    try:
        folder = save_checkpoint(arguments.output, KIND, tensors_of(adapted.parts), meta, quantiles)
        (folder / "README.md").write_text(adapted_card(meta), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The router can't be saved in {arguments.output!r}: {error.strerror or error}.") from error
    return folder


def _test_prompts(prompts: Sequence[str]) -> dict[str, int]:
    """How many prompts hold one of a benchmark's test prompts, by benchmark."""
    return dict(Counter(found.benchmark for found in TestPrompts.load().search(prompts)))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def build_parser(prog: str = "python -m routellm.training.adapt") -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser(prog, "Fit a shipped router to your own traffic from few labels.", _EXAMPLES, run)
    add = parser.add_argument
    add("--labels", required=True, metavar="FILE",
        help="jsonl, csv, parquet, or a hub data set: prompt with strong_score and weak_score; with outcome (strong, tie, "
        "weak); with model and score; or with a column of scores for each model")  # fmt: skip
    add("--router", nargs="+", default=["mf"], metavar="NAME",
        help="the router to adapt and to beat; further ones only lend their scores (default: mf)")  # fmt: skip
    add("--config", metavar="FILE", help="arguments of the routers, in YAML")
    add("--strong-model", metavar="NAME", help="the dear model, where the labels are scores by model")
    add("--weak-model", metavar="NAME", help="the cheap one")
    add("--output", metavar="DIR", help="where the checkpoint goes (default: measure only)")
    add("--force", action="store_true", help="save it also where it is not shown to be better; the model card says so")
    add("--embedding-model", metavar="NAME",
        help="the embedder: static, bert, ... (default: the one of the router to adapt, if it is gain_fast, gain_accurate or "
        "adapted itself, and else static)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of folds, trees and intervals (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
