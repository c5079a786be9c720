"""The flags that say what to train on, and the data that they stand for: read, and checked for test prompts."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routellm.errors import DataError
from routellm.tables import write_table
from routellm.training.layouts import COLUMNS, GOOD_ENOUGH, Reading
from routellm.training.overlap import prompt_hash, read_overlaps
from routellm.training.preferences import STRONG, WEAK, Preferences, describe_dropped
from routellm.training.reading import read_preferences
from routellm.training.testprompts import TestPrompt, TestPrompts
from routellm.training.trainers import Report

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CheckedData:
    """What was read, and how many distinct prompts of it hold a test prompt of each benchmark (which was then allowed)."""

    read: Preferences
    test_prompts: dict[str, int]


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `read_data` takes."""
    add = parser.add_argument_group("data").add_argument
    add("--data", nargs="+", required=True, metavar="FILE",
        help="battles, pairs, scores or ratings: jsonl, csv, parquet, or owner/name of a data set on the hub")  # fmt: skip
    add("--column", action="append", type=_renamed, default=[], metavar="NAME=OWN", dest="columns",
        help="the files' own name of a column, such as prompt=question; may be repeated")  # fmt: skip
    add("--strong-model", metavar="NAME", help=f"the data's model that is served as the strong one (default: {STRONG})")
    add("--weak-model", metavar="NAME", help=f"the data's model that is served as the weak one (default: {WEAK})")
    add("--by-role", action="store_true",
        help="treat all strong models as one and all weak ones as one; of scores, the best third of the models and the "
        "worst third")  # fmt: skip
    add(
        "--score-columns", nargs="+", default=[], metavar="NAME", help="a wide file's columns of scores (default: all numbers)"
    )
    add("--tie-margin", type=float, default=0.0, metavar="X", help="scores that differ by no more are a tie (default: 0)")
    add("--good-enough", type=float, default=GOOD_ENOUGH, metavar="RATING",
        help=f"from which rating on the weak model's answer is good enough (default: {GOOD_ENOUGH:g})")  # fmt: skip
    add("--exclude", nargs="+", default=[], metavar="LIST",
        help="leave out the prompts of lists that `routellm contamination` or a refused training wrote")  # fmt: skip
    add("--allow-contaminated", action="store_true", help="train even on test prompts of benchmarks; the card will say so")
    add("--contaminated-to", metavar="LIST", help="where the list of such prompts goes (default: beside the output)")


def read_data(arguments: argparse.Namespace, listed: Path, report: Report) -> CheckedData:
    """Read the data that the flags name.

    Args:
        listed: where the list of prompts that hold test prompts goes, unless `--contaminated-to` says otherwise.

    Raises:
        ConfigError: the flags contradict each other, or name a model that has no scores.
        DataError: a file can't be read or used, or holds test prompts.
    """
    reading = Reading(
        columns=dict(arguments.columns),
        strong=arguments.strong_model,
        weak=arguments.weak_model,
        by_role=arguments.by_role,
        score_columns=tuple(arguments.score_columns),
        good_enough=arguments.good_enough,
        tie_margin=arguments.tie_margin,
    )
    exclude = frozenset(one.train_sha256 for file in arguments.exclude for one in read_overlaps(file))
    read = read_preferences(arguments.data, reading, exclude=exclude)
    for line in (*read.notes, *describe_dropped(read.dropped)):
        report(line)
    report("looking for test prompts of benchmarks")
    prompts = list(dict.fromkeys(row.prompt for row in read.rows))
    found = {prompts[one.row]: one for one in TestPrompts.load().search(prompts)}
    if found and not arguments.allow_contaminated:
        raise _refusal(read, found, Path(arguments.contaminated_to or listed))
    counts = dict(Counter(one.benchmark for one in found.values()))
    if found:
        report(f"trains on {len(found):,} prompts that hold test prompts, as allowed: {_counted(counts)}")
    return CheckedData(read, counts)


def _refusal(read: Preferences, found: dict[str, TestPrompt], listed: Path) -> DataError:
    """Write the list, and make the error that names it."""
    places = zip(read.files, read.numbers, (row.prompt for row in read.rows), strict=True)
    rows = list(dict.fromkeys(place for place in places if place[2] in found))  # a row may make several comparisons
    listed.parent.mkdir(parents=True, exist_ok=True)
    table: dict[str, list[Any]] = {
        "file": [Path(file).name for file, _, _ in rows],
        "train_row": [number for _, number, _ in rows],
        "train_sha256": [prompt_hash(prompt) for _, _, prompt in rows],
        "benchmark": [found[prompt].benchmark for _, _, prompt in rows],
        "prompt_sha256": [""] * len(rows),  # what ships are hashes of words, which don't give the prompt's own
        "measure": ["ngram"] * len(rows),
        "value": [round(found[prompt].share, 4) for _, _, prompt in rows],
    }
    write_table(listed, table)
    first = ", ".join(
        f"row {number} of {Path(file).name} ({found[prompt].benchmark})" for file, number, prompt in rows[:_SHOWN]
    )
    counts = _counted(Counter(one.benchmark for one in found.values()))
    return DataError(
        f"{len(found):,} training prompts in {len(rows):,} rows hold test prompts of benchmarks ({counts}), which then could "
        f"not tell what the router is worth: {first}{', ...' if len(rows) > _SHOWN else ''}. All are listed in {listed}. "
        f"Leave them out by --exclude {listed}, or train on them by --allow-contaminated, which marks the router."
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{benchmark} {count:,}" for benchmark, count in sorted(counts.items()))


def _renamed(text: str) -> tuple[str, str]:
    name, separator, own = text.partition("=")
    if not separator or not name or not own:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=OWN, such as prompt=question; names are: {', '.join(COLUMNS)}")
    return name, own
