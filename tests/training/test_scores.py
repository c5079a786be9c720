from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import ConfigError, DataError
from routellm.tables import write_table
from routellm.training.layouts import Reading
from routellm.training.preferences import Preference, Preferences
from routellm.training.reading import read_preferences
from tests.training.files import read

PAIR = Reading(strong="big", weak="small")
# Means: a .2, b .4, c .6, d .8, e 1, f 1.2: the worst third is a and b, the best one e and f.
MODELS = {"a": [0.0, 0.4], "b": [0.3, 0.5], "c": [0.6, 0.6], "d": [1.0, 0.6], "e": [1.0, 1.0], "f": [2.0, 0.4]}


def long(scores: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [
        {"prompt": f"p{number}", "model": model, "score": score}
        for number in range(2)
        for model, score in [(model, values[number]) for model, values in scores.items()]
    ]


def wide(scores: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [{"prompt": f"p{number}", **{model: values[number] for model, values in scores.items()}} for number in range(2)]


def shares(found: Preferences) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for row in found.rows:
        assert (row.first, row.second) == ("strong", "weak")
        table[row.prompt][row.outcome] = pytest.approx(row.weight)
    return dict(table)


@pytest.mark.parametrize("layout", [long, wide])
def test_two_models_are_compared_prompt_by_prompt(tmp_path: Path, layout: Any) -> None:
    scores = {"small": [1, 0], "other": [1, 1], "big": [1, 1]}
    found = read(tmp_path, layout(scores), PAIR)
    assert found.rows == [
        Preference("p0", "big", "small", "tie", "file"),
        Preference("p1", "big", "small", "first", "file"),
    ]


@pytest.mark.parametrize("layout", [long, wide])
def test_thirds_of_the_models_by_their_mean_score(tmp_path: Path, layout: Any) -> None:
    found = read(tmp_path, layout(MODELS), Reading(by_role=True))
    # p0: 1 and 2 beat 0 and .3. p1: e (1) beats a (.4) and b (.5); f (.4) ties with a and loses to b.
    assert shares(found) == {"p0": {"first": 1.0}, "p1": {"first": 0.5, "tie": 0.25, "second": 0.25}}
    assert any("strong side is the 2 of 6 models with the highest mean score: f (1.2), e (1)" in note for note in found.notes)


@pytest.mark.parametrize("layout", [long, wide])
def test_weights_of_a_prompt_sum_to_one_and_missing_scores_are_left_out(tmp_path: Path, layout: Any) -> None:
    scores: dict[str, list[Any]] = {**MODELS, "a": [None, 0.4], "b": [float("nan"), 0.2]}
    found = read(tmp_path, layout(scores), Reading(by_role=True))
    assert shares(found) == {"p1": {"first": 0.75, "tie": 0.25}}
    assert found.dropped["no score of both sides"] == 1


def test_scores_within_the_margin_are_a_tie(tmp_path: Path) -> None:
    rows = wide({"small": [0.5, 0.5], "big": [0.7, 0.9]})
    reading = Reading(strong="big", weak="small", tie_margin=0.25)
    assert [row.outcome for row in read(tmp_path, rows, reading).rows] == ["tie", "first"]


def test_repeated_scores_count_by_their_mean(tmp_path: Path) -> None:
    rows = [*long({"big": [1, 0], "small": [0.4, 0]}), {"prompt": "p0", "model": "big", "score": 0}]
    assert read(tmp_path, rows, Reading(strong="big", weak="small", tie_margin=0.1)).rows[0].outcome == "tie"


def test_csv_scores_may_be_words(tmp_path: Path) -> None:
    write_table(tmp_path / "s.csv", {"prompt": ["p", "q", "r"], "big": ["True", "false", ""], "small": ["0", "1.0", "1"]})
    found = read_preferences([str(tmp_path / "s.csv")], PAIR)
    assert [row.outcome for row in found.rows] == ["first", "second"]
    assert dict(found.dropped) == {"no score of both sides": 1}


def test_all_columns_of_numbers_are_taken_and_told(tmp_path: Path) -> None:
    rows = [{**row, "topic": "maths", "source": "mine"} for row in wide(MODELS)]
    found = read(tmp_path, rows, Reading(by_role=True))
    assert any(note.endswith("took 6 columns of numbers as models' scores: a, b, c, d, e, f") for note in found.notes)
    assert {row.source for row in found.rows} == {"mine"}


def test_row_numbers_and_identifiers_are_no_scores(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "id": 100 + n, "a": n % 2, "b": 1, "length": n * 0.5, "topic": "t"} for n in range(30)]
    notes = read(tmp_path, rows, Reading(by_role=True)).notes
    assert notes[0].endswith("took 3 columns of numbers as models' scores: a, b, length")
    few = read(tmp_path, rows[:5], Reading(by_role=True)).notes
    assert few[0].endswith("took 4 columns of numbers as models' scores: id, a, b, length")


def test_named_columns_only(tmp_path: Path) -> None:
    rows = [{**row, "id": number} for number, row in enumerate(wide(MODELS))]
    found = read(tmp_path, rows, Reading(by_role=True, score_columns=("a", "f")))
    assert shares(found) == {"p0": {"first": 1.0}, "p1": {"tie": 1.0}}


@pytest.mark.parametrize(
    ("rows", "reading", "error", "said"),
    [
        (long(MODELS), Reading(), ConfigError, r"Scores need --strong-model and --weak-model out of a, b, .*f; or --by-role"),
        (wide(MODELS), Reading(), ConfigError, r"Scores need --strong-model and --weak-model out of a, b, .*f; or --by-role"),
        (long(MODELS), Reading(strong="a", weak="z"), ConfigError, r"has no scores of 'z'.*out of a, b"),
        (long(MODELS), Reading(strong="y", weak="z"), ConfigError, r"has no scores of 'y'.*out of a, b"),
        (wide(MODELS), Reading(strong="a", weak="z"), DataError, r"has no column 'z'.*It has: prompt, a"),
        (wide(MODELS), Reading(by_role=True, score_columns=("a", "z")), DataError, r"has no column 'z'"),
        (long({"a": [1, 2]}), Reading(by_role=True), DataError, r"takes scores of two models; there are those of a"),
        (long({"a": ["good", 2], "b": [1, 1]}), Reading(by_role=True), DataError, r"row 1: the score is 'good'"),
        (wide({"big": [1, "x"], "small": [1, 1]}), PAIR, DataError, r"row 2: the score in column 'big' is 'x'"),
        (long({"big": [None, None], "small": [None, None]}), PAIR, DataError, r"No usable row.*'no label': 4"),
        (wide({"big": [None, None], "small": [None, None]}), PAIR, DataError, r"No usable row.*'no score of both sides': 2"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, rows: list[dict[str, Any]], reading: Reading, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read(tmp_path, rows, reading)
