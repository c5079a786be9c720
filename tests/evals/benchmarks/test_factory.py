from __future__ import annotations

from pathlib import Path

import pytest

from routellm.errors import ConfigError, DataError, UnknownNameError
from routellm.evals.benchmarks.base import BENCHMARKS
from routellm.evals.benchmarks.factory import load_benchmark, open_benchmark
from routellm.evals.benchmarks.file import FileBenchmark
from routellm.evals.benchmarks.gsm8k import GSM8K
from routellm.evals.benchmarks.mmlu import MMLU
from routellm.tables import write_table
from routellm.training.overlap import Overlap, prompt_hash, write_overlaps


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    write_table(path, {"prompt": ["a", "b", "c"], "s": [1, 0, 1], "w": [0, 0, 1]})
    return path


def test_a_name_opens_a_registered_benchmark() -> None:
    assert isinstance(open_benchmark("gsm8k"), GSM8K)
    opened = open_benchmark("mmlu", domains=["anatomy"])
    assert isinstance(opened, MMLU)
    assert opened.domains == ["anatomy"]


def test_a_path_opens_a_file(table: Path) -> None:
    for spec in (table, str(table)):
        opened = open_benchmark(spec, prompt_column="prompt")
        assert isinstance(opened, FileBenchmark)
        assert load_benchmark(opened).prompts == ("a", "b", "c")


def test_a_file_of_a_registered_name_is_opened_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmlu").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_benchmark("mmlu"), MMLU)
    assert isinstance(open_benchmark(Path("mmlu")), FileBenchmark)


def test_an_unknown_name_has_its_nearest_match() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown benchmark 'mmul' \(did you mean 'mmlu'\?\)"):
        open_benchmark("mmul")


@pytest.mark.parametrize("spec", ["no/such", "none.csv", Path("mmlux")])
def test_a_path_to_nothing_is_an_error(spec: str | Path) -> None:
    with pytest.raises(DataError, match=r"There is no benchmark file .* one of: .*gsm8k"):
        open_benchmark(spec)


def test_an_option_that_the_benchmark_does_not_take_is_an_error(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mmlu': .* \(did you mean 'domains'\?\). It takes: domains"):
        open_benchmark("mmlu", domain=["anatomy"])
    with pytest.raises(ConfigError, match="It takes: no options"):
        open_benchmark("gsm8k", domains=["anatomy"])
    with pytest.raises(ConfigError, match="It takes: path, prompt_column, group_columns"):
        open_benchmark(table, domains=["anatomy"])


def test_a_user_s_class_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(GSM8K):
        pass

    BENCHMARKS["mine"] = Mine
    try:
        assert isinstance(open_benchmark("mine"), Mine)
    finally:
        del BENCHMARKS["mine"]


def test_prompts_of_a_contamination_list_are_left_out(table: Path, tmp_path: Path) -> None:
    overlaps = [Overlap(1, "0", "other", prompt_hash("b"), "cosine", 1.0), Overlap(2, "0", "x", "1", "ngram", 1.0)]
    write_overlaps(tmp_path / "list.jsonl", overlaps)
    data = load_benchmark(open_benchmark(table), exclude=tmp_path / "list.jsonl")
    assert data.prompts == ("a", "c")
    assert data.dropped == {"in a contamination list": 1}
