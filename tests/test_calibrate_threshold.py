from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from routellm.calibrate_threshold import Calibration, calibrate, main, read_scores, score_prompts
from routellm.calibration.quantiles import ScoreQuantiles
from routellm.errors import DataError
from routellm.routers.routers import ROUTER_CLS, Router
from tests.conftest import require

ROOT = Path(__file__).parent.parent
EXAMPLE = str(ROOT / "config.example.yaml")


class LengthRouter(Router):
    def calculate_strong_win_rate(self, prompt: str) -> float:
        return min(len(prompt) / 100, 1.0)


class BrokenRouter(Router):
    def calculate_strong_win_rate(self, prompt: str) -> float:
        return float("nan")


@pytest.fixture(autouse=True)
def user_routers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ROUTER_CLS, "length", LengthRouter)
    monkeypatch.setitem(ROUTER_CLS, "broken", BrokenRouter)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """Ten prompts of 10, 20, ..., 100 letters, hence of scores 0.1 to 1."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x" * size}) + "\n" for size in range(10, 101, 10)))
    return str(path)


def ok(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    code = main(argv)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def failed(capsys: pytest.CaptureFixture[str], code: int, *argv: str) -> str:
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("routellm: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# By the quantiles that come with a router


def test_the_documented_command_prints_the_documented_line(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--task", "calibrate", "--routers", "mf", "--strong-model-pct", "0.5", "--config", EXAMPLE]
    output = ok(capsys, *argv)
    first, second = output.splitlines()
    assert re.fullmatch(r"For 50\.0% strong model calls for mf, threshold = 0\.\d{5}", first)
    assert re.fullmatch(r"  achieved: 50\.0% on .+ \([\d,]+ prompts\)", second)
    assert ok(capsys, *argv[2:]) == output, "calibrate is the default task"
    assert ok(capsys, "--routers", "mf") == output, "as are half of the calls and the shipped checkpoint"


def test_several_routers_and_shares_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ok(capsys, "--routers", "random", "random", "mf", "--strong-model-pct", "0.25", "1").splitlines()
    assert lines[0] == "For 25.0% strong model calls for random, threshold = 0.75000"
    assert lines[1] == "  achieved: 25.0% (uniform by definition)"
    assert lines[2] == "For 100.0% strong model calls for random, threshold = 0.00000"
    assert [line.split(",")[0] for line in lines[4::2]] == [
        "For 25.0% strong model calls for mf",
        "For 100.0% strong model calls for mf",
    ]
    assert len(lines) == 8


def test_a_router_without_quantiles_asks_for_data(capsys: pytest.CaptureFixture[str]) -> None:
    error = failed(capsys, 2, "--routers", "random", "length")
    assert "No score quantiles come with: length. Give prompts to calibrate on: --dataset FILE." in error


# On data


def test_on_a_data_set_the_achieved_share_is_that_of_the_data(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = ok(capsys, "--routers", "length", "--strong-model-pct", "0.3", "0.34", "--dataset", prompts)
    assert output.splitlines() == [
        "For 30.0% strong model calls for length, threshold = 0.80000",
        f"  achieved: 30.0% on {prompts} (10 prompts)",
        "For 34.0% strong model calls for length, threshold = 0.80000",
        f"  achieved: 30.0% on {prompts} (10 prompts); no threshold comes nearer",
    ]


def test_tied_scores_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tied.txt"
    path.write_text("same\n" * 9 + "longer\n")
    output = ok(capsys, "--routers", "length", "--dataset", str(path))
    assert output.splitlines()[1] == f"  achieved: 10.0% on {path} (10 prompts); no threshold comes nearer"


def test_json_has_every_field(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = ok(capsys, "--routers", "length", "--strong-model-pct", "0.3", "--dataset", prompts, "--json")
    assert json.loads(output) == [
        {
            "router": "length",
            "strong_share": 0.3,
            "threshold": 0.8,
            "achieved_share": pytest.approx(0.3),
            "prompts": 10,
            "source": prompts,
        }
    ]


def test_what_is_out_of_the_ordinary_in_the_data_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "one"}\n{"q": ""}\n{"q": 3}\n{"q": "one"}\n{"q": ["two", "three"]}\n')
    assert main(["--routers", "length", "--dataset", str(path), "--column", "q"]) == 0
    captured = capsys.readouterr()
    assert "(3 prompts)" in captured.out
    assert [line.removeprefix(f"routellm: note: {path}: ") for line in captured.err.splitlines()] == [
        "left out 1 prompt without text (row 1)",
        "left out 1 value that can't be read as a prompt (row 2)",
        "counted 1 that repeat an earlier prompt again",
        "took 1 from lists of turns",
    ]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--dataset", "nowhere.jsonl"], 1, "There is no file 'nowhere.jsonl'"),
        (["--dataset", "PROMPTS", "--column", "promt"], 1, "has no column 'promt' (did you mean 'prompt'?). It has: prompt."),
        (["--routers", "lenght", "--dataset", "PROMPTS"], 2, "Unknown router 'lenght' (did you mean 'length'?)"),
        (["--routers", "broken", "--dataset", "PROMPTS"], 1, "'broken' gave scores that are not one number from 0 to 1"),
        (["--config", "nowhere.yaml"], 2, "'nowhere.yaml' can't be read"),
        (["--output", "x.csv"], 2, "--output goes with --task generate"),
        (["--scores", "PROMPTS"], 1, "has no column 'length'"),
        (["--task", "generate", "--scores", "PROMPTS"], 2, "--scores goes with --task calibrate"),
        (["--task", "generate", "--dataset", "PROMPTS", "--output", "x.xlsx"], 1, "must end in .jsonl or .csv or .parquet"),
        (["--task", "generate", "--dataset", "PROMPTS", "--output", "no/x.csv"], 1, "can't be written"),
    ],
)
def test_mistakes_take_one_line(
    argv: list[str], code: int, said: str, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [prompts if word == "PROMPTS" else word for word in argv]
    routers = [] if "--routers" in argv else ["--routers", "length"]
    assert said in failed(capsys, code, *routers, *argv)


# Scores in a file


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_generated_scores_calibrate_as_the_prompts_do(
    suffix: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if suffix == ".parquet":
        require("pyarrow")
    output = str(tmp_path / f"scores{suffix}")
    said = ok(capsys, "--task", "generate", "--routers", "length", "random", "--dataset", prompts, "--output", output)
    assert said == f"Wrote scores of 10 prompts by length, random to {output}\n"
    assert read_scores(output, ["length"])["length"].tolist() == [size / 100 for size in range(10, 101, 10)]
    shares = ["--strong-model-pct", "0.2", "0.7"]
    by_scores = json.loads(ok(capsys, "--routers", "length", "--scores", output, "--json", *shares))
    by_prompts = json.loads(ok(capsys, "--routers", "length", "--dataset", prompts, "--json", *shares))
    assert [{**one, "source": ""} for one in by_scores] == [{**one, "source": ""} for one in by_prompts]


def test_generated_scores_stand_beside_the_rows_of_their_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text('prompt\nabc\n""\nabcde\n')
    ok(capsys, "--task", "generate", "--routers", "length", "--dataset", str(path), "--output", "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["index", "length"], ["0", "0.03"], ["2", "0.05"]]


def test_generate_writes_here_where_no_output_is_named(
    prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ok(capsys, "--task", "generate", "--routers", "length", "--dataset", prompts, "--json")
    assert json.loads(said) == {"output": "scores.jsonl", "prompts": 10, "routers": ["length"]}
    assert json.loads((tmp_path / "scores.jsonl").read_text().splitlines()[0]) == {"index": 0, "length": 0.1}


@pytest.mark.parametrize("value", ["1.5", "-1", "high", "", "nan"])
def test_wrong_scores_are_named_with_their_row(value: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(f"index,mf\n0,0.5\n1,{value}\n")
    with pytest.raises(DataError, match=rf"row 1, column 'mf': {value!r} is not a number from 0 to 1"):
        read_scores(str(path), ["mf"])


def test_a_file_without_scores_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("index,mf\n")
    with pytest.raises(DataError, match="holds no scores"):
        read_scores(str(path), ["mf"])


# Pure functions


def test_scoring_goes_in_batches_and_tells_of_each() -> None:
    steps: list[int] = []
    prompts = ["x" * (size % 100) for size in range(600)]
    scores = score_prompts(LengthRouter(), "length", prompts, steps.append)
    assert scores.tolist() == [len(prompt) / 100 for prompt in prompts]
    assert (sum(steps), len(steps) > 1) == (600, True)
    assert score_prompts(LengthRouter(), "length", []).shape == (0,)


def test_a_router_that_gives_too_few_scores_is_named() -> None:
    class Short(LengthRouter):
        def calculate_strong_win_rates(self, prompts: object) -> np.ndarray:  # type: ignore[type-arg]
            return np.array([0.5])

    with pytest.raises(DataError, match="'short' gave scores that are not one number from 0 to 1 for each prompt"):
        score_prompts(Short(), "short", ["a", "b"])


def test_calibrate_takes_scores_or_quantiles_of_them() -> None:
    values = np.linspace(0.0, 1.0, 1001)
    by_scores = calibrate("r", 0.25, values, "here")
    by_quantiles = calibrate("r", 0.25, ScoreQuantiles.of(values, "here"))
    assert by_scores == Calibration("r", 0.25, pytest.approx(0.75, abs=0.002), pytest.approx(0.25, abs=0.001), 1001, "here")
    assert (by_quantiles.threshold, by_quantiles.source, by_quantiles.prompts) == (pytest.approx(0.75), "here", 1001)
