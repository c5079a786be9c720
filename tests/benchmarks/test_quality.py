"""The quality benchmark: what it reads of responses, and the page that it writes. Its metrics are tested in tests/evals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.published_results import PUBLISHED
from routellm.errors import DataError
from routellm.evals.benchmarks.base import BENCHMARKS
from routellm.tables import write_table


def responses(tmp_path: Path) -> Path:
    table = {
        "prompt": [f"question {number}" for number in range(8)] + ["a vote", "another vote", "question 0"],
        "category": ["sums"] * 8 + ["votes"] * 2 + ["sums"],
        "outcome": ["strong", "tie"] * 4 + ["strong", "tie_or_weak", "weak"],
        "strong_score": [1.0] * 8 + [None, None, 0.0],
        "weak_score": [0.0, 1.0] * 4 + [None, None, 1.0],
    }
    write_table(tmp_path / "pairs.jsonl", table)
    return tmp_path / "pairs.jsonl"


def test_a_category_of_a_file_is_a_task_of_its_own(tmp_path: Path) -> None:
    task = quality.response_task(f"Sums={responses(tmp_path)}:sums")
    assert (task.title, len(task.data)) == ("Sums", 8)
    assert task.data.outcomes(task.pair).gain.tolist() == [1.0, 0.0] * 4, "the first row of a prompt counts"


def test_a_vote_counts_where_the_strong_model_won_outright(tmp_path: Path) -> None:
    task = quality.response_task(f"Votes={responses(tmp_path)}:votes")
    assert task.data.outcomes(task.pair).gain.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("spec", ["nothing", "Name=", "Name=FILE:chess"])
def test_a_wrong_specification_is_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DataError):
        quality.response_task(spec.replace("FILE", str(responses(tmp_path))))


def test_published_results_are_of_registered_benchmarks_and_plausible() -> None:
    assert set(PUBLISHED) <= set(BENCHMARKS)
    assert all(fifty < eighty and 0.3 < area < 0.9 for rows in PUBLISHED.values() for _, fifty, eighty, area in rows)


def test_the_page_holds_every_router_and_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--routers", "mf", "--benchmarks", "--responses", f"Sums={responses(tmp_path)}:sums", "--bootstrap", "20"]
    files = ["--output", str(tmp_path / "page.md"), "--json", str(tmp_path / "page.json"), "--cache-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["quality", *arguments, "--rounds", "1", *files])
    quality.main()
    page = (tmp_path / "page.md").read_text()
    assert "## Sums" in page
    assert all(f"\n| {name} | " in page for name in ("mf", "random", "oracle"))
    assert str(tmp_path) not in page
    content = json.loads((tmp_path / "page.json").read_text())
    assert [router["router"] for router in content["results"][0]["routers"]] == ["random", "mf"]
    assert content["speed"]["mf"]["single_us"]["60"] > 0
