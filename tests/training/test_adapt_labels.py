"""Labels of one's own traffic: the layouts that are read, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import ConfigError, DataError
from routellm.tables import write_table
from routellm.training.adapt_labels import FEWEST, read_labels

N = 60


def table(path: Path, **columns: list[Any]) -> str:
    write_table(path, {"prompt": [f"prompt {number}" for number in range(len(next(iter(columns.values()))))], **columns})
    return str(path)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_scores_of_both_models_give_their_difference(tmp_path: Path, ending: str) -> None:
    file = table(tmp_path / f"labels.{ending}", strong_score=[1.0, 0.5] * 30, weak_score=[0.25, 0.5] * 30)
    labels = read_labels(file)
    assert labels.prompts[:2] == ["prompt 0", "prompt 1"]
    assert labels.gap.tolist() == [0.75, 0.0] * 30
    assert labels.won.sum() == 30


def test_outcomes_give_whole_gaps(tmp_path: Path) -> None:
    file = table(tmp_path / "labels.jsonl", outcome=["strong", "strong", "strong", "tie", "weak", "tie_or_weak"] * 10)
    assert read_labels(file).gap[:6].tolist() == [1.0, 1.0, 1.0, 0.0, -1.0, 0.0]


def test_long_scores_are_joined_by_prompt_and_averaged(tmp_path: Path) -> None:
    rows = [(f"prompt {n}", model, score) for n in range(N) for model, score in (("big", n % 2), ("small", 0), ("other", 1))]
    rows += [("prompt 0", "big", 1), ("lonely", "big", 1)]
    columns = dict(zip(("prompt", "model", "score"), zip(*rows, strict=True), strict=True))
    write_table(tmp_path / "labels.jsonl", columns)
    labels = read_labels(str(tmp_path / "labels.jsonl"), "big", "small")
    assert labels.gap[:2].tolist() == [0.5, 1.0]
    assert len(labels.prompts) == N
    assert labels.notes == ["left out 1 rows: no label"]
    with pytest.raises(ConfigError, match=r"no scores of 'bgi' \(did you mean 'big'\?\).* big, other, small"):
        read_labels(str(tmp_path / "labels.jsonl"), "bgi", "small")
    with pytest.raises(ConfigError, match="name two of its models"):
        read_labels(str(tmp_path / "labels.jsonl"))


def test_a_column_for_each_model(tmp_path: Path) -> None:
    file = table(tmp_path / "labels.csv", **{"gpt-x": [1, 0, 1] * 20, "llama-y": [0, 0, 1] * 20})
    assert read_labels(file, "gpt-x", "llama-y").gap[:3].tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="no scores of 'llama'"):
        read_labels(file, "gpt-x", "llama")


def test_repeated_prompts_count_once_with_their_mean(tmp_path: Path) -> None:
    prompts = [f"prompt {number % N}" for number in range(2 * N)]
    outcomes = ["strong"] * N + ["strong", "tie"] * (N // 2)
    write_table(tmp_path / "labels.jsonl", {"prompt": prompts, "outcome": outcomes})
    with pytest.raises(DataError, match="better on 60 of 60"):
        read_labels(str(tmp_path / "labels.jsonl"))
    write_table(tmp_path / "labels.jsonl", {"prompt": prompts, "outcome": ["strong", "weak"] * (N // 2) + outcomes[N:]})
    labels = read_labels(str(tmp_path / "labels.jsonl"))
    assert labels.gap.tolist() == [1.0, -0.5] * (N // 2)
    assert labels.notes == ["60 prompts have several labels; their mean counts"]


def test_rows_without_label_or_prompt_are_counted(tmp_path: Path) -> None:
    scores: list[Any] = [1, 0] * 35
    scores[3], scores[4] = None, math.nan
    prompts = [f"prompt {number}" for number in range(70)]
    prompts[10] = "  "
    write_table(tmp_path / "labels.jsonl", {"prompt": prompts, "strong_score": scores, "weak_score": [0] * 70})
    labels = read_labels(str(tmp_path / "labels.jsonl"))
    assert len(labels.prompts) == 67
    assert sorted(labels.notes) == ["left out 1 rows: no prompt", "left out 2 rows: no label"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"outcome": ["strong", "draw"] * N}, r"row 2: the outcome is 'draw'; known are: strong, tie, weak"),
        ({"outcome": ["strong", "tie"] * 20}, rf"labels of 40 prompts; adapting takes {FEWEST}"),
        ({"outcome": ["tie"] * N}, "gap between the two models is 0 on every prompt"),
        ({"outcome": ["strong"] * N}, "is 1 on every prompt"),
        ({"outcome": ["strong"] * 2 + ["tie"] * N}, "better on 2 of 62"),
        ({"outcome": ["weak", "weak", "strong"] * 20}, "no better than the weak one"),
        ({"strong_score": ["good"] * N, "weak_score": [0] * N}, r"row 1: the strong_score is 'good'; it must be a number"),
        ({"answer": ["yes"] * N}, "no known layout: it needs the columns prompt, strong_score"),
    ],
)
def test_what_can_not_be_fitted_is_refused(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(table(tmp_path / "labels.jsonl", **columns))
