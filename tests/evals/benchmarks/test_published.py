"""MMLU, GSM8K and MT-Bench, on small files of their layouts, and on the real ones against the paper's figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from routellm.errors import ConfigError, DataError, UnknownNameError
from routellm.evals.benchmarks.base import Benchmark
from routellm.evals.benchmarks.gsm8k import GSM8K
from routellm.evals.benchmarks.mmlu import DOMAINS, GROUPS, MMLU
from routellm.evals.benchmarks.mt_bench import MTBench
from routellm.evals.benchmarks.published import PAIR, STRONG, WEAK
from tests.evals.benchmarks import samples
from tests.evals.mirror import load

HEADER = ["prompt", WEAK, STRONG]


# The paper gives 68.1 / 80.6, 63.7 / 85.8 and 8.28 / 9.21. Where quality is right or wrong, the sums are whole numbers.
@pytest.mark.parametrize(
    ("benchmark", "prompts", "left_out", "weak", "strong", "weak_mean", "strong_mean"),
    [
        (MMLU(), 14_037, 5, 9_558.0, 11_312.0, 68.1, 80.6),
        (GSM8K(), 1_307, 12, 833.0, 1_121.0, 63.7, 85.8),
        (MTBench(), 72, 8, 596.25, 663.25, 8.28, 9.21),
    ],
    ids=["mmlu", "gsm8k", "mt-bench"],
)
def test_the_paper_s_counts_and_means_to_the_digit(
    benchmark: Benchmark, prompts: int, left_out: int, weak: float, strong: float, weak_mean: float, strong_mean: float
) -> None:
    data = load(benchmark)
    assert len(data) == prompts
    assert data.dropped == {"contaminated": left_out}
    outcomes = data.outcomes(PAIR)
    assert (outcomes.weak.sum(), outcomes.strong.sum()) == (weak, strong)
    scale, digits = (1, 2) if isinstance(benchmark, MTBench) else (100, 1)
    assert round(float(outcomes.weak.mean()) * scale, digits) == weak_mean
    assert round(float(outcomes.strong.mean()) * scale, digits) == strong_mean


def test_mmlu_s_domains_and_groups_are_the_usual_ones() -> None:
    assert {group: len(domains) for group, domains in GROUPS.items()} == {
        "STEM": 18, "humanities": 13, "social sciences": 12, "other": 14
    }  # fmt: skip
    assert len(DOMAINS) == 57


def test_mmlu_s_groups_have_their_usual_sizes() -> None:
    data = load(MMLU())
    # Of 3,018, 4,705, 3,077 and 3,242 questions, five are left out.
    assert Counter(data.groups["group"]) == {"STEM": 3_015, "humanities": 4_704, "social sciences": 3_076, "other": 3_242}
    assert set(data.groups["domain"]) == set(DOMAINS)


def test_mt_bench_has_eight_categories_of_ten_less_what_is_left_out() -> None:
    assert Counter(load(MTBench()).groups["category"]) == {
        "extraction": 10, "stem": 10, "humanities": 10, "math": 9, "coding": 9, "writing": 8, "roleplay": 8, "reasoning": 8
    }  # fmt: skip


def test_a_subset_of_mmlu_downloads_and_reads_only_its_domains() -> None:
    benchmark = MMLU(["astronomy", "anatomy"])
    assert [file.url.rsplit("/", 1)[1] for file in benchmark.files()] == [
        "mmlu_anatomy.csv", "mmlu_astronomy.csv", "contaminated_prompts.jsonl"
    ]  # fmt: skip
    data = load(benchmark)
    assert Counter(data.groups["domain"]) == {"anatomy": 135, "astronomy": 152}
    assert data.sha256 != load(MMLU(["anatomy"])).sha256


def test_a_group_of_mmlu_stands_for_its_domains() -> None:
    assert MMLU(["STEM", "astronomy", "virology"]).domains == sorted([*GROUPS["STEM"], "virology"])


def test_mmlu_refuses_domains_that_it_does_not_have() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown MMLU domain 'anatomie' \(did you mean 'anatomy'\?\)"):
        MMLU(["anatomie"])
    with pytest.raises(ConfigError, match="list of names"):
        MMLU("anatomy")
    with pytest.raises(ConfigError, match="empty list"):
        MMLU([])


def test_mmlu_reads_small_files(tmp_path: Path) -> None:
    data = MMLU(["anatomy", "astronomy"]).read(samples.mmlu(tmp_path))
    assert data.prompts == ("Which bone?\nA. one\nAnswer:", "Which nerve?", "Which star?", "Which, “moon”?")
    assert data.qualities[WEAK].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert data.qualities[STRONG].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert data.groups == {
        "domain": ("anatomy", "anatomy", "astronomy", "astronomy"),
        "group": ("other", "other", "STEM", "STEM"),
    }
    assert data.dropped == {"contaminated": 1}


def test_gsm8k_reads_small_files(tmp_path: Path) -> None:
    data = GSM8K().read(samples.gsm8k(tmp_path))
    assert data.prompts == ("2 + 2?", "3 * 3?")
    assert data.qualities[WEAK].tolist() == [1.0, 0.0]
    assert data.qualities[STRONG].tolist() == [1.0, 1.0]
    assert data.groups == {}
    assert data.dropped == {"contaminated": 1}


def test_mt_bench_shows_the_first_turn_and_averages_the_grades_of_both(tmp_path: Path) -> None:
    data = MTBench().read(samples.mt_bench(tmp_path))
    assert data.prompts == ("Write.", "Count.")
    assert data.qualities[STRONG].tolist() == [9.5, 9.5]
    assert data.qualities[WEAK].tolist() == [6.75, 6.75]
    assert data.groups == {"category": ("writing", "math")}
    assert data.dropped == {"contaminated": 2}


@pytest.mark.parametrize("value", ["true", "1", "", "yes"])
def test_a_correctness_that_is_none_is_named(tmp_path: Path, value: str) -> None:
    table = samples.write_csv(tmp_path / "t.csv", HEADER, [("a", True, True), ("b", True, value)])
    with pytest.raises(DataError, match=rf"t\.csv, row 2, column 'gpt-4-1106-preview': must be True or False, not '{value}'"):
        GSM8K().read([table, samples.write_contaminated(tmp_path)])


def test_missing_columns_are_named_with_what_was_found(tmp_path: Path) -> None:
    table = samples.write_csv(tmp_path / "t.csv", ["prompt", WEAK, "gpt-4-1106-previw"], [("a", True, True)])
    with pytest.raises(
        DataError, match=r"no column 'gpt-4-1106-preview' \(did you mean 'gpt-4-1106-previw'\?\). It has: prompt"
    ):
        GSM8K().read([table, samples.write_contaminated(tmp_path)])


def judged(folder: Path, **change: object) -> list[Path]:
    questions = [{"question_id": 81, "category": "writing", "turns": change.get("turns", ["Write.", "Shorter."])}]
    rows = [
        {"question_id": 81, "model": model, "turn": turn, "score": 7}
        for model in (STRONG, WEAK)
        for turn in change.get("of", (1, 2))
    ]  # type: ignore[attr-defined]
    rows[0]["score"] = change.get("score", 7)
    return [
        samples.write_jsonl(folder / "question.jsonl", questions),
        samples.write_jsonl(folder / "judgements.jsonl", rows),
        samples.write_contaminated(folder),
    ]


@pytest.mark.parametrize("score", [-1, 0, 10.5, "9", None, True, float("nan")])
def test_a_grade_out_of_range_is_refused(tmp_path: Path, score: object) -> None:
    with pytest.raises(DataError, match=r"row 1: `score` must be a number from 1 to 10"):
        MTBench().read(judged(tmp_path, score=score))


def test_a_turn_without_a_grade_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no grade for question, model and turn \(81, 'gpt-4-1106-preview', 2\)"):
        MTBench().read(judged(tmp_path, of=(1,)))


def test_a_second_grade_of_one_turn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have a grade already"):
        MTBench().read(judged(tmp_path, of=(1, 1, 2)))


@pytest.mark.parametrize("turns", [["one"], "one", ["a", "b", "c"], [1, 2], None])
def test_a_question_without_two_turns_is_refused(tmp_path: Path, turns: object) -> None:
    with pytest.raises(DataError, match="must be a list of 2 strings"):
        MTBench().read(judged(tmp_path, turns=turns))


def test_what_is_left_out_is_taken_from_the_files_own_list(tmp_path: Path) -> None:
    table, _ = samples.gsm8k(tmp_path)
    data = GSM8K().read([table, samples.write_contaminated(tmp_path)])
    assert len(data) == 3
    assert data.dropped == {"contaminated": 0}
    assert np.isfinite(data.qualities[WEAK]).all()
