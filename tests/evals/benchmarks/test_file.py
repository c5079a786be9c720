"""A benchmark out of one's own file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import ConfigError, DataError, UnknownNameError
from routellm.evals.benchmarks.base import BenchmarkData
from routellm.evals.benchmarks.file import FileBenchmark
from routellm.tables import write_table
from routellm.types import ModelPair
from tests.conftest import require

Table = Mapping[str, Sequence[Any]]
Write = Callable[..., Path]

TOY: Table = {
    "prompt": ["one", "two", "three, “four”", "five\nsix", "seven", "eight"],
    "domain": ["a", "a", "a", "b", "b", "b"],
    "big": [1.0, 0.5, 1.0, 0.0, 1.0, 1.0],
    "small": [True, False, True, False, False, True],
    "answer": ["p", "q", "r", "s", "t", "u"],
}


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes a table to a file, and returns its path; once for each kind of file."""
    if request.param == "parquet":
        require("pyarrow")

    def to_file(table: Table) -> Path:
        path = tmp_path / f"table.{request.param}"
        write_table(path, table)
        return path

    return to_file


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    """Writes a table to a .jsonl file with some of its columns replaced."""

    def to_file(**columns: Any) -> Path:
        path = tmp_path / "table.jsonl"
        write_table(path, {name: values for name, values in {**TOY, **columns}.items() if values is not None})
        return path

    return to_file


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        FileBenchmark(path, **options).read()
    return str(caught.value)


def test_every_kind_of_file_gives_the_same_content(write: Write) -> None:
    benchmark = FileBenchmark(write(TOY))
    data = benchmark.read(benchmark.files())
    assert data.prompts == tuple(TOY["prompt"])
    assert data.qualities["big"].tolist() == TOY["big"]
    assert data.qualities["small"].tolist() == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert data.groups == {"domain": ("a", "a", "a", "b", "b", "b")}
    assert data.dropped == {}
    assert benchmark.default_pair() is None
    assert data.sha256 == BenchmarkData(data.prompts, data.qualities).sha256


@pytest.mark.parametrize("name", ["cost:{}", "{}|total_cost"])
def test_costs_are_columns_named_after_their_model(write: Write, name: str) -> None:
    dollars = [0.1, 0.2, 0.0, 0.3, 1e-6, 2]
    data = FileBenchmark(write({**TOY, name.format("big"): dollars})).read()
    assert data.costs["big"].tolist() == dollars
    assert list(data.costs) == ["big"]
    assert set(data.qualities) == {"big", "small"}


def test_other_columns_can_hold_the_prompts_and_the_groupings(jsonl: Write) -> None:
    path = jsonl(prompt=None, question=TOY["prompt"], year=[1, 1, 2, 2, 3, 3])
    data = FileBenchmark(path, prompt_column="question", group_columns=["year", "answer"]).read()
    assert data.prompts == tuple(TOY["prompt"])
    assert data.groups == {"answer": tuple(TOY["answer"]), "year": ("1", "1", "2", "2", "3", "3")}
    assert set(data.qualities) == {"big", "small"}


def test_text_with_as_many_labels_as_rows_is_passed_over(jsonl: Write) -> None:
    assert "answer" not in FileBenchmark(jsonl()).read().groups
    assert FileBenchmark(jsonl(domain=["same"] * 6)).read().groups == {}


def test_a_prompt_that_comes_again_is_counted_and_its_first_row_stays(write: Write) -> None:
    table = {name: [*values, values[1], values[1]] for name, values in TOY.items()}
    table["big"][-1] = 0.25
    data = FileBenchmark(write(table)).read()
    assert data.prompts == tuple(TOY["prompt"])
    assert data.qualities["big"][1] == 0.5
    assert data.dropped == {"duplicate prompt": 2}


def test_an_empty_quality_is_no_result(write: Write) -> None:
    table = {**TOY, "big": [None, 0.5, 1.0, 0.0, 1.0, None], "small": [None, 0.0, 1.0, 0.0, 0.0, 1.0], "third": TOY["big"]}
    data = FileBenchmark(write(table)).read()
    assert data.outcomes(ModelPair("third", "third")).strong.tolist() == TOY["big"]
    with pytest.raises(DataError, match="'big' has no result for 2 of 6 prompts, prompt 1 the first"):
        data.outcomes(ModelPair("big", "small"))
    both = data.with_results(ModelPair("big", "small"))
    assert both.prompts == data.prompts[1:5]
    assert both.dropped == {"no result of big": 2}
    assert both.groups["domain"] == ("a", "a", "b", "b")


