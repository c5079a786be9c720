"""What every command of this package has in common: help with worked examples, errors in one line, exit codes.

A command is a module with `build_parser(prog)`, which makes its parser by `command_parser`. Its `main` is::

    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(build_parser, argv)
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from routellm.errors import ConfigError, RequestError, RouteLLMError, UnknownNameError

OK = 0
FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, and below 128 + SIGPIPE: what a shell reports for programs that these signals end
BROKEN_PIPE = 141

_USAGE_ERRORS = (ConfigError, RequestError, UnknownNameError)


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors take one line and name the help to read."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, error_line(f"{message} (see: {self.prog} --help)"))


def command_parser(
    prog: str, description: str, examples: str, run: Callable[[argparse.Namespace], int | None], positional: str = ""
) -> CommandParser:
    """A parser for one command.

    Args:
        prog: the command as a user types it ("routellm calibrate").
        description: what it does.
        examples: worked examples, one a line, that close the help.
        run: takes the parsed arguments; returns an exit code, None meaning 0.
        positional: what the usage line shows beside the options ("[PROMPT]").
    """
    indented = "\n".join(f"  {line}".rstrip() for line in examples.strip().splitlines())
    parser = CommandParser(
        prog=prog,
        usage=f"{prog} [OPTIONS] {positional}".rstrip(),  # the options are listed right below
        description=description,
        epilog=f"examples:\n{indented}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def run_command(build_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None = None) -> int:
    """Parse `argv` (default: the process's own) and run the command; every expected error becomes one line on stderr.

    Returns:
        The exit code: 0; 2 for a mistake in arguments, configuration or request; 1 for any other failure; 130 after Ctrl-C.
    """
    try:
        arguments = build_parser().parse_args(argv)
        code = arguments.run(arguments)
        sys.stdout.flush()  # here, so that a closed pipe shows here and not while the interpreter shuts down
    except RouteLLMError as error:
        sys.stderr.write(error_line(str(error)))
        return USAGE if isinstance(error, _USAGE_ERRORS) else FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader had enough: `routellm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return OK if code is None else int(code)


def share(text: str) -> float:
    """An argument's `type=` for a share of calls: a fraction from 0 to 1."""
    number = text.rstrip("%")
    try:
        value = float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1") from None
    if 0.0 <= value <= 1.0 and number == text:
        return value
    meant = f"; did you mean {value / 100:g}?" if 0.0 <= value <= 100.0 else ""
    raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1{meant}")


def error_line(message: str) -> str:
    """`routellm: error: MESSAGE`, whatever line breaks the message had."""
    return f"routellm: error: {' '.join(message.split())}\n"
