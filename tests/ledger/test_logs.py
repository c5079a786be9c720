"""What is exported, read by the commands that it is for."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from routellm import calibrate_threshold
from routellm.ledger import logs
from routellm.prompt_files import read_prompts
from routellm.tables import column_names, read_table
from routellm.training.layouts import Reading
from routellm.training.reading import read_preferences
from routellm.types import Usage
from tests.conftest import require
from tests.ledger.making import STRONG, WEAK, made, write


@pytest.fixture
def filled(url: str) -> str:
    """Ten requests that `mf` scored from 0 to 0.9, the last three with a prompt; one of `bert`; one that none scored."""
    of_mf = [made(n, win_rate=n / 10, model=STRONG if n >= 5 else WEAK) for n in range(10)]
    write(
        url,
        *(msgspec.structs.replace(one, prompt=f"Prompt {n}") if n >= 7 else one for n, one in enumerate(of_mf)),
        made(10, router="bert", win_rate=0.3, usage=Usage(input_tokens=1, output_tokens=1, estimated=True)),
        made(11, router=None, reason="pinned", win_rate=None, threshold=None, usage=None),
        prompts=True,
    )
    return url


def export(capsys: pytest.CaptureFixture[str], url: str, path: Path, *argv: str) -> str:
    code = logs.main(["export", "--ledger", url, "--since", "all", "--output", str(path), *argv])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out + captured.err


def test_every_request_in_order_with_all_that_is_known(
    filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "requests.jsonl"
    assert "Wrote 12 requests to" in export(capsys, filled, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["request_id"] for row in rows] == [f"request-{number}" for number in range(12)]
    assert (rows[5]["model"], rows[5]["role"], rows[5]["mf"], rows[5]["bert"]) == (STRONG, "strong", 0.5, None)
    assert rows[0]["at"] == "2026-05-28T20:26:40+00:00"
    assert (rows[0]["dollars"], rows[0]["nanodollars"], rows[11]["dollars"]) == (0.00021, 210_000, None)
    assert "prompt" not in rows[9], "prompts are asked for"


def test_calibrate_reads_the_scores(filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    export(capsys, filled, path, "--router", "mf")
    argv = ["--routers", "mf", "--strong-model-pct", "0.3", "--json"]
    assert calibrate_threshold.main([*argv, "--scores", str(path)]) == 0
    (by_file,) = json.loads(capsys.readouterr().out)
    assert (by_file["threshold"], by_file["achieved_share"], by_file["prompts"]) == (0.7, pytest.approx(0.3), 10)
    assert calibrate_threshold.main([*argv, "--from-ledger", filled]) == 0
    (by_ledger,) = json.loads(capsys.readouterr().out)
    assert {**by_ledger, "source": ""} == {**by_file, "source": ""}
    assert "not-asked-for" not in by_ledger["source"]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"gateway": {"ledger": {"url": filled}}}))
    assert calibrate_threshold.main([*argv, "--from-ledger", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == [by_ledger]


def test_calibrate_without_any_score_of_the_router(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate_threshold.main(["--routers", "causal_llm", "--from-ledger", filled]) == 1
    error = capsys.readouterr().err
    assert "holds no request that the router 'causal_llm' scored" in error
    assert "not-asked-for" not in error


def test_prompts_are_read_by_what_calibrates_and_trains(
    filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    require("pyarrow")
    path = tmp_path / "prompts.parquet"
    assert "left out 9 requests without a kept prompt" in export(capsys, filled, path, "--with-prompts")
    assert read_prompts(str(path)).prompts == ("Prompt 7", "Prompt 8", "Prompt 9")
    assert {"prompt", "model", "win_rate", "mf"} <= set(column_names(str(path)))


def test_with_labels_it_is_a_file_of_long_scores(filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    export(capsys, filled, path, "--with-prompts")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    both = [{**row, "model": model, "score": model == STRONG} for row in rows for model in (STRONG, WEAK)]
    path.write_text("".join(json.dumps(row) + "\n" for row in both))
    comparisons = read_preferences([str(path)], Reading(strong=STRONG, weak=WEAK)).rows
    assert [(one.prompt, one.outcome) for one in comparisons] == [(f"Prompt {n}", "first") for n in (7, 8, 9)]


def test_without_any_kept_prompt_it_says_how_to_keep_them(
    filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ["export", "--ledger", filled, "--since", "all", "--router", "bert", "--with-prompts"]
    assert logs.main([*argv, "--output", str(tmp_path / "none.jsonl")]) == 1
    assert "None of the 1 requests has a kept prompt" in (told := capsys.readouterr().err)
    assert "prompts: true" in told


def test_nothing_to_write_is_an_error_and_leaves_no_file(
    filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "none.csv"
    assert logs.main(["export", "--ledger", filled, "--router", "nobody", "--since", "all", "--output", str(path)]) == 1
    assert "No requests are selected" in capsys.readouterr().err
    assert not path.exists()


def test_a_csv_reads_back(filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    export(capsys, filled, path)
    assert len(list(read_table(str(path), ["request_id", "win_rate"]))) == 12
