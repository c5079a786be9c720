"""The trainer `bert`: fine-tunes an encoder as a three-way classifier and exports it for serving without torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from routellm.downloads import sha256
from routellm.embeddings.onnx import TOKENIZER
from routellm.embeddings.truncation import HEAD, TRUNCATIONS, TokenIds
from routellm.errors import ConfigError, MissingExtraError
from routellm.routers.bert import MODEL as ONNX
from routellm.routers.bert import BertRouter, OnnxClassifier
from routellm.training.bert_data import Examples, IdsOf, Rows, Settings, make_examples, sample_for_checks
from routellm.training.gain_kinds import check_kinds
from routellm.training.pinned import HASHES, MODEL, REVISION
from routellm.training.reading import file_hashes
from routellm.training.schedule import check_schedule, schedule_of
from routellm.training.trainers import Report, Trained, Trainer, TrainingData

if TYPE_CHECKING:
    from routellm.training.bert_model import PromptClassifier

LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime")
EXTRAS = "torch,distill"
WEIGHTS = "model.safetensors"
RATES = ("strong_wins", "tie", "weak_wins")


class BertTrainer(Trainer):
    """Fine-tunes all-MiniLM-L6-v2, or another encoder of BERT's kind.

    Ties are trained on, as a class of their own. Rows of sources are drawn in proportion to the square root of the sources'
    sizes, and each source has an offset of the logits that is dropped afterwards. With `--states` the encoder learns from no
    comparison, see `bert_states`.
    """

    summary = "a three-way sequence classifier (strong wins, tie, weak wins), fine-tuned from a small encoder"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add, defaults = parser.add_argument, Settings(epoch_size=0)
        add("--encoder", metavar="DIR", help=f"folder or hub repository of the encoder (default: {MODEL} at {REVISION})")
        add("--layers", type=int, metavar="N", help="keep only the encoder's N lowest layers (default: all)")
        add("--frozen-layers", type=int, default=0, metavar="N", help="leave the N lowest layers as they are (default: 0)")
        add("--max-length", type=int, default=256, metavar="TOKENS", help="longer prompts are cut (default: %(default)s)")
        add("--truncation", choices=TRUNCATIONS, default=HEAD,
            help="what is read of those: the first tokens, or the first and the last (default: %(default)s)")  # fmt: skip
        add("--learning-rate", type=float, default=defaults.learning_rate, help="of the encoder (default: %(default)s)")
        add("--head-learning-rate", type=float, default=defaults.head_learning_rate,
            help="of the last layer and the offsets (default: %(default)s)")  # fmt: skip
        add("--weight-decay", type=float, default=defaults.weight_decay, help="of AdamW (default: %(default)s)")
        add("--batch-size", type=int, default=defaults.batch_size, help="rows a step (default: %(default)s)")
        add("--epochs", type=int, default=defaults.epochs, help="at most (default: %(default)s)")
        add("--epoch-size", type=int, metavar="ROWS", help="rows an epoch, after which is validated (default: all)")
        add("--check-size", type=int, default=1000, metavar="ROWS", help="validation rows an epoch (default: %(default)s)")
        add("--warmup", type=float, default=defaults.warmup, metavar="SHARE", help="of the steps (default: %(default)s)")
        add("--patience", type=int, default=defaults.patience, help="epochs without progress (default: %(default)s)")
        add("--refit-head", action="store_true",
            help="at the end, fit the last layer anew to all training rows, each kind of comparison apart")  # fmt: skip
        add("--across", nargs="+", default=[], metavar="KIND",
            help="with --refit-head: kinds whose sources can be compared with each other (default: none)")  # fmt: skip
        add("--states", metavar="FILE",
            help="let the encoder learn a language model's states of prompts (python -m routellm.training.language_states) in "
            "place of the comparisons; these then fit the last layer, as with --refit-head")  # fmt: skip
        add("--no-source-intercepts", action="store_true", help="learn no offset per source of data")
        add("--save-every", type=int, default=defaults.save_every, metavar="STEPS",
            help="steps between the states that --resume goes on from (default: %(default)s)")  # fmt: skip

    def fit(self, data: TrainingData, arguments: argparse.Namespace, work: Path, report: Report) -> Trained:
        """Fit; see `Trainer.fit`.

        Raises:
            MissingExtraError: a library that training or the export needs is not installed.
            CheckpointError: the encoder can't be read, or is not the pinned one.
        """
        _check_arguments(arguments)
        _check_libraries()
        from routellm.training import bert_export, bert_fit, bert_model, bert_refit
        from routellm.training.fine_tuning import STATE

        folder = bert_model.find_encoder(arguments.encoder)
        tokens = TokenIds(folder / TOKENIZER, arguments.max_length, arguments.truncation)
        examples, held = make_examples(data.rows, data.held, data.strong, data.weak, tokens.of_batch)
        check_kinds("--across", arguments.across, examples.sources)
        training, checking = np.flatnonzero(~held), np.flatnonzero(held)
        checking = sample_for_checks(examples, checking, arguments.check_size, data.seed)
        report(_describe(examples, training, checking))
        model = bert_model.PromptClassifier(bert_model.load_encoder(folder, arguments.layers))
        positions = bert_model.max_positions(model.encoder)
        if arguments.max_length > positions:
            raise ConfigError(f"--max-length is {arguments.max_length}; the encoder reads {positions} tokens at most.")
        bert_model.freeze(model, arguments.frozen_layers)
        if arguments.states:
            settings, metrics = _learn_states(model, tokens.of_batch, arguments, data.seed, work / STATE, report)
        else:
            settings = _settings(arguments, len(training), data.seed)
            fit = bert_fit.Fit(model, examples, training, checking, settings, work / STATE)
            if arguments.resume:
                fit.resume()
            fit.run(report)
            metrics = {**fit.progress.metrics(), "validation_loss_of_offsets_alone": fit.loss_of_offsets_alone}
        if arguments.refit_head or arguments.states:
            bert_refit.refit_head(model, examples, training, bert_fit.TOKENS_AT_ONCE, arguments.across)

        logits, rates = bert_fit.logits_of(model, examples, checking), examples.share @ examples.class_rates(training)
        offset = bert_export.serving_offset(logits, rates)
        files = bert_export.export_classifier(model, folder, offset, work)
        served = OnnxClassifier(files[ONNX], files[TOKENIZER], arguments.max_length, truncation=arguments.truncation)
        near = bert_export.agreement(served, [examples.prompts[row] for row in checking.tolist()], logits + offset)
        report(f"int8 against float32 on {len(checking):,} prompts: rank correlation {near['int8_rank_correlation']:.4f}")
        return Trained(
            BertRouter.from_classifier(served),
            tensors={},
            meta={"max_length": arguments.max_length, "truncation": arguments.truncation, "max_positions": positions},
            files=files,
            settings={**_about_encoder(arguments, folder), **asdict(settings), **_about_head(arguments)},
            metrics={**metrics, **near, "base_rates": dict(zip(RATES, rates.tolist(), strict=True))},
        )


def _check_arguments(arguments: argparse.Namespace) -> None:
    check_schedule(arguments, rates=["head_learning_rate"])
    if arguments.max_length < 3:
        raise ConfigError(f"--max-length is {arguments.max_length}; two tokens are special, so it must be at least 3.")
    if arguments.across and not (arguments.refit_head or arguments.states):
        raise ConfigError("--across says how --refit-head fits; give that too.")


def _check_libraries() -> None:
    for name in LIBRARIES:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingExtraError(f"Training a bert router (which imports {name})", EXTRAS) from error


def _settings(arguments: argparse.Namespace, rows: int, seed: int) -> Settings:
    return Settings(**schedule_of(arguments, rows, seed), head_learning_rate=arguments.head_learning_rate)


def _learn_states(
    model: PromptClassifier, ids_of: IdsOf, arguments: argparse.Namespace, seed: int, state: Path, report: Report
) -> tuple[Settings, dict[str, float]]:
    """Train the encoder on `--states`; returns the settings of the run and what came of it."""
    from routellm.training.bert_states import StateFit, state_examples

    examples, training, checking = state_examples(arguments.states, ids_of, arguments.check_size, seed)
    settings = _settings(arguments, len(training), seed)
    report(f"{len(training):,} states to learn, {len(checking):,} to check; losses are the share of variance not explained")
    fit = StateFit(model, examples, training, checking, settings, state)
    if arguments.resume:
        fit.resume()
    if fit.progress.step == 0:
        fit.start()
        report(f"before the first step: {fit.validation_loss(checking):.4f}")
    fit.run(report)
    return settings, fit.metrics()


def _about_encoder(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights = sha256(folder / WEIGHTS)
    pinned = weights == HASHES[WEIGHTS]
    return {
        "encoder": f"{MODEL}, revision {REVISION}" if pinned else arguments.encoder,
        "encoder_sha256": weights,
        "layers": arguments.layers or "all",
        "frozen_layers": arguments.frozen_layers,
        "max_length": arguments.max_length,
        "truncation": arguments.truncation,
    }


def _about_head(arguments: argparse.Namespace) -> dict[str, Any]:
    hashes = file_hashes([arguments.states] if arguments.states else [])
    return {
        "states": ", ".join(f"{name}, {found}" for name, found in hashes.items()) or None,
        "refit_head": bool(arguments.refit_head or arguments.states),
        "across": arguments.across,
    }


def _describe(examples: Examples, training: Rows, checking: Rows) -> str:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(examples.sources, examples.share, strict=True))
    tokens = np.mean([len(examples.ids[row]) for row in training])
    return f"{len(training):,} comparisons of {tokens:.0f} tokens to train on, {len(checking):,} to check; drawn: {shares}"
