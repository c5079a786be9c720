"""`routellm judge`: a judge model grades answers, or decides battles between two models' answers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from routellm.commands import FAILURE, CommandParser, command_parser, run_command
from routellm.errors import DataError
from routellm.evals.benchmarks.base import BENCHMARKS
from routellm.evals.collecting.answers import Answers, read_answers, read_references
from routellm.evals.collecting.conversations import Conversation
from routellm.evals.collecting.engine import Job
from routellm.evals.collecting.judging import Verdicts, battle_questions, decide, grade_questions, grades, pairings
from routellm.evals.collecting.options import Asked, add_model_arguments, add_run_arguments, open_model
from routellm.evals.collecting.progress import say
from routellm.evals.collecting.run import ask_all
from routellm.evals.collecting.verdicts import COMPARE_INSTRUCTION, GRADE_INSTRUCTION, WORDING
from routellm.tables import check_writable, write_table

_DESCRIPTION = """\
Let a judge model assess the answers that `routellm responses` collected.

--scores FILE   the judge grades each answer from 1 to 10, each turn by itself. The file is a benchmark: `prompt`, and for each
                model a column with the mean of its grades over the turns; empty where a grade is missing.
--battles FILE  the judge compares each two models' answers to a prompt, in both orders. Where both verdicts name the same
                model it wins; where they differ the battle is a tie. The file has the columns that trainers read: `prompt`,
                `model_a`, `model_b`, `winner`. Battles on a benchmark's own prompts are marked (`contam`), and trainers leave
                them out: benchmarks are for testing.

Verdicts are read strictly: one [[7]], one [[A]]. What can't be read, and what failed, is counted and left out, never guessed.
Each verdict is kept in a file (--verdicts) as it comes in; the same command goes on where an earlier one ended.

Exit code: 0 where every call has an answer, 1 where some failed, the run stopped early or no verdict can be read, 130 after
Ctrl-C."""

_EXAMPLES = """
routellm judge gpt-4o.jsonl llama.jsonl --judge gpt-4.1 --scores mt-bench.parquet --max-cost 10
routellm judge gpt-4o.jsonl llama.jsonl --judge gpt-4.1 --battles battles.jsonl
routellm judge gpt-4o.jsonl llama.jsonl --judge gpt-4.1 --scores graded.csv --references solutions.jsonl
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.evals.collecting.judge") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, _run, "RESPONSES.jsonl ...")
    what = parser.add_argument_group("what is judged")
    what.add_argument("responses", nargs="+", metavar="RESPONSES.jsonl", help="files that `routellm responses` wrote")
    result = what.add_mutually_exclusive_group(required=True)
    result.add_argument("--scores", metavar="FILE", help="grade answers into this benchmark file (.jsonl, .csv, .parquet)")
    result.add_argument("--battles", metavar="FILE", help="decide battles into this file (.jsonl, .csv, .parquet)")
    what.add_argument("--verdicts", metavar="FILE.jsonl", help="the judge's own words (default: FILE.verdicts.jsonl)")
    what.add_argument(
        "--references",
        metavar="FILE",
        help="good answers, shown to the judge: a text, or a list with one for each turn. Of prompts with a category only "
        "those in math, coding and reasoning are shown one",
    )
    what.add_argument("--reference-column", default="reference", metavar="NAME", help="their column (default: %(default)s)")
    add_model_arguments(parser.add_argument_group("the judge"), "--judge", "the model that judges", system=False)
    add_run_arguments(parser.add_argument_group("the run"))
    return parser


def _run(arguments: argparse.Namespace) -> int:
    output = arguments.scores or arguments.battles
    check_writable(output)
    asked = open_model(arguments)
    answers = read_answers(arguments.responses)
    references = read_references(arguments.references, arguments.reference_column) if arguments.references else {}
    run = _score if arguments.scores else _battle
    return run(arguments, asked, answers, references)


def _score(arguments: argparse.Namespace, asked: Asked, answers: Answers, references: Mapping[str, Any]) -> int:
    questions = grade_questions(answers, references)
    if not questions:
        raise DataError("There is no complete answer to judge in these files.")
    verdicts, code = _ask(arguments, asked, answers, questions, GRADE_INSTRUCTION, arguments.scores)
    table = grades(answers, verdicts)
    for model, counts in table.counts.items():
        values = table.qualities[model].values()
        mean = f", mean grade {sum(values) / len(values):.2f}" if values else ""
        say(f"{model}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}{mean}")
    if not any(table.qualities.values()):
        return _nothing(arguments.scores, code)
    say(f"{table.write(arguments.scores):,} prompts are in {arguments.scores}.")
    return code


def _battle(arguments: argparse.Namespace, asked: Asked, answers: Answers, references: Mapping[str, Any]) -> int:
    pairs = pairings(answers)
    questions = battle_questions(pairs, references)
    verdicts, code = _ask(arguments, asked, answers, questions, COMPARE_INSTRUCTION, arguments.battles)
    battles = decide(pairs, verdicts, asked.name, list(BENCHMARKS))
    say(f"{len(pairs):,} battles: {', '.join(f'{count:,} {what}' for what, count in battles.counts.items())}")
    if not len(battles):
        return _nothing(arguments.battles, code)
    write_table(arguments.battles, battles.table)
    say(f"{len(battles):,} battles are in {arguments.battles}.")
    return code


def _nothing(output: str, code: int) -> int:
    say(f"There is no verdict to write to {output}.")
    return code or FAILURE


def _ask(
    arguments: argparse.Namespace,
    asked: Asked,
    answers: Answers,
    questions: Sequence[Conversation],
    instruction: str,
    output: str,
) -> tuple[Verdicts, int]:
    """Put the questions to the judge, or take its verdicts from the file of an earlier run."""
    sources = sorted({answered.rows[0].source for prompts in answers.values() for answered in prompts.values()})
    told = asked.with_system(instruction)
    job = Job(" + ".join(sources), asked.name, {**told.parameters, "wording": WORDING})
    outcome = ask_all(arguments, told, job, questions, arguments.verdicts or f"{output}.verdicts.jsonl")
    rows = {row.key: row for row in outcome.rows}
    keyed = ((question, job.key(question, 1)) for question in questions)
    return {(one.prompt, one.identity): rows[key] for one, key in keyed if key in rows}, outcome.code


if __name__ == "__main__":
    raise SystemExit(main())
