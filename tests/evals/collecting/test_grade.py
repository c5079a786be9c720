from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import ConfigError, DataError
from routellm.evals.benchmarks.file import FileBenchmark
from routellm.evals.collecting.grade import main
from routellm.evals.collecting.graders import open_grader
from routellm.evals.collecting.journal import Failure, Journal, Row, call_key
from tests.conftest import require
from tests.evals.collecting.stage import write_jsonl

MMLU = "How many?\nA. 0\nB. 4\nC. 2\nD. 6\nAnswer:"


def write_answers(path: Path, model: str, answers: dict[str, str | None], **fields: Any) -> str:
    """A file as `routellm responses` writes it; None stands for a failed call."""
    parameters = fields.pop("parameters", {})
    with Journal(path, "s", model, parameters) as journal:
        for prompt, text in answers.items():
            outcome: dict[str, Any] = {"status": "ok", "response": text}
            if text is None:
                outcome = {"status": "failed", "error": Failure(500, "broken")}
            row = {
                "key": call_key("s", (), (prompt,), model, {}),
                "source": "s",
                "model": model,
                "parameters": parameters,
                "prompt": prompt,
                "turn": 1,
                "turns": 1,
                "question": prompt,
            }
            journal.append(Row(**{**row, **outcome, **fields}))
    return str(path)


@pytest.mark.parametrize(
    ("name", "pattern", "prompt", "answer", "reference", "right"),
    [
        ("option", None, MMLU, "The answer is B.", "B", True),
        ("option", None, MMLU, "(C)", " (b) ", False),
        ("option", None, MMLU, "B or C", "B", None),
        ("option", None, MMLU, "E", "B", None),
        ("number", None, "Q", "It costs $18.00", "9 * 2 = 18\n#### 18", True),
        ("number", None, "Q", "It costs $18.50", 18.5, True),
        ("number", None, "Q", "#### 1,800", 18, False),
        ("number", None, "Q", "Nothing", 18, None),
        ("exact", None, "Q", " New \n York ", "New York", True),
        ("exact", None, "Q", "new york", "New York", False),
        ("exact", None, "Q", "<think>Hm</think>New York", "New York", True),
        ("exact", None, "Q", "  ", "New York", None),
        ("regex", r"City: (\w+)", "Q", "City: Rome. City: Rome", "Rome", True),
        ("regex", r"City: (\w+)", "Q", "City: Rome. City: Bonn", "Rome", None),
        ("regex", r"City: (\w+)", "Q", "Rome", "Rome", None),
        ("regex", "yes|no", "Q", "well, yes", "no", False),
    ],
)
def test_graders(name: str, pattern: str | None, prompt: str, answer: str, reference: object, right: bool | None) -> None:
    assert open_grader(name, pattern).grade(answer, reference, prompt) is right


@pytest.mark.parametrize(
    ("name", "prompt", "reference", "expected"),
    [
        ("option", MMLU, "E", "the letter of an option"),
        ("option", MMLU, 1, "the letter of an option"),
        ("option", MMLU, "4", "the letter of an option"),
        ("number", "Q", "eighteen", "a number"),
        ("number", "Q", "1 or 2", "a number"),
    ],
)
def test_references_that_make_no_sense_are_no_wrong_answers(name: str, prompt: str, reference: object, expected: str) -> None:
    with pytest.raises(DataError, match=f"reference {reference!r} must be {expected}"):
        open_grader(name).grade("anything", reference, prompt)


def test_a_pattern_goes_with_regex_alone() -> None:
    for name, pattern in (("exact", "x"), ("regex", None)):
        with pytest.raises(ConfigError, match="--pattern goes with"):
            open_grader(name, pattern)
    with pytest.raises(ConfigError, match="no regular expression"):
        open_grader("regex", "(")


