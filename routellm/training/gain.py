"""The trainers of `gain_fast` and `gain_accurate`: sums of simple models, each fitted to one kind of comparison.

Which of two models wins on a prompt can be asked in several ways, and each knows something else: how hard a question is shows
in how many models fail on it, within one family of tasks; for which families a strong model is worth its price shows only
between them. So comparisons come in kinds (what stands before the slash in a source's name), every kind gets a ridge
regression on embedding and form and boosted trees on form, and their scores, each divided by its spread, are added up. A kind
is fitted within its sources, whose base rates say more of how they were made than of the prompt, unless `--across` names it.

What is so of exam questions need not be of other prompts. A kind that `--options-only` names is fitted on the prompts that
list options, by a ridge regression without trees, and counts for such prompts only. It is centred on them, so that listing
options by itself moves a prompt neither up nor down. `--open-only` does the same for all other prompts, with trees, and
`--open-trees` keeps the trees of every kind to these: of a question with options its make-up says little. `--kind-weight`
makes kinds count for more, or for less.

`gain_accurate` is the same sum on the vectors of an encoder, that of `bert` if nothing else is said, in place of the table's.

Either can learn some of what another router knows (`--teacher bert`): a student of its log-odds joins the sum. That takes no
labels, so the student learns from further prompts too (`--teacher-prompts`).

Both can leave out of a prompt what was put around its question (`--padding-prompts`, `routellm.routers.padding`); all that is
fitted here then sees the training prompts that way.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import DataError
from routellm.routers.gain import AccurateGainRouter, FastGainRouter
from routellm.routers.padding import padding_tensors
from routellm.routers.parts import lists_options
from routellm.routers.parts_router import meta_of, tensors_of
from routellm.routers.views import Viewer
from routellm.training.dataset import held_prompts
from routellm.training.gain_fit import balanced, fit_members, fold, gather, platt
from routellm.training.gain_kinds import KindSettings, add_kind_arguments, check_above_0
from routellm.training.gain_padding import learn_padding
from routellm.training.scale import Scale
from routellm.training.teaching import add_teacher_arguments, find_teacher, learn
from routellm.training.trainers import Report, Trained, Trainer, TrainingData


class FastGainTrainer(Trainer):
    """Fits `gain_fast` to the comparisons of the pair."""

    summary = "the default: a sum of ridge regressions and boosted trees, microseconds a decision (numpy; a minute or two)"
    router_class: type[FastGainRouter] = FastGainRouter

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_kind_arguments(parser)
        add = parser.add_argument
        add("--penalty", type=float, default=1.0, help="of the ridge regressions, a row's weight as unit (default: 1)")
        add("--padding-prompts", metavar="FILE",
            help="learn to leave out of a prompt what was put around its question, from these prompts and those of the data; "
            "no labels needed (default: whatever stands in a prompt counts)")  # fmt: skip
        add("--embedding-model", default="static", metavar="NAME",
            help="the embedder: static, bert (the encoder of that router), or another with its argument, such as "
            "bert:DIR (default: %(default)s)")  # fmt: skip
        add_teacher_arguments(parser)

    def fit(self, data: TrainingData, arguments: argparse.Namespace, work: Path, report: Report) -> Trained:
        check_above_0("--penalty", arguments.penalty)
        teacher = find_teacher(arguments)
        gains = gather(data.rows, data.strong, data.weak)
        kinds = gains.kinds()
        kind_settings = KindSettings.of(arguments, gains.sources)
        features = PromptFeatures(load_embedder(arguments.embedding_model))
        held = held_prompts(data.rows, data.held)
        is_held = np.array([prompt in held for prompt in gains.prompts])
        padding, about = learn_padding(arguments, gains, is_held, features, data.seed, report)
        viewer = Viewer(features, {}, words=False, padding=padding)
        report(f"looking at {len(gains.prompts):,} prompts")
        seen = viewer.see_batch(gains.prompts)
        scale, listing = Scale.of(seen.form[~is_held]), lists_options(seen.form)
        view = scale.standardised(seen)
        report(f"fitting {len(kinds)} kinds of comparisons: {', '.join(kinds)}")
        fitting = np.flatnonzero(~is_held[gains.prompt])
        members = fit_members(gains, view, listing, fitting, kind_settings, arguments.penalty, data.seed)
        settings = {"kinds": list(kinds), **kind_settings.about(), "penalty": arguments.penalty, **about}
        metrics: dict[str, Any] = {}
        if teacher:
            lesson = learn(teacher, arguments, viewer, scale, gains.prompts, view, is_held, data.seed, report)
            members = members.joined_by(lesson.student, arguments.teacher_weight, view, listing)
            settings |= lesson.about
            metrics["correlation_with_teacher"] = lesson.correlation
        scores = members.scores(view, listing)
        # Probabilities are meant to be those of the pair's own comparisons, where a kind was named for them.
        shown = np.concatenate([kinds[kind] for kind in arguments.across or kinds])
        shown = shown[is_held[gains.prompt[shown]]]
        if len(shown) == 0:
            raise DataError(
                "No validation prompt has a comparison to calibrate by; give more data, or a larger --validation-share."
            )
        slope, bias = platt(scores[gains.prompt[shown]], gains.won[shown], balanced(gains.source[shown]))
        parts = fold(members, scale, slope, bias)
        return Trained(
            router=self.router_class.from_parts(parts, viewer),
            tensors=tensors_of(parts) | padding_tensors(padding),
            meta={"embedder": arguments.embedding_model, **meta_of(viewer), "priors": []},
            settings=settings,
            metrics={"slope": slope, "validation_prompts_of_the_calibration": len(shown), **metrics},
        )


class AccurateGainTrainer(FastGainTrainer):
    """Fits `gain_accurate`."""

    summary = "gain_fast's sum on an encoder's vectors, milliseconds a decision (numpy, and the reading of all prompts)"
    router_class = AccurateGainRouter

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        FastGainTrainer.add_arguments(parser)
        parser.set_defaults(embedding_model="bert")