def test_rows_without_any_result_are_counted(write: Write) -> None:
    table = {**TOY, "big": [None, *TOY["big"][1:]], "small": [None, *map(float, TOY["small"][1:])]}
    data = FileBenchmark(write(table)).read()
    assert len(data) == 5
    assert data.dropped == {"no result of any model": 1}


def test_nan_is_no_result(jsonl: Write, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("prompt,a,b\none,nan,1\ntwo,NaN,0\nthree,1,0\nfour,1,0\nfive,0,\n", encoding="utf-8")
    data = FileBenchmark(path).read()
    assert [math.isnan(value) for value in data.qualities["a"]] == [True, True, False, False, False]


def test_missing_columns_are_named_with_what_was_found(write: Write) -> None:
    path = write({"prompts": TOY["prompt"], "big": TOY["big"], "small": TOY["small"]})
    assert "has no column 'prompt' (did you mean 'prompts'?). It has: 'prompts', 'big', 'small'." in refused(path)
    assert "has no column 'topic'" in refused(path, prompt_column="prompts", group_columns=["topic"])


def test_one_model_is_not_enough(write: Write) -> None:
    message = refused(write({"prompt": TOY["prompt"], "big": TOY["big"], "domain": TOY["domain"]}))
    assert "a column of numbers for each of two models or more. It has 1 such columns: big; all its columns: prompt" in message


@pytest.mark.parametrize("value", ["n/a", "1,5", "inf", "-inf", [1], {"score": 1}])
def test_a_quality_that_is_no_number_is_named(jsonl: Write, value: object) -> None:
    message = refused(jsonl(big=[1.0, 0.5, value, 0.0, 1.0, 1.0]))
    assert f"column 'big', row 3: a quality must be a finite number, not {value!r}." in message


@pytest.mark.parametrize("value", ["free", -0.1, "inf"])
def test_a_cost_that_is_none_is_named(jsonl: Write, value: object) -> None:
    message = refused(jsonl(**{"cost:big": [0.1, value, 0.1, 0.1, 0.1, 0.1]}))
    assert f"column 'cost:big', row 2: a cost must be a finite number, not {value!r}." in message


def test_costs_must_be_whole_and_of_a_known_model(jsonl: Write) -> None:
    assert "column 'cost:big', row 2: the cost is missing" in refused(jsonl(**{"cost:big": [0.1, None, 0.1, 0.1, 0.1, 0.1]}))
    message = refused(jsonl(**{"cost:bigg": [0.1] * 6}))
    assert "has costs of 'bigg' (did you mean 'big'?), but no column 'bigg'" in message


@pytest.mark.parametrize("prompt", ["", "  \n", None])
def test_an_empty_prompt_is_named(jsonl: Write, prompt: str | None) -> None:
    assert "column 'prompt', row 2: the prompt is empty" in refused(jsonl(prompt=["one", prompt, "3", "4", "5", "6"]))


def test_a_prompt_must_be_text(jsonl: Write) -> None:
    assert "row 1: a prompt must be text, not 7" in refused(jsonl(prompt=[7, "2", "3", "4", "5", "6"]))


def test_one_prompt_is_refused(write: Write) -> None:
    assert "has 1 rows" in refused(write({name: values[:1] for name, values in TOY.items()}))
    assert "holds one prompt only" in refused(write({**TOY, "prompt": ["same"] * 6}))


def test_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("prompt,a,b\n", encoding="utf-8")
    assert "has 0 rows" in refused(path)


def test_qualities_that_are_all_equal_are_refused(write: Write) -> None:
    assert "every quality of every model is 1, so" in refused(write({**TOY, "big": [1.0] * 6, "small": [True] * 6}))


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("prompt,a,a\none,1,0\ntwo,0,1\n", encoding="utf-8")
    assert "has several columns 'a'" in refused(path)


def test_an_index_without_a_name_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(",prompt,a,b\n0,one,1,0\n1,two,0,1\n", encoding="utf-8")
    assert set(FileBenchmark(path).read().qualities) == {"a", "b"}


def test_a_file_that_is_not_there_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    assert "There is no file" in refused(tmp_path / "none.csv")
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    assert "of no known kind" in refused(tmp_path / "table.xlsx")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_garbage_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        require("pyarrow")
    path = tmp_path / f"table.{kind}"
    path.write_bytes(b"\x80\x81{{{,\n\x00\xff")
    assert str(path) in refused(path)


def test_a_model_that_is_not_in_the_file_has_its_nearest_match(jsonl: Write) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown model 'smal' \(did you mean 'small'\?\). Known: big, small."):
        FileBenchmark(jsonl()).read().outcomes(ModelPair("big", "smal"))


def test_group_columns_are_several() -> None:
    with pytest.raises(ConfigError, match="list of names"):
        FileBenchmark("table.csv", group_columns="domain")