def test_number_values_are_exact() -> None:
    assert open_grader("number").read("0.1", "") == Fraction(1, 10)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_several_models_make_one_benchmark_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    if kind == "parquet":
        require("pyarrow")
    good = write_answers(
        tmp_path / "a.jsonl",
        "good",
        {"p1": "1", "p2": "2", "p3": "3", "p4": "4", "p5": "5"},
        cost=0.5,
        labels={"category": "x"},
    )
    poor = write_answers(tmp_path / "b.jsonl", "poor", {"p1": "9", "p2": "no idea", "p3": None, "p5": None, "p6": "6"})
    gold = write_jsonl(tmp_path / "gold.jsonl", [{"prompt": f" p{n}\n", "answer": n} for n in (1, 2, 3, 5)])
    output = tmp_path / f"out.{kind}"
    assert main([good, poor, "--grader", "number", "--references", gold, "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert "good: 4 right, 0 wrong, 1 without reference" in said
    assert "poor: 0 right, 1 wrong, 1 unparsable, 2 failed, 1 without reference" in said
    assert "can't read: 'p2' was answered ...'no idea'" in said
    data = FileBenchmark(output).read()
    assert data.prompts == ("p1", "p2", "p3", "p5")
    assert data.qualities["good"].tolist() == [1, 1, 1, 1]
    assert data.qualities["poor"].tolist()[0] == 0
    assert [value == value for value in data.qualities["poor"]] == [True, False, False, False]  # NaN: no result
    assert data.costs["good"].tolist() == [0.5] * 4
    assert "poor" not in data.costs


def test_unparsable_answers_can_be_counted_as_wrong_but_failed_calls_never(tmp_path: Path) -> None:
    one = write_answers(tmp_path / "a.jsonl", "one", {"p1": "1", "p2": "?", "p3": None})
    two = write_answers(tmp_path / "b.jsonl", "two", {"p1": "2", "p2": "2", "p3": "3"})
    gold = write_jsonl(tmp_path / "gold.jsonl", [{"prompt": f"p{n}", "gold": str(n)} for n in (1, 2, 3)])
    arguments = [one, two, "--grader", "number", "--references", gold, "--reference-column", "gold"]
    output = str(tmp_path / "out.jsonl")
    assert main([*arguments, "--output", output, "--unparsable", "wrong"]) == 0
    values = FileBenchmark(output).read().qualities["one"].tolist()
    assert values[:2] == [1, 0]
    assert values[2] != values[2]


def test_things_that_can_not_be_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = write_jsonl(tmp_path / "gold.jsonl", [{"prompt": "p1", "answer": 1}])
    answers = write_answers(tmp_path / "a.jsonl", "m", {"p1": "1"})
    arguments = ["--grader", "number", "--output", str(tmp_path / "out.jsonl"), "--references"]

    def told(*given: str) -> str:
        assert main([*given]) in (1, 2)
        return capsys.readouterr().err

    again = write_answers(tmp_path / "b.jsonl", "m", {"p1": "1"})
    assert "has answered the prompt 'p1' (turn 1) twice" in told(answers, again, *arguments, gold)
    turns = write_answers(tmp_path / "c.jsonl", "m", {"p1": "1"}, turns=2)
    assert "several turns; grade such answers with `routellm judge`" in told(turns, *arguments, gold)
    other = write_answers(tmp_path / "d.jsonl", "m", {"p9": "1"})
    assert "no result to write" in told(other, *arguments, gold)
    twice = write_jsonl(tmp_path / "twice.jsonl", [{"prompt": "p1", "answer": 1}, {"prompt": "p1 ", "answer": 2}])
    assert "another reference in an earlier row" in told(answers, *arguments, twice)
    lacking = write_jsonl(tmp_path / "lacking.jsonl", [{"prompt": "p1", "answer": None}])
    assert "one of them is missing" in told(answers, *arguments, lacking)
    assert "no column 'answer'" in told(answers, *arguments, write_jsonl(tmp_path / "x.jsonl", [{"prompt": "p", "gold": 1}]))
    assert "not a finished call" in told(gold, *arguments, gold)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "No finished call" in told(str(empty), *arguments, gold)


def test_different_parameters_of_one_model_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write_answers(tmp_path / f"{t}.jsonl", "m", {f"p{t}": "1"}, parameters={"temperature": t}) for t in (0, 1)]
    gold = write_jsonl(tmp_path / "gold.jsonl", [{"prompt": "p1", "answer": 1}])
    assert main([*files, "--grader", "number", "--references", gold, "--output", str(tmp_path / "o.jsonl")]) == 1
    assert "was asked with {'temperature': 1}" in capsys.readouterr().err
