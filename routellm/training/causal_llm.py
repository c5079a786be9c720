"""The trainer `causal_llm`: fine-tunes a low-rank adapter of a small language model to rate; the fit is in `causal_fit`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from routellm.embeddings.truncation import HEAD, TRUNCATIONS
from routellm.errors import ConfigError
from routellm.routers.causal.base import KNOWN_BASES, BaseModel, find_base
from routellm.routers.causal.model import Placement, libraries, load_model
from routellm.routers.causal.prompt import CLASSIFIER_FILE, FIELD, SYSTEM_FILE, RatingPrompt
from routellm.routers.causal.tokenizer import ChatTokenizer
from routellm.routers.causal_llm import CausalLLMRouter
from routellm.routers.checkpoint import save_checkpoint
from routellm.training.bert_data import make_examples, sample_for_checks
from routellm.training.schedule import check_schedule, schedule_of
from routellm.training.trainers import Report, Trained, Trainer, TrainingData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routellm.training.causal_fit import Settings

DEFAULT_BASE = next(iter(KNOWN_BASES))
SPECIAL_TOKENS = [f"[[{rating}]]" for rating in range(1, 6)]

# Every token costs time with every prompt, and fine-tuning tells the model the rest.
SYSTEM = "Rate a small model's answer, 1 to 5."
CLASSIFIER = FIELD


class CausalLLMTrainer(Trainer):
    """Fine-tunes SmolLM2-135M-Instruct, or another causal language model with a chat template.

    The strong model's wins are trained on as rating 2, ties as 4 and the weak model's wins as 5; see `causal_fit.RATINGS`.
    """

    summary = "a language model that rates the weak model's answer, by a low-rank adapter (torch; a GPU, or an hour or two)"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--base", default=DEFAULT_BASE, metavar="NAME",
            help="the language model: a folder, a hub repository, or a known name (default: %(default)s)")  # fmt: skip
        add(
            "--base-revision",
            metavar="REVISION",
            help="commit of the hub repository; give one, so that the base stays the same",
        )
        add("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
        add("--rank", type=int, default=8, help="of the adapters (default: %(default)s)")
        add("--alpha", type=float, default=16.0, help="factor of the adapters, over their rank (default: %(default)s)")
        add("--layers", type=int, metavar="N", help="adapt the last N layers only, which is quicker (default: all)")
        add("--max-length", type=int, default=256, metavar="TOKENS",
            help="of a prompt with its template (default: %(default)s)")  # fmt: skip
        add("--truncation", choices=TRUNCATIONS, default=HEAD,
            help="of longer ones: read the first tokens, or the first and the last (default: %(default)s)")  # fmt: skip
        add("--learning-rate", type=float, default=5e-4, help="(default: %(default)s)")
        add("--weight-decay", type=float, default=0.01, help="of the adapters (default: %(default)s)")
        add("--batch-size", type=int, default=16, help="rows a step (default: %(default)s)")
        add("--epochs", type=int, default=3, help="at most (default: %(default)s)")
        add("--epoch-size", type=int, metavar="ROWS", help="rows an epoch, after which is validated (default: all)")
        add("--check-size", type=int, default=500, metavar="ROWS", help="validation rows an epoch (default: %(default)s)")
        add("--warmup", type=float, default=0.06, metavar="SHARE", help="of the steps (default: %(default)s)")
        add("--patience", type=int, default=2, help="epochs without progress (default: %(default)s)")
        add("--no-source-intercepts", action="store_true", help="learn no offsets per source of data")
        add("--save-every", type=int, default=20, metavar="STEPS", help="how often --resume can go on (default: %(default)s)")

    def fit(self, data: TrainingData, arguments: argparse.Namespace, work: Path, report: Report) -> Trained:
        """Fit; see `Trainer.fit`.

        Raises:
            MissingExtraError: torch or transformers is not installed.
            CheckpointError: the base can't be had.
        """
        _check_arguments(arguments)
        libraries()
        from routellm.training.causal_fit import Fit, Settings
        from routellm.training.fine_tuning import STATE

        folder = find_base(arguments.base, arguments.base_revision)
        source = arguments.base if not Path(arguments.base).expanduser().is_dir() else str(Path(arguments.base).expanduser())
        base = BaseModel.of(source, arguments.base_revision, folder)
        tokenizer = ChatTokenizer(folder, SPECIAL_TOKENS)
        prompt = RatingPrompt(tokenizer, SYSTEM, CLASSIFIER, arguments.max_length, folder, arguments.truncation)

        def ids_of(prompts: Sequence[str]) -> list[list[int]]:
            return [prompt.ids(one) for one in prompts]

        examples, held = make_examples(data.rows, data.held, data.strong, data.weak, ids_of)
        training = np.flatnonzero(~held)
        checking = sample_for_checks(examples, np.flatnonzero(held), arguments.check_size, data.seed)
        tokens = np.mean([len(examples.ids[row]) for row in training.tolist()])
        report(f"{len(training):,} comparisons of {tokens:.0f} tokens to train on, {len(checking):,} to check")
        model = load_model(folder, Placement(arguments.device, "float32"))
        schedule = schedule_of(arguments, len(training), data.seed)
        settings = Settings(**schedule, rank=arguments.rank, alpha=arguments.alpha, layers=arguments.layers)
        fit = Fit(model, tokenizer.first_rating, _starts(tokenizer), examples, training, checking, settings, work / STATE)
        if arguments.resume:
            fit.resume()
        fit.run(report)
        return _trained(fit.tensors(), base, folder, arguments, work, fit.progress.metrics(), settings)


def _trained(
    tensors: dict[str, Any],
    base: BaseModel,
    folder: Path,
    arguments: argparse.Namespace,
    work: Path,
    metrics: dict[str, Any],
    settings: Settings,
) -> Trained:
    """Write what a folder must hold, and load it as it will be served."""
    reads = {"max_length": arguments.max_length, "truncation": arguments.truncation}
    meta = {"special_tokens": SPECIAL_TOKENS, **reads, "base": base.record()}
    files = {SYSTEM_FILE: work / SYSTEM_FILE, CLASSIFIER_FILE: work / CLASSIFIER_FILE}
    for name, text in {SYSTEM_FILE: SYSTEM, CLASSIFIER_FILE: CLASSIFIER}.items():
        files[name].write_text(text, encoding="utf-8")
    saved = save_checkpoint(work / "router", "causal_llm", tensors, meta, files=files)
    router = CausalLLMRouter(str(saved), base_model=str(folder), device=arguments.device, dtype="float32")
    described = {"base": base.source, **reads, **asdict(settings)}
    return Trained(router, tensors, meta, files, described, metrics)


def _starts(tokenizer: ChatTokenizer) -> list[int]:
    """Ids of the digits 1 to 5, which the rating tokens start from: the base already knows what a rating is."""
    return [tokenizer.ids(token.strip("[]"))[-1] for token in SPECIAL_TOKENS]


def _check_arguments(arguments: argparse.Namespace) -> None:
    check_schedule(arguments, whole=["rank", "layers", "max_length"])
    if not arguments.alpha > 0:
        raise ConfigError(f"--alpha is {arguments.alpha}; it must be above 0.")
