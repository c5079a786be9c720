import json
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import ConfigError, DataError
from routellm.tables import write_table
from routellm.training.layouts import Reading
from routellm.training.overlap import prompt_hash
from routellm.training.preferences import Preference
from routellm.training.reading import read_preferences
from tests.conftest import require
from tests.training.files import read, write

BATTLE = {"prompt": "p", "model_a": "x", "model_b": "y", "winner": "model_a"}


def test_battles_layout(tmp_path: Path) -> None:
    winners = ["model_a", "model_b", "tie", "tie (bothbad)"]
    found = read(tmp_path, [{**BATTLE, "prompt": " hi ", "winner": winner} for winner in winners])
    assert [row.outcome for row in found.rows] == ["first", "second", "tie", "tie"]
    assert found.rows[0] == Preference("hi", "x", "y", "first", "file")


@pytest.mark.parametrize("yes", [1, "1", True, 1.0, "1.0", "True"])
def test_published_layout_with_vote_columns_and_turns(tmp_path: Path, yes: Any) -> None:
    row = {"prompt": json.dumps(["first turn", "second turn"]), "model_a": "x", "model_b": "y"}
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    votes = [{name: yes if name == chosen else 0 for name in names} for chosen in names]
    found = read(tmp_path, [{**row, **vote} for vote in [*votes, dict.fromkeys(names, 0)]])
    assert [(r.prompt, r.outcome) for r in found.rows] == [(("first turn"), o) for o in ("first", "second", "tie")]
    assert dict(found.dropped) == {"no label": 1}


def test_pairs_layout_by_name_and_by_role(tmp_path: Path) -> None:
    outcomes = ["strong", "weak", "tie", "tie_or_weak"]
    rows = [{"prompt": "p", "strong": "gpt", "weak": "llama", "outcome": o, "source": "votes"} for o in outcomes]
    named, by_role = read(tmp_path, rows).rows, read(tmp_path, rows, Reading(by_role=True)).rows
    assert [row.outcome for row in named] == ["first", "second", "tie", "tie"]
    assert (named[0].first, named[0].second, named[0].source) == ("gpt", "llama", "votes")
    assert {(row.first, row.second) for row in by_role} == {("strong", "weak")}


def test_comparisons_of_the_pair_have_the_strong_model_first(tmp_path: Path) -> None:
    rows = [BATTLE, {**BATTLE, "model_a": "y", "model_b": "x"}, {**BATTLE, "model_a": "y", "model_b": "z"}]
    found = read(tmp_path, rows, Reading(strong="x", weak="y")).rows
    assert [(row.first, row.second, row.outcome) for row in found] == [
        ("x", "y", "first"),
        ("x", "y", "second"),
        ("y", "z", "first"),
    ]


def test_ratings_layout(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "rating": rating} for rating in (5, 4, "3", 1.0, None, "", float("nan"))]
    found = read(tmp_path, rows)
    assert [row.outcome for row in found.rows] == ["tie", "tie", "first", "first"]
    assert {(row.first, row.second) for row in found.rows} == {("strong", "weak")}
    assert dict(found.dropped) == {"no label": 3}
    stricter = read(tmp_path, rows, Reading(strong="gpt", weak="llama", good_enough=5))
    assert [row.outcome for row in stricter.rows] == ["tie", "first", "first", "first"]
    assert (stricter.rows[0].first, stricter.rows[0].second) == ("gpt", "llama")


def test_a_weight_says_how_much_a_row_counts(tmp_path: Path) -> None:
    pair = {"prompt": "p", "strong": "gpt", "weak": "llama", "outcome": "tie"}
    (tmp_path / "pairs").mkdir()
    found = read(tmp_path / "pairs", [{**pair, "weight": weight} for weight in (0.25, "2", 1)], Reading(by_role=True))
    assert [row.weight for row in found.rows] == [0.25, 2.0, 1.0]
    turned = read(tmp_path, [{**BATTLE, "weight": 0.5}], Reading(strong="y", weak="x")).rows
    assert turned == [Preference("p", "y", "x", "second", "file", 0.5)]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0, 0, None, "", "-0.5", "nan"])
