"""What `gain_fast` and `gain_accurate` can learn of another router: a student of its log-odds, which takes no labels."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.errors import ConfigError
from routellm.prompt_files import read_prompts
from routellm.routers.odds import log_odds
from routellm.routers.parts import Trees
from routellm.routers.routers import Router, build_router
from routellm.routers.views import View, Viewer
from routellm.training.gain_fit import Linear, fit_student
from routellm.training.gain_kinds import check_above_0
from routellm.training.reading import file_hashes
from routellm.training.scale import Scale
from routellm.training.testprompts import TestPrompts
from routellm.training.trainers import Report


@dataclass(frozen=True, slots=True)
class Lesson:
    """A student and what a model card tells of it.

    Attributes:
        student: what was fitted to the teacher's log-odds.
        about: settings: the teacher, and of how many prompts the student learned its scores.
        correlation: of the student's scores with the teacher's log-odds of the prompts held back; NaN where there are none.
    """

    student: tuple[Linear, Trees]
    about: dict[str, Any]
    correlation: float


def add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `learn` takes."""
    add = parser.add_argument
    add("--teacher", metavar="NAME", help="a router, such as bert, whose scores are learned as well (default: none)")
    add("--teacher-path", metavar="DIR", help="its checkpoint (default: the shipped one)")
    add("--teacher-prompts", metavar="FILE", help="prompts for it to score beside the training prompts; no labels needed")
    add("--teacher-weight", type=float, default=0.25, metavar="X",
        help="how much of it, beside everything else as 1 (default: 0.25)")  # fmt: skip


def find_teacher(arguments: argparse.Namespace) -> Router | None:
    """The teacher that the arguments name; None where they name none.

    Raises:
        ConfigError: the weight is out of its range, a flag speaks of a teacher that there is not, or nothing vouches that the
            teacher scores a prompt alike each time.
        CheckpointError: its checkpoint can't be read.
    """
    check_above_0("--teacher-weight", arguments.teacher_weight)
    if arguments.teacher is None and (arguments.teacher_path or arguments.teacher_prompts):
        raise ConfigError("--teacher-path and --teacher-prompts speak of a teacher; name one by --teacher.")
    if arguments.teacher is None:
        return None
    teacher = build_router(arguments.teacher, {"checkpoint_path": arguments.teacher_path} if arguments.teacher_path else {})
    if teacher.fingerprint is None:
        raise ConfigError(f"--teacher {arguments.teacher!r}: nothing vouches that it scores a prompt alike each time.")
    return teacher


def learn(
    teacher: Router,
    arguments: argparse.Namespace,
    viewer: Viewer,
    scale: Scale,
    prompts: list[str],
    view: View,
    held: NDArray[np.bool_],
    seed: int,
    report: Report,
) -> Lesson:
    """Have the teacher score the prompts and those of `--teacher-prompts`, and fit a student.

    Args:
        viewer, scale: look at the prompts of `--teacher-prompts` as was looked at `prompts`.
        view: of `prompts`, with standardised features of form.
        held: which of `prompts` are for validation, and so not for fitting: bool, shape (len(prompts),).

    Raises:
        DataError: the file of prompts can't be read.
    """
    others = further_prompts(arguments.teacher_prompts, set(prompts), report) if arguments.teacher_prompts else []
    report(f"{arguments.teacher} scores {len(prompts) + len(others):,} prompts")
    target = _log_odds_of(teacher, [*prompts, *others])
    seen = view if not others else _joined(view, scale.standardised(viewer.see_batch(others)))
    fitting = np.flatnonzero(~np.concatenate([held, np.zeros(len(others), dtype=np.bool_)]))
    linear, trees = fit_student(seen.take(fitting), target[fitting], seed)
    correlation = float("nan")
    if held.sum() > 1:
        back = seen.take(np.flatnonzero(held))
        scores = linear.scores(back) + trees.predict_batch(back.form)
        correlation = float(np.corrcoef(scores, target[: len(prompts)][held])[0, 1])
    about = {
        "teacher": arguments.teacher,
        "teacher_fingerprint": teacher.fingerprint,
        "teacher_weight": arguments.teacher_weight,
        "prompts_of_the_teacher": len(fitting),
    }
    if arguments.teacher_prompts:
        about["teacher_prompts"] = " ".join(*file_hashes([arguments.teacher_prompts]).items())
    return Lesson((linear, trees), about, correlation)


def further_prompts(file: str, known: set[str], report: Report) -> list[str]:
    """The file's prompts that are not known, without those that hold a test prompt of a benchmark.

    Raises:
        DataError: it can't be read.
    """
    read = [prompt for prompt in dict.fromkeys(read_prompts(file, prompt_from="first").prompts) if prompt not in known]
    found = {one.row for one in TestPrompts.load().search(read)}
    if found:
        report(f"left out {len(found):,} prompts of {file} that hold test prompts of benchmarks")
    return [prompt for row, prompt in enumerate(read) if row not in found]


def _log_odds_of(router: Router, prompts: list[str]) -> NDArray[np.float64]:
    scores = router.calculate_strong_win_rates(prompts)
    return np.array([log_odds(float(score)) for score in scores], dtype=np.float64)


def _joined(first: View, second: View) -> View:
    def rows(name: str) -> Vector:
        return np.concatenate([getattr(first, name), getattr(second, name)])

    return View(rows("embedding"), rows("form"), rows("words"), rows("prior"))
