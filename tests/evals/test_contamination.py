"""The command, from a training file to a list that benchmarks and trainers read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routellm.commands import FAILURE, OK, USAGE
from routellm.evals.benchmarks.factory import load_benchmark, open_benchmark
from routellm.evals.contamination import check, main
from routellm.tables import write_table
from routellm.training.overlap import prompt_hash, read_overlaps

LEAKED = "In which year did the first steam engine of the town run for more than nine whole days, and who had built it?"
CLEAN = "Name three birds that sleep while they fly."
TRAIN = ["How do I boil an egg?", f"Solve this. {LEAKED} Explain.", CLEAN[:10], "", json.dumps([LEAKED, "And then?"])]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with train.jsonl and two benchmarks, into which the test has changed."""
    write_table(tmp_path / "train.jsonl", {"prompt": TRAIN, "source": ["x"] * len(TRAIN)})
    write_table(tmp_path / "leaky.csv", {"prompt": [CLEAN, LEAKED, "A third one?"], "s": [1, 0, 1], "w": [0, 0, 1]})
    write_table(tmp_path / "clean.csv", {"prompt": [CLEAN, "A third one?"], "s": [1, 0], "w": [0, 0]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_names_rows_and_prompts(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--train", "train.jsonl", "--benchmark", "leaky.csv", "clean.csv"]) == OK
    overlaps = read_overlaps(files / "contamination.jsonl")
    assert {(one.train_row, one.benchmark) for one in overlaps} == {(2, "leaky.csv"), (5, "leaky.csv")}
    assert {one.prompt_sha256 for one in overlaps} == {prompt_hash(LEAKED)}
    # The hash is of what a trainer takes for the prompt: of a list of turns, the first.
    assert prompt_hash(LEAKED) in {one.train_sha256 for one in overlaps if one.train_row == 5}
    assert "steam" not in (files / "contamination.jsonl").read_text()
    output = capsys.readouterr().out
    assert "train.jsonl: 5 rows" in output
    assert "1 of 3" in output
    assert "0 of 2" in output
    assert "overlaps written to contamination.jsonl" in output


def test_the_list_can_be_left_out_of_the_benchmark(files: Path) -> None:
    assert main(["--train", "train.jsonl", "--benchmark", "leaky.csv", "--output", "found.jsonl"]) == OK
    data = load_benchmark(open_benchmark("leaky.csv"), exclude="found.jsonl")
    assert LEAKED not in data.prompts
    assert data.dropped == {"in a contamination list": 1}


def test_limits_are_flags(files: Path) -> None:
    common = ["--train", "train.jsonl", "--benchmark", "leaky.csv"]
    assert main([*common, "--min-cosine", "1", "--min-share", "1"]) == OK
    strict = {(one.train_row, one.measure) for one in read_overlaps("contamination.jsonl")}
    assert main([*common, "--min-cosine", "0.2", "--min-share", "0"]) == OK
    loose = {(one.train_row, one.measure) for one in read_overlaps("contamination.jsonl")}
    assert strict < loose
    assert (2, "ngram") in strict


def test_another_column_can_hold_the_prompts(files: Path) -> None:
    write_table("other.csv", {"question": [LEAKED]})
    assert main(["--train", "other.csv", "--prompt-column", "question", "--benchmark", "leaky.csv"]) == OK
    assert {one.train_row for one in read_overlaps("contamination.jsonl")} == {1}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--train", "none.jsonl", "--benchmark", "leaky.csv"], FAILURE, "no file 'none.jsonl'"),
        (["--train", "train.jsonl", "--benchmark", "mmul"], USAGE, "did you mean 'mmlu'?"),
        (["--train", "train.jsonl", "--benchmark", "none.csv"], FAILURE, "no benchmark file 'none.csv'"),
        (["--train", "train.jsonl", "--benchmark", "leaky.csv", "--output", "no/such.jsonl"], FAILURE, "can't be written"),
        (["--train", "train.jsonl", "--benchmark", "leaky.csv", "--output", "list.txt"], FAILURE, "of no known kind"),
        (
            ["--train", "train.jsonl", "--benchmark", "leaky.csv", "--prompt-column", "promt"],
            FAILURE,
            "did you mean 'prompt'?",
        ),
        (["--train", "empty.jsonl", "--benchmark", "leaky.csv"], FAILURE, "empty.jsonl has no rows"),
        (["--train", "train.jsonl", "--benchmark", "mmlu", "--data-mirror", "."], FAILURE, "The mirror '.' does not give"),
    ],
)
def test_bad_input_is_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (files / "empty.jsonl").write_text("")
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (files / "contamination.jsonl").exists()


@pytest.mark.parametrize("limit", ["95", "-1", "nan", "high"])
def test_a_limit_is_a_fraction(files: Path, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--train", "train.jsonl", "--benchmark", "leaky.csv", f"--min-cosine={limit}"])
    assert caught.value.code == USAGE
    assert "from 0 to 1" in capsys.readouterr().err


def test_several_benchmarks_are_searched_in_one_reading() -> None:
    overlaps, count = check(iter(TRAIN), {"one": [LEAKED], "two": [CLEAN, LEAKED]})
    assert count == len(TRAIN)
    assert {one.benchmark for one in overlaps if one.train_row == 2} == {"one", "two"}
