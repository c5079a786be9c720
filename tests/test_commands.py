from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from routellm.commands import CommandParser, command_parser, run_command, share
from routellm.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    ModelNotFoundError,
    RequestError,
    UnknownNameError,
    UpstreamError,
)

ROOT = Path(__file__).parent.parent


def command(outcome: object) -> CommandParser:
    def run(arguments: argparse.Namespace) -> int | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[return-value]

    return command_parser("routellm try", "Tries.", "routellm try this\n\n# and that", run)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (None, 0),
        (0, 0),
        (3, 3),
        (ConfigError("x"), 2),
        (MissingExtraError("x", "hub"), 2),
        (RequestError("x"), 2),
        (ModelNotFoundError("x", ["y"]), 2),
        (UnknownNameError("router", "x", ["y"]), 2),
        (CheckpointError("x"), 1),
        (DataError("x"), 1),
        (UpstreamError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_every_outcome_has_its_exit_code(outcome: object, code: int) -> None:
    assert run_command(lambda: command(outcome), []) == code


def test_an_error_takes_one_line_whatever_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(lambda: command(ConfigError("first\n  second\tthird")), [])
    captured = capsys.readouterr()
    assert captured.err == "routellm: error: first second third\n"
    assert captured.out == ""


def test_a_fault_of_our_own_is_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: command(ZeroDivisionError()), [])


@pytest.mark.parametrize("argv", [["--no-such"], ["extra"]])
def test_wrong_arguments_take_one_line_and_name_the_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: command(None), argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("routellm: error: unrecognized arguments: ")
    assert error.endswith("(see: routellm try --help)\n")
    assert error.count("\n") == 1


def test_help_ends_in_worked_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: command(None), ["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.endswith("examples:\n  routellm try this\n\n  # and that\n")


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)])
def test_a_share_is_a_fraction(text: str, value: float) -> None:
    assert share(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("50", "did you mean 0.5?"),
        ("50%", "did you mean 0.5?"),
        ("0.5%", "did you mean 0.005?"),
        ("100", "did you mean 1?"),
        ("-0.1", "is not a fraction from 0 to 1"),
        ("500", "is not a fraction from 0 to 1"),
        ("nan", "is not a fraction from 0 to 1"),
        ("half", "is not a number from 0 to 1"),
    ],
)
def test_what_is_no_share_is_told_what_was_meant(text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        share(text)
    assert str(caught.value).endswith(said)
    assert repr(text) in str(caught.value)


ENDLESS = """
import sys
from routellm.commands import command_parser, run_command

def run(arguments):
    while True:
        sys.stdout.write("more\\n" * 1000)

sys.exit(run_command(lambda: command_parser("p", "d", "e", run), []))
"""


def test_a_reader_that_had_enough_ends_the_command_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline() == "more\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
