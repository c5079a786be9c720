"""The command, from its arguments to its tables, files, plots and report, on a small benchmark made on the spot."""

import csv
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from routellm.evals.evaluate import build_parser, command_line, main
from routellm.training.overlap import Overlap, prompt_hash, write_overlaps
from tests.conftest import require


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    """150 prompts; the strong model is right more often; prompts and domains that want escaping in HTML."""
    random = np.random.default_rng(0)
    path = tmp_path / "mine.jsonl"
    with path.open("w") as file:
        for number in range(150):
            row = {
                "prompt": f"<script>alert({number})</script> Question {number}? "
                + "more words " * int(random.integers(0, 30)),
                "dear": float(random.random() < 0.85),
                "cheap": float(random.random() < 0.6),
                "domain": "a & b" if number % 3 else "<c>",
            }
            file.write(json.dumps(row) + "\n")
    return str(path)


def arguments(benchmark: str, tmp_path: Path, *more: str) -> list[str]:
    pair = ["--strong-model", "dear", "--weak-model", "cheap"]
    fixed = ["--bootstrap", "50", "--cache-dir", str(tmp_path / "cache")]
    return ["--routers", "random", "mf", "--benchmark", benchmark, *pair, *fixed, *more]


def test_table(benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(benchmark, tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "mine: 150 prompts" in shown
    for word in (
        "APGR [95%]",
        "CPT20",
        "CPT50",
        "CPT80",
        "AUC",
        "oracle",
        "published protocol",
        "random",
        "mf over",
        "strong dear",
    ):
        assert word in shown or word == "mf over"
    assert ("mf over random" in shown) != ("random over mf" in shown)


def test_json_and_csv_hold_the_same_numbers_and_a_seed_fixes_them(
    benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(benchmark, tmp_path, "--format", "json")) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert main(arguments(benchmark, tmp_path, "--format", "csv")) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["router"] for row in rows] == ["random", "mf"]
    for row, router in zip(rows, record["routers"], strict=True):
        assert float(row["apgr"]) == router["apgr"]["value"]
        assert float(row["cpt50_low"]) == router["cpt50"]["low"]
    assert record["strong_quality"] > record["weak_quality"]
    assert record["routers"][0]["runs"] == 10
    assert set(record["routers"][1]["groups"]["domain"]) == {"a & b", "<c>"}


def test_results_do_not_depend_on_what_was_measured_before(
    benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(Path(benchmark).read_text())
    assert main(arguments(benchmark, tmp_path, "--format", "json")) == 0
    alone = json.loads(capsys.readouterr().out)[0]
    both = arguments(benchmark, tmp_path, "--format", "json")
    both[both.index(benchmark)] = str(other)
    both.insert(both.index(str(other)) + 1, benchmark)
    assert main(both) == 0
    assert json.loads(capsys.readouterr().out)[1]["routers"] == alone["routers"]


def test_output_directory(benchmark: str, tmp_path: Path) -> None:
    require("matplotlib")
    out = tmp_path / "out"
    assert main(arguments(benchmark, tmp_path, "--output", str(out))) == 0
    assert {path.name for path in out.iterdir()} == {"results.json", "metrics.csv", "curves.csv", "mine.png", "mine.svg"}
    assert (out / "mine.png").read_bytes().startswith(b"\x89PNG")
    points = list(csv.DictReader(io.StringIO((out / "curves.csv").read_text())))
    mf = [(float(p["strong_share"]), float(p["quality"])) for p in points if p["router"] == "mf"]
    (record,) = json.loads((out / "results.json").read_text())
    assert mf[0] == pytest.approx((0.0, record["weak_quality"]))
    assert mf[-1] == pytest.approx((1.0, record["strong_quality"]))


def test_report_is_whole_and_escapes_what_prompts_hold(benchmark: str, tmp_path: Path) -> None:
    require("matplotlib")
    page = tmp_path / "sub" / "report.html"
    assert main(arguments(benchmark, tmp_path, "--report", str(page))) == 0
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text  # a costly miss, shown as text
    assert "a &amp; b" in text
    assert text.count("<svg") == 1
    outside = [word for word in ('src="http', "src='http", 'href="http', "@import", "url(http") if word in text]
    assert outside == []
    assert "--routers random mf" in text
    assert "mf:" in text  # its fingerprint


def test_prices_given_by_hand(benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--price", "dear=10,30", "--price", "cheap=0.1,0.1", "--answer-tokens", "1000", "--format", "json"]
    assert main(arguments(benchmark, tmp_path, *prices)) == 0
    (record,) = json.loads(capsys.readouterr().out)
    saved = record["routers"][0]["savings"]["cpt50"]
    assert 30.0 < saved["always_strong_dollars_per_1000_calls"] < 32.0  # 1,000 answers of 1,000 tokens at 30 dollars a million
    assert 0 < saved["dollars_per_1000_calls"] < saved["always_strong_dollars_per_1000_calls"]
    assert "4 characters a token, 1000 tokens" in record["costs"]["estimated_by"]


def test_overwrite_cache_of_named_routers_and_of_all(benchmark: str, tmp_path: Path) -> None:
    for more in ([], ["--overwrite-cache"], ["--overwrite-cache", "mf"]):
        assert main(arguments(benchmark, tmp_path, *more)) == 0
    (file,) = (tmp_path / "cache" / "scores").iterdir()
    before = file.stat().st_mtime_ns
    assert main(arguments(benchmark, tmp_path)) == 0
    assert file.stat().st_mtime_ns == before
    assert main(arguments(benchmark, tmp_path, "--overwrite-cache", "mf")) == 0
    assert next((tmp_path / "cache" / "scores").iterdir()).stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--overwrite-cache", "mff"], 2, "did you mean 'mf'"),
        (["--strong-model", "deer"], 2, "did you mean 'dear'"),
        (["--routers", "nope"], 2, "Unknown router 'nope'"),
        (["--benchmark", "mmul"], 2, "did you mean 'mmlu'"),
        (["--benchmark", "./missing.parquet"], 1, "no benchmark file './missing.parquet'"),
        (["--price", "other=1,2"], 2, "neither 'dear' nor 'cheap'"),
        (["--config", "/no/such.yaml"], 2, "/no/such.yaml"),
    ],
)
def test_bad_arguments(
    benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    assert main(arguments(benchmark, tmp_path, *more)) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("routellm: error: ")
    assert error.count("\n") == 1


def test_two_files_of_one_name_can_not_share_their_results(
    benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    twin = tmp_path / "sub" / "mine.jsonl"
    twin.write_text(Path(benchmark).read_text())
    assert main(arguments(benchmark, tmp_path, "--benchmark", benchmark, str(twin))) == 2
    assert "would both be called 'mine'" in capsys.readouterr().err


def test_prompts_of_a_list_are_left_out(benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = json.loads(Path(benchmark).read_text().splitlines()[0])["prompt"]
    listed = tmp_path / "list.jsonl"
    write_overlaps(listed, [Overlap(1, "0" * 64, "mine", prompt_hash(prompt), "cosine", 1.0)])
    assert main(arguments(benchmark, tmp_path, "--exclude", str(listed), "--format", "json")) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["prompts"] == 149


def test_the_reports_command_gives_the_same_again(benchmark: str, tmp_path: Path) -> None:
    given = ["--seed", "3", "--price", "dear=1,2", "--config", "my config.yaml", "--domains", "STEM", "law"]
    parsed = build_parser().parse_args(arguments(benchmark, tmp_path, *given))
    again = build_parser().parse_args(shlex.split(command_line(parsed))[3:])
    for name in ("routers", "benchmark", "strong_model", "weak_model", "seed", "price", "config", "domains", "bootstrap"):
        assert getattr(again, name) == getattr(parsed, name)


@pytest.mark.parametrize("more", [["--price", "dear"], ["--random-iters", "0"], ["--num-results", "x"], ["--format", "xml"]])
def test_arguments_that_can_not_be_parsed(benchmark: str, tmp_path: Path, more: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments(benchmark, tmp_path, *more))
    assert stop.value.code == 2


def test_two_processes_on_one_cache(benchmark: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "routellm.evals.evaluate", *arguments(benchmark, tmp_path, "--format", "json")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert outputs[0] == outputs[1] == outputs[2]
    assert [path.suffix for path in (tmp_path / "cache" / "scores").iterdir()] == [".safetensors"]
