"""Make the bundled hashes of the benchmarks' test prompts, by which a trainer refuses files that hold them.

::

    python -m routellm.evals.test_prompts --output routellm/training/data/test_prompts.safetensors

All prompts of the pinned files are hashed, those that the paper left out of its evaluation too. What is kept of each, and what
counts as holding one: `routellm.training.testprompts`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from routellm.commands import command_parser, run_command
from routellm.downloads import fetch
from routellm.evals.benchmarks.factory import open_benchmark
from routellm.evals.benchmarks.manifest import manifest
from routellm.evals.benchmarks.routerbench import read_prompt
from routellm.tables import column_names, read_table
from routellm.training.testprompts import FILE, TestPrompts

BENCHMARKS = ("mmlu", "gsm8k", "mt-bench", "routerbench")

_EXAMPLES = """
python -m routellm.evals.test_prompts
python -m routellm.evals.test_prompts --data-mirror mirror --output test_prompts.safetensors
"""
_OPTIONS = re.compile(r"\n\(?A[.):] ")


def question_of(prompt: str) -> str:
    """What a multiple choice asks: without its options, what follows them, and worked examples before it.

    A prompt of another kind comes back as it is.
    """
    options = list(_OPTIONS.finditer(prompt))
    if not options:
        return prompt
    question = prompt[: options[-1].start()]
    return question.rpartition("\n\n")[2] if len(options) > 1 else question


def read_prompts(name: str, paths: Sequence[Path]) -> Iterator[str]:
    """The prompts in a benchmark's files, as they stand there: every turn, and rows that an evaluation leaves out too."""
    for path in paths:
        columns = column_names(str(path))
        if name == "routerbench":
            yield from (read_prompt(value, str(path)) for (value,) in read_table(str(path), ["prompt"]))
        elif "turns" in columns:
            yield from (turn for (turns,) in read_table(str(path), ["turns"]) for turn in turns)
        elif "prompt" in columns:
            yield from (prompt for (prompt,) in read_table(str(path), ["prompt"]))


def run(arguments: argparse.Namespace) -> None:
    """Fetch, hash, write."""
    prompts: dict[str, list[tuple[str, str]]] = {}
    sources = {}
    for name in BENCHMARKS:
        files = open_benchmark(name).files()
        paths = fetch(files, cache_dir=arguments.cache_dir, mirror=arguments.data_mirror)
        prompts[name] = [(prompt, question_of(prompt)) for prompt in read_prompts(name, paths)]
        head = manifest(name.replace("-", "_"))
        pins = hashlib.sha256("".join(sorted(file.sha256 for file in files)).encode()).hexdigest()
        sources[name] = {"url": head["url"], "licence": head["licence"], "sha256_of_sha256s": pins, "rows": len(prompts[name])}
    hashed = TestPrompts.of(prompts)
    hashed.save(arguments.output, {"sources": sources})
    sys.stdout.write(
        f"Wrote {arguments.output}: {len(hashed.whole):,} prompts, {len(hashed.run):,} runs of words, "
        f"{arguments.output.stat().st_size / 1e6:.2f} MB.\n"
    )


def build_parser(prog: str = "python -m routellm.evals.test_prompts") -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser(prog, (__doc__ or "").split("\n")[0], _EXAMPLES, run)
    add = parser.add_argument
    add("--output", type=Path, default=FILE, metavar="FILE", help="where the hashes go (default: into the package)")
    add("--cache-dir", metavar="DIR", help="for downloaded data (default: the user's cache directory)")
    add("--data-mirror", metavar="DIR", help="a directory that stands in for the network (default: ROUTELLM_DATA_MIRROR)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    sys.exit(main())
