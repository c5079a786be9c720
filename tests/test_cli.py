"""The `routellm` command as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import routellm
from routellm import cli
from routellm.routers.routers import ROUTER_CLS, Router

ROOT = Path(__file__).parent.parent


class LengthRouter(Router):
    """Longer prompts win more often; says so when asked."""

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return min(len(prompt) / 100, 1.0)

    def explain(self, prompt: str) -> dict[str, float]:
        return {"length": len(prompt) / 10, "code": 0.0, "words": -1.5, "constant": -2.0}


@pytest.fixture(autouse=True)
def length_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTER_CLS, "length", LengthRouter)


def run(*argv: str, stdin: str | bytes = b"", module: str = "routellm") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *argv],
        cwd=ROOT,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


# The command itself


def test_version_and_help() -> None:
    assert run("--version").stdout == f"routellm {routellm.__version__}\n"
    for argv in ((), ("--help",), ("-h",)):
        done = run(*argv)
        assert done.returncode == 0
        assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
        assert "examples:\n  routellm route" in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help_with_examples(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: routellm {command} ")
    assert "examples:\n  " in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_runs_as_a_module_too(command: str) -> None:
    module = cli.COMMANDS[command][0]
    done = run("--help", module=module)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module} ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rout"], "no such command: 'rout' (did you mean 'route'?)"),
        (["--verison"], "unrecognized arguments: --verison"),
        (["route", "--treshold", "0.5", "hi"], "unrecognized arguments: --treshold"),
        (["route", "hi", "--threshold", "high"], "argument --threshold: invalid float value: 'high'"),
        (["route", "hi", "--threshold", "2", "--router", "random"], "The threshold is 2.0; it must lie from 0"),
        (["route", "hi", "--threshold", "nan", "--router", "random"], "The threshold is nan"),
        (["route", "hi", "--threshold", "1", "--strong-share", "1"], "not allowed with argument --threshold"),
        (["route", "hi", "--strong-share", "20"], "did you mean 0.2?"),
        (["route", "hi", "--router", "rondom"], "Unknown router 'rondom' (did you mean 'random'?)"),
        (["route", "hi", "--config", "nowhere.yaml"], "'nowhere.yaml' can't be read"),
        (["route", "hi", "--router", "random", "--strong-model", ""], "The strong model's name is ''"),
        (["route", "hi", "--lines"], "--lines reads prompts from standard input"),
        (["calibrate", "--strong-model-pct", "50"], "'50' is not a fraction from 0 to 1; did you mean 0.5?"),
        (["calibrate", "--routers"], "argument --routers: expected at least one argument"),
        (["calibrate", "--task", "generat"], "invalid choice: 'generat'"),
        (["serve", "--port", "high"], "argument --port"),
    ],
)
def test_mistakes_take_one_line_and_exit_code_2(argv: list[str], said: str) -> None:
    done = run(*argv)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("routellm: error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


# routellm route


def route(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["route", *argv]) == 0
    return capsys.readouterr().out


def test_route_tells_model_win_rate_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    output = route(capsys, "--router", "length", "--threshold", "0.3", "--strong-model", "gpt-4o", "x" * 40)
    assert output.splitlines() == [
        "model      gpt-4o",
        "win rate   0.40000  of the strong model over the weak one, by the router 'length'",
        "threshold  0.30000  as given",
        "reason     the win rate is at least the threshold",
        "moved by   length +4.00, words -1.50 (log-odds, from -2.00; + is towards the strong model)",
    ]
    output = route(capsys, "--router", "length", "--threshold", "0.5", "--weak-model", "llama", "x" * 40)
    assert output.startswith("model      llama\n")
    assert "the win rate is below the threshold" in output


def test_route_says_where_its_threshold_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    output = route(capsys, "--router", "random", "--strong-share", "0.2", "hi")
    assert "threshold  0.80000  sends 20.0% to the strong model (uniform by definition)" in output
    output = route(capsys, "--router", "length", "--strong-share", "0.2", "hi")
    assert "threshold  0.80000  1 - 0.2, since no score quantiles come with the router" in output


def test_route_by_the_shipped_router_needs_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    output = route(capsys, "Prove that the square root of 2 is irrational.")
    assert output.startswith(("model      strong\n", "model      weak\n"))
    assert "by the router 'mf'" in output
    assert "moved by" in output


def test_route_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    decision = json.loads(route(capsys, "--router", "length", "--threshold", "0.3", "--json", "x" * 40))
    assert decision.pop("decision_us") > 0
    expected = {"model": "strong", "reason": "threshold", "router": "length", "threshold": 0.3, "win_rate": 0.4}
    assert decision == expected


@pytest.mark.parametrize("argument", [[], ["-"]])
def test_route_reads_a_prompt_from_standard_input(argument: list[str]) -> None:
    done = run("route", "--router", "random", "--threshold", "0", "--json", *argument, stdin="two\nlines\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "strong"


@pytest.mark.parametrize("stdin", ["", "\n", " "])
def test_route_without_text_says_so(stdin: str) -> None:
    done = run("route", "--router", "random", "--threshold", "1", "-", stdin=stdin)
    assert done.returncode == 0
    if not stdin.strip("\n"):
        assert done.stdout.splitlines() == [
            "model      strong",
            "reason     the prompt holds no text to score, so the strong model answers",
        ]


def test_route_takes_a_prompt_a_line() -> None:
    done = run("route", "--router", "random", "--threshold", "0", "--lines", stdin="one\n\nthree\r\nfour")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [model for model, _ in lines] == ["strong"] * 4
    assert [rate == "-" for _, rate in lines] == [False, True, False, False]


def test_route_takes_any_bytes() -> None:
    done = run("route", "--router", "random", "--threshold", "0", stdin=b"\xff\xfe\x00 \xed\xa0\x80 " + "Привет".encode())
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "routellm", "route", "--router", "random", b"\xff\xfe"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )  # type: ignore[assignment]
    assert done.returncode == 0, done.stderr
