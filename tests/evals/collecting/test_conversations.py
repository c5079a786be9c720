from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from routellm.downloads import RemoteFile
from routellm.errors import DataError
from routellm.evals.benchmarks.base import BENCHMARKS, Benchmark, BenchmarkData
from routellm.evals.collecting.conversations import read_questions
from routellm.types import ModelPair
from tests.conftest import require
from tests.evals.collecting.stage import write_jsonl


def test_prompts_of_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "domain", "answer"], ["one", "d1", "x"], ["two", "", "y"]])
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}, {"prompt": ["two", "and then?"], "category": "math"}])
    texts, table, lines = (read_questions(str(tmp_path / f"p.{kind}")) for kind in ("txt", "csv", "jsonl"))
    assert texts.source == "p.txt"
    assert [one.turns for one in texts.conversations] == [("one",), ("two",)]
    assert [(one.prompt, dict(one.labels)) for one in table.conversations] == [
        ("one", {"domain": "d1"}),
        ("two", {"domain": ""}),
    ]
    assert [one.turns for one in lines.conversations] == [("one",), ("two", "and then?")]


def test_prompts_of_a_parquet_file(tmp_path: Path) -> None:
    pyarrow = require("pyarrow")
    parquet = require("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"prompt": [["one", "more"], ["two"]]}), tmp_path / "p.parquet")
    assert [one.turns for one in read_questions(str(tmp_path / "p.parquet")).conversations] == [("one", "more"), ("two",)]


def test_mt_benchs_own_layout_and_labels(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "q.jsonl", [{"question_id": 1, "category": "math", "turns": ["a", "b"]}])
    (one,) = read_questions(file).conversations
    assert (one.prompt, one.turns, one.labels) == ("a", ("a", "b"), {"category": "math"})


def test_repeated_prompts_are_asked_once_and_a_limit_takes_the_first(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\none\nthree\n")
    read = read_questions(str(tmp_path / "p.txt"), limit=2)
    assert [one.prompt for one in read.conversations] == ["one", "two"]
    assert read.repeated == 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "  "}, "row 2, column 'prompt': the prompt is empty"),
        ({"prompt": None}, "must be a text or a list of texts, not None"),
        ({"prompt": 7}, "must be a text or a list of texts, not 7"),
        ({"prompt": ["a", ""]}, "the prompt is empty"),
        ({"prompt": []}, "the list of turns is empty"),
        ({"prompt": "half \ud83d"}, "half a character"),
    ],
)
def test_prompts_that_can_not_be_asked_are_named(tmp_path: Path, row: dict[str, object], told: str) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(DataError, match=told):
        read_questions(file)


def test_sources_that_do_not_exist_or_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no benchmark and no file 'gsm8'.*did you mean 'gsm8k'"):
        read_questions("gsm8")
    (tmp_path / "p.txt").write_text("")
    with pytest.raises(DataError, match="holds no prompt"):
        read_questions(str(tmp_path / "p.txt"))
    with pytest.raises(DataError, match=r"no column 'prompt'.*It has: question"):
        read_questions(write_jsonl(tmp_path / "p.jsonl", [{"question": "x"}]))


def test_a_benchmarks_prompts_come_with_later_turns_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "files" / "question.jsonl"
    file.parent.mkdir()
    write_jsonl(file, [{"turns": ["a", "a2"], "category": "x"}, {"turns": ["left out", "b2"], "category": "y"}])
    content = file.read_bytes()

    class Toy(Benchmark):
        def files(self) -> Sequence[RemoteFile]:
            return [RemoteFile("http://127.0.0.1/files/question.jsonl", len(content), hashlib.sha256(content).hexdigest())]

        def read(self, paths: Sequence[Path]) -> BenchmarkData:
            return BenchmarkData(("a", "single"), {"m": np.array([1.0, 0.0])}, {"category": ("x", "z")})

        def default_pair(self) -> ModelPair | None:
            return None

    monkeypatch.setitem(BENCHMARKS, "toy", Toy)
    monkeypatch.setenv("ROUTELLM_DATA_MIRROR", str(tmp_path))
    read = read_questions("toy")
    assert read.source == "toy"
    assert [(one.turns, one.labels) for one in read.conversations] == [
        (("a", "a2"), {"category": "x"}),
        (("single",), {"category": "z"}),
    ]
