import json
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import DataError
from routellm.training.preferences import Preference, read_preferences


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_battles_layout(tmp_path: Path) -> None:
    base = {"prompt": " hi ", "model_a": "x", "model_b": "y"}
    winners = ["model_a", "model_b", "tie", "tie (bothbad)"]
    read = read_preferences([write(tmp_path / "b.jsonl", [{**base, "winner": winner} for winner in winners])])
    assert [row.outcome for row in read.rows] == ["first", "second", "tie", "tie"]
    assert read.rows[0] == Preference("hi", "x", "y", "first", "b")


def test_published_layout_with_vote_columns_and_turns(tmp_path: Path) -> None:
    row = {"prompt": json.dumps(["first turn", "second turn"]), "model_a": "x", "model_b": "y"}
    votes = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    file = write(tmp_path / "b.jsonl", [{**row, **dict(zip(names, vote, strict=True))} for vote in votes])
    read = read_preferences([file])
    assert [(r.prompt, r.outcome) for r in read.rows] == [
        ("first turn", "first"),
        ("first turn", "second"),
        ("first turn", "tie"),
    ]


def test_pairs_layout_by_name_and_by_role(tmp_path: Path) -> None:
    outcomes = ["strong", "weak", "tie", "tie_or_weak"]
    rows = [{"prompt": "p", "strong": "gpt", "weak": "llama", "outcome": o, "source": "votes"} for o in outcomes]
    file = write(tmp_path / "p.jsonl", rows)
    named, by_role = read_preferences([file]).rows, read_preferences([file], by_role=True).rows
    assert [row.outcome for row in named] == ["first", "second", "tie", "tie"]
    assert (named[0].first, named[0].second, named[0].source) == ("gpt", "llama", "votes")
    assert {(row.first, row.second) for row in by_role} == {("strong", "weak")}


def test_rows_that_touch_a_benchmark_or_lack_something_are_counted_not_used(tmp_path: Path) -> None:
    good = {"prompt": "p", "model_a": "x", "model_b": "y", "winner": "tie", "contam": ""}
    bad = [{"contam": "mmlu"}, {"prompt": "  "}, {"prompt": None}, {"model_b": "x"}, {"model_a": None}]
    read = read_preferences([write(tmp_path / "b.jsonl", [good, *({**good, **change} for change in bad)])])
    assert len(read.rows) == 1
    assert dict(read.dropped) == {"touches a benchmark": 1, "no prompt": 2, "not two models": 2}


def test_unknown_outcome_names_the_row_and_the_known_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "b.jsonl", [{"prompt": "p", "model_a": "x", "model_b": "y", "winner": "alpha"}])
    with pytest.raises(DataError, match=r"row 1: the winner is 'alpha'; known are: model_a"):
        read_preferences([file])


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs the columns prompt, model_a.*It has: question, answer"):
        read_preferences([write(tmp_path / "b.jsonl", [{"question": 1, "answer": 2}])])


def test_a_file_with_nothing_usable(tmp_path: Path) -> None:
    row = {"prompt": "", "model_a": "x", "model_b": "y", "winner": "tie"}
    with pytest.raises(DataError, match=r"No usable row.*'no prompt': 1"):
        read_preferences([write(tmp_path / "b.jsonl", [row])])
