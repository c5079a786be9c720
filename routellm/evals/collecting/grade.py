"""`routellm grade`: answers against references, into a file that `routellm evaluate --benchmark FILE` reads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from routellm.commands import CommandParser, command_parser, run_command
from routellm.errors import DataError
from routellm.evals.collecting.answers import Answered, Answers, ResultTable, read_answers, read_references
from routellm.evals.collecting.graders import GRADERS, Grader, open_grader
from routellm.evals.collecting.progress import say

_DESCRIPTION = """\
Grade the answers of one or more models, and write a benchmark file: `prompt`, and for each model a column of 1 and 0.

What can't be graded is counted, and left empty in that model's column: failed calls, prompts without a reference, and answers
that can't be read without guessing (--unparsable wrong counts those as 0). A prompt that no model has a grade for is left out.

References come from a file of yours with the columns `prompt` and `answer`: the public files of MMLU and GSM8K that this
package downloads hold no right answers, only whether two models gave them. The prompts must be the same texts.

graders:
  option   the letter of the option that the answer names ("B", "(B)", "The answer is B."), among those in the prompt
  number   the answer's result: "#### 42", else \\boxed{42}, else "the answer is 42", else its last number; 18.00 equals 18
  exact    the whole answer, white space aside
  regex    what --pattern finds (its first group, if it has one), compared as exact does"""

_EXAMPLES = """
routellm grade gpt-4o.jsonl llama.jsonl --grader number --references gsm8k-test.jsonl --output gsm8k.parquet
routellm grade gpt-4o.jsonl llama.jsonl --grader option --references mmlu.csv --reference-column gold --output mmlu.csv
routellm evaluate --benchmark gsm8k.parquet --strong-model gpt-4o --weak-model groq/llama-3.1-8b-instant
"""

_SHOWN = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.evals.collecting.grade") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, _run, "RESPONSES.jsonl ...")
    add = parser.add_argument
    add("responses", nargs="+", metavar="RESPONSES.jsonl", help="files that `routellm responses` wrote")
    add("--grader", required=True, choices=GRADERS, help="how an answer is read")
    add("--pattern", metavar="REGEX", help="what --grader regex looks for")
    add("--references", required=True, metavar="FILE", help="the right answers: .jsonl, .csv or .parquet")
    add("--reference-column", default="answer", metavar="NAME", help="its column of right answers (default: %(default)s)")
    add("--unparsable", choices=("left-out", "wrong"), default="left-out", help="what an unreadable answer counts as")
    add("--output", required=True, metavar="FILE", help="the benchmark file: .jsonl, .csv or .parquet")
    return parser


def grade_answers(answers: Answers, references: dict[str, object], grader: Grader, unparsable_is_wrong: bool) -> ResultTable:
    """Grade every answer.

    Raises:
        DataError: a conversation has several turns, which no grader here can grade, or a reference makes no sense.
    """
    table = ResultTable()
    for model, prompts in answers.items():
        for prompt, answered in prompts.items():
            outcome = _outcome(prompt, answered, references, grader)
            graded = {"right": 1.0, "wrong": 0.0, "unparsable": 0.0 if unparsable_is_wrong else None}
            table.add(model, prompt, answered, outcome, graded.get(outcome))
    return table


def _outcome(prompt: str, answered: Answered, references: dict[str, object], grader: Grader) -> str:
    if answered.rows[0].turns > 1:
        raise DataError(f"The prompt {prompt!r:.80} has several turns; grade such answers with `routellm judge`.")
    if answered.failed:
        return "failed"
    if prompt.strip() not in references:
        return "without reference"
    right = grader.grade(answered.text, references[prompt.strip()], prompt)
    return "unparsable" if right is None else "right" if right else "wrong"


def _run(arguments: argparse.Namespace) -> None:
    grader = open_grader(arguments.grader, arguments.pattern)
    answers = read_answers(arguments.responses)
    references = read_references(arguments.references, arguments.reference_column)
    table = grade_answers(answers, references, grader, arguments.unparsable == "wrong")
    for model, counts in table.counts.items():
        say(f"{model}: {', '.join(f'{counts[what]:,} {what}' for what in _order(counts))}")
        _show_unparsable(answers[model], grader)
    written = table.write(arguments.output)
    say(f"{written:,} prompts are in {arguments.output}.")


def _order(counts: dict[str, int]) -> list[str]:
    return ["right", "wrong", *(what for what in ("unparsable", "failed", "without reference") if counts.get(what))]


def _show_unparsable(prompts: dict[str, Answered], grader: Grader) -> None:
    bad = [(prompt, one.text) for prompt, one in prompts.items() if not one.failed and grader.read(one.text, prompt) is None]
    for prompt, text in bad[:_SHOWN]:
        say(f"  can't read: {prompt[:60]!r} was answered ...{text[-80:]!r}")


if __name__ == "__main__":
    raise SystemExit(main())
