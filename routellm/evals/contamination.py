"""`routellm contamination`: which rows of a training file are, or nearly are, prompts of a benchmark.

What counts as nearly, and why: `routellm.training.overlap`, where the search itself is. The list that is written serves both
sides: `load_benchmark(..., exclude=LIST)` leaves its prompts out of a benchmark, and a trainer leaves out the rows whose
prompt's hash `read_overlaps` gives.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm.commands import command_parser, run_command, share
from routellm.embeddings.static import StaticEmbedder
from routellm.errors import DataError
from routellm.evals import console
from routellm.evals.benchmarks.factory import load_benchmark, open_benchmark
from routellm.prompt_files import prompt_text
from routellm.tables import check_writable, read_table
from routellm.training.overlap import (
    MIN_COSINE,
    MIN_SHARE,
    Overlap,
    OverlapSearch,
    find_overlaps,
    read_overlaps,
    search_all,
    write_overlaps,
)

__all__ = ["Overlap", "build_parser", "check", "find_overlaps", "main", "read_overlaps", "write_overlaps"]

_DESCRIPTION = """Find training prompts that are, or nearly are, prompts of a benchmark, and list them.

Two measures: the cosine of the prompts' vectors, by the bundled embedder, and the share of a benchmark prompt's runs of 13
words (shorter for shorter prompts) that a training prompt holds word for word. Prompts made from one template come out alike
by cosine, as MMLU's moral_scenarios do: look at what is listed before you leave it out."""
_EXAMPLES = """
routellm contamination --train battles.jsonl --benchmark mmlu gsm8k mt-bench
routellm contamination --train pairs.parquet --benchmark my-traffic.csv --min-cosine 0.9 --output overlap.jsonl
"""
_SHOWN = 10


def check(
    train: Iterable[str],
    benchmarks: dict[str, Sequence[str]],
    *,
    min_cosine: float = MIN_COSINE,
    min_share: float = MIN_SHARE,
) -> tuple[list[Overlap], int]:
    """The overlaps of training prompts with several benchmarks, and how many training prompts there were.

    Args:
        train: any iterable; it is read once.
        benchmarks: name -> prompts.
        min_cosine, min_share: list what reaches this value.
    """
    embedder = StaticEmbedder()
    searches = [
        OverlapSearch(name, prompts, embedder, min_cosine=min_cosine, min_share=min_share)
        for name, prompts in benchmarks.items()
    ]
    count = search_all(train, searches, embedder)
    return [overlap for search in searches for overlap in search.found()], count


def run(arguments: argparse.Namespace) -> None:
    """Search, write, summarise."""
    check_writable(arguments.output)
    prompts: dict[str, Sequence[str]] = {}
    for spec in dict.fromkeys(arguments.benchmark):
        data = load_benchmark(open_benchmark(spec), cache_dir=arguments.cache_dir, mirror=arguments.data_mirror)
        prompts[spec] = data.prompts
    rows = _training_prompts(arguments.train, arguments.prompt_column)
    with console.progress() as bar:
        task = bar.add_task(f"Reading {arguments.train}", total=None)
        counted = _counted(rows, lambda number: bar.update(task, description=f"{number:,} rows of {arguments.train}"))
        overlaps, count = check(counted, prompts, min_cosine=arguments.min_cosine, min_share=arguments.min_share)
    if count == 0:
        raise DataError(f"{arguments.train} has no rows.")
    write_overlaps(arguments.output, overlaps)
    _show(overlaps, prompts, arguments, count)


def _training_prompts(source: str, column: str) -> Iterator[str]:
    return (prompt_text(value) for (value,) in read_table(source, [column]))


def _counted(rows: Iterable[str], report: Any) -> Iterator[str]:
    for number, row in enumerate(rows, 1):
        if number % 1000 == 0:
            report(number)
        yield row


def _show(overlaps: Sequence[Overlap], prompts: dict[str, Sequence[str]], arguments: argparse.Namespace, count: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = Console(highlight=False)
    terminal.print(Text(f"{arguments.train}: {count:,} rows"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("benchmark", "measure", "from", "prompts touched", "training rows", "highest"):
        table.add_column(name, justify="left" if name in ("benchmark", "measure") else "right")
    for name, texts in prompts.items():
        for measure, least in (("cosine", arguments.min_cosine), ("ngram", arguments.min_share)):
            found = [one for one in overlaps if (one.benchmark, one.measure) == (name, measure)]
            touched = f"{len({one.prompt_sha256 for one in found}):,} of {len(texts):,}"
            highest = f"{max(one.value for one in found):.3f}" if found else ""
            table.add_row(name, measure, f"{least:g}", touched, f"{len({one.train_row for one in found}):,}", highest)
    terminal.print(table)
    for one in sorted(overlaps, key=lambda one: -one.value)[:_SHOWN]:
        terminal.print(
            Text(f"row {one.train_row}: {one.measure} {one.value:.3f} with a prompt of {one.benchmark}", style="dim")
        )
    terminal.print(Text(f"{len(overlaps):,} overlaps written to {arguments.output}"))


def build_parser(prog: str = "python -m routellm.evals.contamination") -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, run)
    add = parser.add_argument
    add("--train", required=True, metavar="FILE", help="jsonl, csv, parquet or text, or owner/name of a data set on the hub")
    add("--benchmark", nargs="+", required=True, metavar="NAME", help="benchmarks, or files of prompts and qualities")
    add("--prompt-column", default="prompt", metavar="NAME", help="the column of FILE with the prompts (default: prompt)")
    add("--min-cosine", type=share, default=MIN_COSINE, metavar="X", help=f"list from this cosine on (default: {MIN_COSINE})")
    add("--min-share", type=share, default=MIN_SHARE, metavar="X",
        help=f"list from this share of common runs on; 0 for a single one in common (default: {MIN_SHARE})")  # fmt: skip
    add("--output", default="contamination.jsonl", metavar="FILE", help="the list (default: contamination.jsonl)")
    add("--cache-dir", metavar="DIR", help="for downloaded data (default: the user's cache directory)")
    add("--data-mirror", metavar="DIR", help="a directory that stands in for the network (default: ROUTELLM_DATA_MIRROR)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    sys.exit(main())
