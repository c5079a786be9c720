"""`routellm responses`: a benchmark's prompts, or a file's, answered by any model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from routellm.commands import CommandParser, command_parser, run_command
from routellm.errors import ConfigError
from routellm.evals.collecting.conversations import read_questions
from routellm.evals.collecting.engine import Job
from routellm.evals.collecting.options import add_model_arguments, add_run_arguments, open_model
from routellm.evals.collecting.progress import say
from routellm.evals.collecting.run import ask_all

_DESCRIPTION = """\
Ask a model every prompt of a benchmark or a file, and write its answers to a .jsonl file.

Each finished call is one line, on the disk before the next is counted. The same command goes on where an earlier one ended,
however it ended: no finished call is made again. A call that failed is written as failed, with its error. Of a prompt with
several turns each is one call. Grade the answers with `routellm grade` or `routellm judge`.

Exit code: 0 where every prompt has an answer, 1 where some failed or the run stopped early, 130 after Ctrl-C."""

_EXAMPLES = """
routellm responses --benchmark gsm8k --model gpt-4o --max-cost 5 --output gpt-4o.jsonl
routellm responses --benchmark mmlu --model groq/llama-3.1-8b-instant --requests-per-minute 30 --output llama.jsonl
routellm responses --benchmark my-prompts.csv --model ollama/llama3.2 --output llama.jsonl
routellm responses --benchmark mt-bench --model demo/strong --limit 5 --output try.jsonl   # offline, no real model
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.evals.collecting.responses") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, _run)
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--benchmark",
        required=True,
        metavar="NAME|FILE",
        help="mmlu, gsm8k, mt-bench, or a .jsonl, .csv, .parquet or .txt file with a column `prompt` (a text or a list of "
        "turns) or `turns`",
    )
    what.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    what.add_argument("--output", required=True, metavar="FILE.jsonl", help="where the answers go; gone on with if it exists")
    add_model_arguments(parser.add_argument_group("the model"), "--model", "the model to ask")
    add_run_arguments(parser.add_argument_group("the run"))
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit is {arguments.limit}; it must be 1 or more.")
    asked = open_model(arguments)
    questions = read_questions(arguments.benchmark, arguments.limit)
    if questions.repeated:
        say(f"{arguments.benchmark}: {questions.repeated:,} prompts repeat an earlier one; each is asked once.")
    job = Job(questions.source, asked.name, asked.parameters)
    return ask_all(arguments, asked, job, questions.conversations, arguments.output).code


if __name__ == "__main__":
    raise SystemExit(main())
