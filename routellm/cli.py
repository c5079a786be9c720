"""The `routellm` command: a table of commands, each in a module of its own that is imported when the command is chosen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from routellm import __version__
from routellm.commands import CommandParser, command_parser, run_command
from routellm.errors import did_you_mean

COMMANDS = {
    "route": ("routellm.route_prompt", "score prompts and say which model would answer, without calling any"),
    "serve": ("routellm.openai_server", "serve OpenAI's and Anthropic's APIs, and send each request to one of two models"),
    "usage": ("routellm.ledger.usage", "sum up the ledger: requests, tokens, dollars, and what routing saved"),
    "logs": ("routellm.ledger.logs", "export the ledger's requests for calibration, evaluation and training"),
    "keys": ("routellm.keys.command", "create, list, rotate and revoke the keys that clients need"),
    "adapt": ("routellm.training.adapt", "fit a shipped router to your own traffic from few labels"),
    "train": ("routellm.training.train", "train a router on your own preferences, scores or ratings"),
    "evaluate": ("routellm.evals.evaluate", "measure routers on benchmarks, with intervals, tables, plots and a report"),
    "responses": ("routellm.evals.collecting.responses", "run a benchmark's prompts through a model"),
    "grade": ("routellm.evals.collecting.grade", "grade collected responses against right answers"),
    "judge": ("routellm.evals.collecting.judge", "have a judge model grade answers or compare two models"),
    "contamination": ("routellm.evals.contamination", "find training prompts that are near-copies of a benchmark's"),
    "calibrate": ("routellm.calibrate_threshold", "find the threshold that gives a wanted share of strong calls"),
}
"""Command -> (module with `build_parser(prog)`, summary)."""

_DESCRIPTION = "Send each prompt to the model that it takes, and no dearer one."
_EXAMPLES = """
routellm route "What is the capital of France?"
routellm serve --strong-model gpt-4o --weak-model groq/llama-3.1-8b-instant
routellm calibrate --routers mf --strong-model-pct 0.5
routellm serve --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `routellm` with `argv` (default: the process's own arguments) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        room = import_module(COMMANDS[arguments[0]][0])
        return run_command(partial(room.build_parser, f"routellm {arguments[0]}"), arguments[1:])
    return run_command(build_parser, arguments)


def build_parser(prog: str = "routellm") -> CommandParser:
    """The parser of everything but the commands' own arguments."""
    listed = "\n".join(f"  {name:<13} {summary}" for name, (_, summary) in COMMANDS.items())
    parser = command_parser(prog, f"{_DESCRIPTION}\n\ncommands:\n{listed}", _EXAMPLES, _no_command, "COMMAND ...")
    parser.add_argument("--version", action="version", version=f"routellm {__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", type=_command, help=argparse.SUPPRESS)
    return parser


def _no_command(arguments: argparse.Namespace) -> None:
    build_parser().print_help()


def _command(name: str) -> str:
    raise argparse.ArgumentTypeError(
        f"no such command: {name!r}{did_you_mean(name, COMMANDS)}; choose from {', '.join(COMMANDS)}"
    )


if __name__ == "__main__":
    sys.exit(main())