def test_a_weight_that_is_no_number_above_0_drops_the_row_and_is_counted(tmp_path: Path, weight: Any) -> None:
    found = read(tmp_path, [{**BATTLE, "weight": 2.0}, {**BATTLE, "weight": weight}])
    assert [row.weight for row in found.rows] == [2.0]
    assert dict(found.dropped) == {"no weight above 0": 1}


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    row = {"question": "q", "prompt": "not this", "a": "x", "b": "y", "vote": "tie", "from": "there"}
    columns = {"prompt": "question", "model_a": "a", "model_b": "b", "winner": "vote", "source": "from"}
    assert read(tmp_path, [row], Reading(columns=columns)).rows == [Preference("q", "x", "y", "tie", "there")]


def test_a_mapping_serves_the_files_that_have_the_column(tmp_path: Path) -> None:
    other = {"question": "q", **{key: value for key, value in BATTLE.items() if key != "prompt"}}
    files = [write(tmp_path / "one.jsonl", [BATTLE]), write(tmp_path / "two.jsonl", [other])]
    found = read_preferences(files, Reading(columns={"prompt": "question"}))
    assert [row.prompt for row in found.rows] == ["p", "q"]
    assert (found.files, list(found.numbers)) == (files, [1, 1])


def test_rows_that_touch_a_benchmark_or_lack_something_are_counted_not_used(tmp_path: Path) -> None:
    good = {**BATTLE, "contam": ""}
    bad = [{"contam": "mmlu"}, {"prompt": "  "}, {"prompt": None}, {"model_b": "x"}, {"model_a": None}, {"winner": None}]
    found = read(tmp_path, [*({**good, **change} for change in bad), good])
    assert len(found.rows) == 1
    assert list(found.numbers) == [7]
    assert dict(found.dropped) == {"touches a benchmark": 1, "no prompt": 2, "not two models": 2, "no label": 1}


def test_excluded_prompts_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "b.jsonl", [BATTLE, {**BATTLE, "prompt": "other"}])
    found = read_preferences([file], exclude=frozenset({prompt_hash("p")}))
    assert [row.prompt for row in found.rows] == ["other"]
    assert dict(found.dropped) == {"on the list of prompts to leave out": 1}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        require("pyarrow")
    path = tmp_path / f"votes.{ending}"
    write_table(path, {name: [value] * 2 for name, value in BATTLE.items()})
    assert read_preferences([str(path)]).rows == [Preference("p", "x", "y", "first", "votes")] * 2


@pytest.mark.parametrize(
    ("rows", "reading", "error", "said"),
    [
        ([{**BATTLE, "winner": "alpha"}], None, DataError, r"row 1: the winner is 'alpha'; known are: model_a"),
        ([{"prompt": "p", "rating": 7}], None, DataError, r"row 1: the rating is 7; ratings go from 1 to 5"),
        ([{"prompt": "p", "rating": "good"}], None, DataError, r"row 1: the rating is 'good'; it must be a number"),
        ([{"question": 1, "answer": 2}], None, DataError, r"no known layout: it needs the columns prompt.*question, answer"),
        ([{"prompt": "p", "answer": "a", "b": "c"}], None, DataError, r"neither labels nor columns of numbers.*--column"),
        ([{**BATTLE, "prompt": ""}], None, DataError, r"No usable row.*'no prompt': 1"),
        ([], None, DataError, r"file.jsonl is empty"),
        ([{**BATTLE, "weight": "much"}], None, DataError, r"row 1: the weight is 'much'; it must be a number"),
        ([{**BATTLE, "weight": -1}], None, DataError, r"No usable row.*'no weight above 0': 1"),
        ([BATTLE], Reading(columns={"prompt": "qestion"}), DataError, r"No file has the column 'qestion'.*prompt, model_a"),
        (
            [BATTLE],
            Reading(columns={"promt": "prompt"}),
            ConfigError,
            r"No layout has a column 'promt' \(did you mean 'prompt'",
        ),
        ([BATTLE], Reading(by_role=True, strong="x"), ConfigError, r"By role the models are called 'strong' and 'weak'"),
        ([BATTLE], Reading(strong="x", weak="x"), ConfigError, r"both 'x'"),
        ([BATTLE], Reading(tie_margin=-1), ConfigError, r"tie margin is -1"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, rows: list[dict[str, Any]], reading: Reading | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read(tmp_path, rows, reading)
