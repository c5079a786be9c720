"""The recipe behind the shipped routers, on tables of a few made-up prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from routellm.tables import column_names, read_table, write_table
from routellm.training.overlap import prompt_hash
from routellm.training.reading import read_preferences
from routellm.training.recipe import SOLUTIONS, TABLES, main
from tests.conftest import require

SPECS = {spec.name: spec for spec in TABLES}
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def pyarrow() -> None:
    require("pyarrow")


def long(prompt: str, category: str, contam: str | None = None, **scores: float | None) -> Rows:
    """A prompt's rows in a table with a row for each model; `strong` and `weak` stand for the table's first of each."""
    head = {"prompt": prompt, "category": category, "contam": contam}
    return [{**head, "model": model, "score": score} for model, score in scores.items()]


def named(name: str, rows: Rows) -> Rows:
    spec = SPECS[name]
    roles = {"strong": spec.strong[0], "weak": spec.weak[0]}
    return [{**row, "model": roles.get(row["model"], row["model"])} for row in rows]


def tables() -> dict[str, Rows]:
    """Each table with at least one prompt, by name."""
    wide = SPECS["mmlu_pro_wide"]
    models = dict.fromkeys(wide.strong, 1.0) | dict.fromkeys(wide.weak, 0.25)
    cascades = [
        *long("exam question", "mmlu", strong=1.0, weak=0.0, other=0.0, fourth=0.0),
        *long("exam question", "mmlu", strong=0.0),  # a second run: the mean counts
        *long("tests something", "mmlu", "mmlu", strong=1.0, weak=0.0),
        *long("no strong one", "gsm8k", weak=0.0, other=1.0, third=None),
        *long("one model only", "gsm8k", strong=1.0),
    ]
    return {
        "zellinger_cascades": named("zellinger_cascades", cascades),
        "mmlu_pro_wide": [{"question_id": 1, "prompt": "wide", "category": "law", "src": "s", "contam": None, **models}],
        "fasteval_cot_bbh_math": named(
            "fasteval_cot_bbh_math", long("sum", "math", strong=1.0, weak=0.0) + long("puzzle", "bbh", strong=1.0, weak=1.0)
        ),
        "evouna_nq_tq": named("evouna_nq_tq", long("fact", "nq", strong=1.0, weak=0.0)),
        "llmrouter_dcrouter": named(
            "llmrouter_dcrouter",
            long("task", "arc", strong=1.0, weak=0.0) + long("skipped", "agentverse-mgsm", strong=1.0, weak=0.0),
        ),
        SOLUTIONS: [{"prompt": f"story {length}", "solution_chars": length} for length in (300, 100, 200, 400)],
    }


def write_tables(folder: Path, given: dict[str, Rows]) -> Path:
    folder.mkdir()
    for name, rows in given.items():
        write_table(folder / f"{name}.parquet", {column: [row[column] for row in rows] for column in rows[0]})
    return folder


def run(folder: Path, *flags: str) -> int:
    return main(["--data", str(folder), "--output", str(folder.parent / "out"), *flags])


def shares(path: Path, prompt: str) -> dict[tuple[str, str], float]:
    """(source, outcome) -> weight, of one prompt."""
    rows = read_table(str(path), ["prompt", "source", "outcome", "weight"])
    return {(source, outcome): weight for found, source, outcome, weight in rows if found == prompt}


def prompts(path: Path) -> set[str]:
    return {prompt for (prompt,) in read_table(str(path), ["prompt"])}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    assert run(write_tables(tmp_path / "in", tables())) == 0
    return tmp_path / "out"


def test_difficulty_is_the_share_of_models_that_fail(written: Path) -> None:
    failing = 1 - (0.5 + 0 + 0 + 0) / 4
    source = "difficulty/cascades-mmlu"
    expected = {(source, "strong"): failing, (source, "tie"): 1 - failing}
    assert shares(written / "difficulty.parquet", "exam question") == pytest.approx(expected)
    assert shares(written / "difficulty.parquet", "no strong one")["difficulty/cascades-gsm8k", "strong"] == 0.5


def test_gain_is_a_strong_models_result_against_an_independent_weak_ones(written: Path) -> None:
    expected = {("gain/cascades-mmlu", "strong"): 0.5, ("gain/cascades-mmlu", "tie"): 0.5}
    assert shares(written / "gain.parquet", "exam question") == expected
    assert shares(written / "gain.parquet", "wide") == {
        ("gain/mmlu-pro-law", "strong"): 0.75,
        ("gain/mmlu-pro-law", "tie"): 0.25,
    }
    assert shares(written / "gain.parquet", "puzzle") == {("gain/fasteval", "tie"): 1.0}
    assert "no strong one" not in prompts(written / "gain.parquet")


def test_a_loss_of_the_strong_model_is_one(tmp_path: Path) -> None:
    given = tables()
    given["evouna_nq_tq"] = named("evouna_nq_tq", long("fact", "nq", strong=0.25, weak=0.75))
    assert run(write_tables(tmp_path / "in", given)) == 0
    found = {outcome: weight for (_, outcome), weight in shares(tmp_path / "out" / "gain.parquet", "fact").items()}
    assert found == {"strong": 0.0625, "tie": 0.375, "weak": 0.5625}


def test_the_exam_is_the_gain_of_one_family_once_more(written: Path) -> None:
    assert prompts(written / "exam.parquet") == {"exam question"}
    expected = {("exam/cascades-mmlu", "strong"): 0.5, ("exam/cascades-mmlu", "tie"): 0.5}
    assert shares(written / "exam.parquet", "exam question") == expected


def test_longer_solutions_are_harder(written: Path) -> None:
    found = [
        shares(written / "length.parquet", f"story {length}")["length/gsm8k", "strong"] for length in (100, 200, 300, 400)
    ]
    assert found == [0.125, 0.375, 0.625, 0.875]


def test_what_touches_a_benchmark_is_skipped_or_has_one_model_is_left_out(written: Path) -> None:
    for name in ("difficulty", "gain", "exam", "length"):
        assert not prompts(written / f"{name}.parquet") & {"tests something", "skipped", "one model only"}


def test_the_files_are_pairs_that_training_reads(written: Path) -> None:
    files = [str(path) for path in sorted(written.iterdir())]
    assert [Path(file).stem for file in files] == ["difficulty", "exam", "gain", "length"]
    assert column_names(files[0]) == ["prompt", "source", "strong", "weak", "outcome", "weight"]
    read = read_preferences(files)
    assert {(row.first, row.second) for row in read.rows} == {("strong", "weak")}
    assert not read.dropped
    of_a_prompt: dict[tuple[str, str], float] = {}
    for row in read.rows:
        of_a_prompt[row.prompt, row.source] = of_a_prompt.get((row.prompt, row.source), 0.0) + row.weight
    assert list(of_a_prompt.values()) == pytest.approx([1.0] * len(of_a_prompt), abs=1e-3)


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "in", tables())
    written = []
    for _ in range(2):
        assert run(folder) == 0
        written.append([path.read_bytes() for path in sorted((tmp_path / "out").iterdir())])
    assert written[0] == written[1]


def exclude(path: Path, found: Sequence[str]) -> str:
    n = len(found)
    columns = {"train_row": range(n), "train_sha256": [prompt_hash(one) for one in found], "benchmark": ["exam"] * n}
    write_table(path, {**columns, "prompt_sha256": ["0"] * n, "measure": ["cosine"] * n, "value": [1.0] * n})
    return str(path)


def test_excluded_prompts_are_gone_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = exclude(tmp_path / "a.jsonl", ["wide", "story 100"]), exclude(tmp_path / "b.jsonl", ["fact"])
    assert run(write_tables(tmp_path / "in", tables()), "--exclude", first, second) == 0
    for file in (tmp_path / "out").iterdir():
        assert not prompts(file) & {"wide", "story 100", "fact"}
    assert "length: 6 rows on 3 prompts, 2 left out" in capsys.readouterr().out


def without(name: str) -> dict[str, Rows]:
    return {other: rows for other, rows in tables().items() if other != name}


def changed(name: str, **values: Any) -> dict[str, Rows]:
    return {other: [{**row, **values} for row in rows] if other == name else rows for other, rows in tables().items()}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (without("evouna_nq_tq"), "evouna_nq_tq.parquet"),
        (without(SOLUTIONS), f"{SOLUTIONS}.parquet"),
        (changed("evouna_nq_tq", score="good"), "row 1: the gpt-4 is 'good'; it must be a number"),
        (changed("evouna_nq_tq", score=7.0), "row 1: the score of gpt-4 is 7; scores go from 0 to 1"),
        (changed("evouna_nq_tq", score=-0.5), "scores go from 0 to 1"),
        (changed("zellinger_cascades", contam="mmlu"), "no row of the kind 'exam' is left"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, Rows], said: str) -> None:
    assert run(write_tables(tmp_path / "in", given)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("routellm: error: ")
    assert said in error


def test_the_tables_name_no_model_on_both_sides() -> None:
    for spec in TABLES:
        assert not set(spec.strong) & set(spec.weak)
