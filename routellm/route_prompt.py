"""`routellm route`: which model a prompt would go to, and why. No model is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from routellm.commands import CommandParser, command_parser, run_command, share
from routellm.config import load_config
from routellm.decider import Decider
from routellm.errors import ConfigError
from routellm.routers.routers import CONSTANT_PART, ROUTER_CLS
from routellm.types import Decision, ModelPair

_SHOWN_PARTS = 6

_EXAMPLES = """
routellm route "Prove that the square root of 2 is irrational."
routellm route --strong-share 0.2 --strong-model gpt-4o --weak-model groq/llama-3.1-8b-instant "Hi there"
routellm route --threshold 0.6 < question.txt
routellm route --json "What is 2 + 2?"
routellm route --lines < prompts.txt
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.route_prompt") -> CommandParser:
    """The command's parser."""
    parser = command_parser(
        prog, "Say which model a prompt would go to, and why. No model is called.", _EXAMPLES, _run, "[PROMPT]"
    )
    add = parser.add_argument
    add(
        "prompt", nargs="?", metavar="PROMPT", help="the prompt; '-', or nothing while input is piped in, reads standard input"
    )
    add("--router", default="mf", metavar="NAME", help="the router to ask (default: mf)")
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument("--threshold", type=float, metavar="T", help="win rate from 0 to 1 at which the strong model answers")
    rule.add_argument(
        "--strong-share",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="share of calls, from 0 to 1, that the strong model is to answer; gives the threshold by the quantiles that come "
        "with the router (default: 0.5)",
    )
    add("--strong-model", default="strong", metavar="NAME", help="what to call the strong model (default: strong)")
    add("--weak-model", default="weak", metavar="NAME", help="what to call the weak model (default: weak)")
    add("--config", metavar="FILE", help="YAML file with the routers' arguments")
    add(
        "--lines",
        action="store_true",
        help="each line of standard input is a prompt; print one line for each: model, win rate",
    )
    add("--json", action="store_true", help="print one JSON object a prompt")
    return parser


def describe(decision: Decision, origin: str, parts: Mapping[str, float]) -> str:
    """A decision for people.

    Args:
        decision: what was decided.
        origin: where its threshold is from.
        parts: what the router's `explain` says of the prompt.
    """
    lines = [f"model      {decision.model}"]
    if decision.win_rate is None:
        return "\n".join([*lines, "reason     the prompt holds no text to score, so the strong model answers"])
    relation = "at least" if decision.win_rate >= (decision.threshold or 0.0) else "below"
    lines += [
        f"win rate   {decision.win_rate:.5f}  of the strong model over the weak one, by the router {decision.router!r}",
        f"threshold  {decision.threshold:.5f}  {origin}",
        f"reason     the win rate is {relation} the threshold",
    ]
    moved = ((value, name) for name, value in parts.items() if value and name != CONSTANT_PART)
    present = sorted(moved, key=lambda part: -abs(part[0]))
    if present:
        shown = ", ".join(f"{name} {value:+.2f}" for value, name in present[:_SHOWN_PARTS])
        rest = f", {len(present) - _SHOWN_PARTS} smaller ones" if len(present) > _SHOWN_PARTS else ""
        start = f", from {parts[CONSTANT_PART]:+.2f}" if CONSTANT_PART in parts else ""
        lines.append(f"moved by   {shown}{rest} (log-odds{start}; + is towards the strong model)")
    return "\n".join(lines)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.lines and arguments.prompt not in (None, "-"):
        raise ConfigError("--lines reads prompts from standard input; leave the argument out.")
    prompts = _prompts(arguments)
    decider = Decider.load(
        [arguments.router],
        ModelPair(arguments.strong_model, arguments.weak_model),
        load_config(arguments.config, ROUTER_CLS) if arguments.config else None,
        default_strong_share=arguments.strong_share,
    )
    for prompt in prompts:
        decision = decider.decide_prompt(prompt, arguments.router, arguments.threshold)
        if arguments.json:
            line = msgspec.json.encode(decision.as_dict()).decode()
        elif arguments.lines:
            line = f"{decision.model}\t{'-' if decision.win_rate is None else format(decision.win_rate, '.5f')}"
        else:
            origin = _origin(decider, arguments) if arguments.threshold is None else "as given"
            line = describe(decision, origin, decider.routers[arguments.router].explain(prompt))
        sys.stdout.write(line + "\n")


def _prompts(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.prompt not in (None, "-"):
        return iter([arguments.prompt])
    if arguments.prompt is None and sys.stdin.isatty():
        raise ConfigError("Give a prompt, or pipe one in: echo 'What is 2 + 2?' | routellm route")
    lines = (line.decode("utf-8", "replace").rstrip("\r\n") for line in sys.stdin.buffer)
    return lines if arguments.lines else iter(["\n".join(lines)])


def _origin(decider: Decider, arguments: argparse.Namespace) -> str:
    quantiles = decider.quantiles(arguments.router)
    if quantiles is None:
        return f"1 - {arguments.strong_share:g}, since no score quantiles come with the router; see: routellm calibrate --help"
    data = f"on {quantiles.source} ({quantiles.prompts:,} prompts)" if quantiles.prompts else f"({quantiles.source})"
    return f"sends {arguments.strong_share:.1%} to the strong model {data}"


if __name__ == "__main__":
    sys.exit(main())
