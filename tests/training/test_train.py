"""`routellm train` as a user runs it: from a file to a folder that a configuration can point at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm import cli
from routellm.config import load_config
from routellm.routers.checkpoint import META_FILE, WEIGHTS_FILE
from routellm.routers.mf import MatrixFactorizationRouter
from routellm.routers.routers import ROUTER_CLS, build_router
from routellm.training import mf
from routellm.training.overlap import read_overlaps
from tests.training.files import write
from tests.training.test_mf import battles

PAIR = ["--strong-model", "big", "--weak-model", "small"]
QUICK = [*PAIR, "--epochs", "2"]
TEST_PROMPT = (
    "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences and must-see "
    "attractions."
)


def votes(path: Path, count: int = 400, **changes: Any) -> str:
    winner = {"first": "model_a", "second": "model_b", "tie": "tie"}
    rows = [
        {"prompt": row.prompt, "model_a": "big", "model_b": "small", "winner": winner[row.outcome], **changes}
        for row in battles(count)
    ]
    return write(path, rows)


def train(data: str, output: Path, *flags: str) -> int:
    return cli.main(["train", "mf", "--data", data, "--output", str(output), *flags])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    flags = ["--epochs", "30", "--learning-rate", "0.003", "--validation-share", "0.25", "--card-notes", "Made up."]
    assert train(votes(folder / "votes.jsonl"), folder / "out", *PAIR, *flags) == 0
    return folder


def test_the_folder_is_a_router_and_holds_nothing_else(trained: Path) -> None:
    assert {path.name for path in (trained / "out").iterdir()} == {META_FILE, WEIGHTS_FILE, "README.md"}
    router = MatrixFactorizationRouter(str(trained / "out"))
    assert router.calculate_strong_win_rate("Prove the theorem about x rigorously.") > router.calculate_strong_win_rate(
        "Say hi."
    )


def test_the_card_and_the_meta_tell_how_it_was_made(trained: Path) -> None:
    meta = json.loads((trained / "out" / META_FILE).read_text())
    card = (trained / "out" / "README.md").read_text()
    assert (meta["strong_model"], meta["weak_model"]) == ("big", "small")
    assert meta["training"]["data"]["votes.jsonl"].startswith("sha256:")
    assert meta["training"]["rows_by_source"] == {"votes": 400}
    assert meta["training"]["seed"] == 0
    assert meta["training"]["test_prompts"] == {}
    assert meta["training"]["command"].startswith("routellm train mf --data votes.jsonl --output out --strong-model big ")
    assert meta["training"]["command"] in card
    found = meta["metrics"]["validation_by_source"]["votes"]
    for name in ("auc", "apgr"):
        value, low, high = found[name]
        assert 0.5 < low < value < high
        assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in card
    assert f"{round(meta['metrics']['validation_loss'], 4)}" in card
    assert "Made up." in card
    assert "test prompts of benchmarks" not in card


def test_quantiles_are_those_of_the_saved_router(trained: Path) -> None:
    router = MatrixFactorizationRouter(str(trained / "out"))
    rows = [json.loads(line)["prompt"] for line in (trained / "votes.jsonl").read_text().splitlines()]
    assert router.quantiles is not None
    chosen = router.quantiles.threshold_for_share(0.3)
    assert np.mean(router.calculate_strong_win_rates(rows) >= chosen.threshold) == pytest.approx(0.3, abs=0.01)


def test_what_is_printed_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(votes(tmp_path / "votes.jsonl", 120), tmp_path / "out", *QUICK) == 0
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    config = load_config(tmp_path / "config.yaml", ROUTER_CLS)
    assert 0 < build_router("mf", config["mf"]).calculate_strong_win_rate("hi") < 1


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    file = votes(tmp_path / "votes.jsonl", 120)
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        assert train(file, tmp_path / name, *QUICK, "--seed", seed) == 0
    one, two, three = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_quantiles_of_chosen_sources_and_of_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = votes(tmp_path / "votes.jsonl", 120)
    note = ["--quantiles-from", "votes", "--quantiles-note", "my users", "--quantiles-prompts", "50"]
    assert train(file, tmp_path / "out", *QUICK, *note) == 0
    quantiles = MatrixFactorizationRouter(str(tmp_path / "out")).quantiles
    assert quantiles is not None
    assert (quantiles.source, quantiles.prompts) == ("my users", 50)
    assert train(file, tmp_path / "out", *QUICK, "--quantiles-from", "vote") == 2
    assert "names the source 'vote' (did you mean 'votes'?)" in capsys.readouterr().err


def test_quantiles_of_prompts_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file's prompts are drawn from, each counts once, and none of them is trained on."""
    prompts = [f"Say hello to user {number}." for number in range(60)]
    mine = write(tmp_path / "mine.jsonl", [{"prompt": prompt} for prompt in [*prompts, *prompts[:30]]])
    file = votes(tmp_path / "votes.jsonl", 120)
    assert train(file, tmp_path / "out", *QUICK, "--quantiles-data", mine) == 0
    router = MatrixFactorizationRouter(str(tmp_path / "out"))
    assert router.quantiles is not None
    assert (router.quantiles.source, router.quantiles.prompts) == ("prompts of mine.jsonl", 60)
    scores = router.calculate_strong_win_rates(prompts)
    assert (router.quantiles.values[0], router.quantiles.values[-1]) == pytest.approx((scores.min(), scores.max()))
    assert json.loads((tmp_path / "out" / META_FILE).read_text())["training"]["rows_by_source"] == {"votes": 120}
    fewer = ["--quantiles-data", mine, "--quantiles-prompts", "20", "--quantiles-note", "my users"]
    assert train(file, tmp_path / "out", *QUICK, *fewer) == 0
    quantiles = MatrixFactorizationRouter(str(tmp_path / "out")).quantiles
    assert quantiles is not None
    assert (quantiles.source, quantiles.prompts) == ("my users", 20)
    assert train(file, tmp_path / "out", *QUICK, "--quantiles-data", mine, "--quantiles-from", "votes") == 2
    assert "both say whose prompts count; give one of them" in capsys.readouterr().err


def test_rows_without_a_weight_above_0_are_left_out_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = votes(tmp_path / "votes.jsonl", 120, weight=0.5)
    bad = [{"prompt": "p", "model_a": "big", "model_b": "small", "winner": "tie", "weight": one} for one in (-1, None)]
    with Path(file).open("a") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in bad)
    assert train(file, tmp_path / "out", *QUICK) == 0
    assert "left out 2 rows: no weight above 0" in capsys.readouterr().err
    training = json.loads((tmp_path / "out" / META_FILE).read_text())["training"]
    assert (training["rows_by_source"], training["rows_left_out"]) == ({"votes": 120}, {"no weight above 0": 2})
    assert "no weight above 0" in (tmp_path / "out" / "README.md").read_text()


# Test prompts of benchmarks


@pytest.fixture
def contaminated(tmp_path: Path) -> str:
    file = votes(tmp_path / "votes.jsonl", 120)
    row = {"prompt": f"Please! {TEST_PROMPT}", "model_a": "big", "model_b": "small", "winner": "model_a"}
    with Path(file).open("a") as lines:
        lines.write(2 * (json.dumps(row) + "\n"))
    return file


def test_test_prompts_are_refused_with_a_list_that_leaves_them_out(
    contaminated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "out.test-prompts.jsonl"
    assert train(contaminated, tmp_path / "out", *QUICK) == 1
    said = capsys.readouterr().err
    assert "1 training prompts in 2 rows hold test prompts of benchmarks (mt-bench 1)" in said
    assert "row 121 of votes.jsonl (mt-bench), row 122 of votes.jsonl (mt-bench). All are listed in" in said
    assert f"--exclude {listed}" in said
    assert not (tmp_path / "out").exists()
    assert [(one.train_row, one.benchmark) for one in read_overlaps(listed)] == [(121, "mt-bench"), (122, "mt-bench")]
    assert train(contaminated, tmp_path / "out", *QUICK, "--exclude", str(listed)) == 0
    meta = json.loads((tmp_path / "out" / META_FILE).read_text())
    assert meta["training"]["rows_by_source"] == {"votes": 120}
    assert meta["training"]["excluded"][listed.name].startswith("sha256:")


def test_where_they_are_allowed_the_router_is_marked(contaminated: str, tmp_path: Path) -> None:
    assert train(contaminated, tmp_path / "out", *QUICK, "--allow-contaminated") == 0
    assert json.loads((tmp_path / "out" / META_FILE).read_text())["training"]["test_prompts"] == {"mt-bench": 1}
    assert "**Trained on test prompts of benchmarks**" in (tmp_path / "out" / "README.md").read_text()


def test_the_list_goes_where_it_is_asked_for(contaminated: str, tmp_path: Path) -> None:
    assert train(contaminated, tmp_path / "out", *QUICK, "--contaminated-to", str(tmp_path / "sub" / "list.csv")) == 1
    assert len(read_overlaps(tmp_path / "sub" / "list.csv")) == 2


# Runs that break off


@pytest.fixture
def broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that Ctrl-C ended after its second epoch; returns its data."""
    file = votes(tmp_path / "votes.jsonl", 120)
    calibrated = mf._calibrated

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mf, "_calibrated", interrupt)
    assert train(file, tmp_path / "out", *QUICK) == 130
    monkeypatch.setattr(mf, "_calibrated", calibrated)
    return file


def test_a_run_that_broke_off_is_gone_on_with(broken_off: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (tmp_path / "out" / ".work").is_dir()
    capsys.readouterr()
    assert train(broken_off, tmp_path / "out", *QUICK, "--resume") == 0
    said = capsys.readouterr().err
    assert "going on with the run in" in said
    assert "epoch 1:" not in said
    assert train(broken_off, tmp_path / "other", *QUICK) == 0
    assert (tmp_path / "out" / WEIGHTS_FILE).read_bytes() == (tmp_path / "other" / WEIGHTS_FILE).read_bytes()
    assert not (tmp_path / "out" / ".work").exists()


def test_only_with_the_same_settings_and_data(broken_off: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(broken_off, tmp_path / "out", *QUICK, "--resume", "--seed", "3") == 2
    assert "had other values of: seed" in capsys.readouterr().err
    votes(Path(broken_off), 100)
    assert train(broken_off, tmp_path / "out", *QUICK, "--resume") == 2
    assert "had other values of: hashes of the data" in capsys.readouterr().err
    assert train(broken_off, tmp_path / "out", *QUICK) == 0


def test_without_a_run_to_go_on_with_it_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(votes(tmp_path / "votes.jsonl", 120), tmp_path / "out", *QUICK, "--resume") == 0
    assert "starting from the beginning" in capsys.readouterr().err


# What is wrong is told


@pytest.mark.parametrize(
    ("changes", "flags", "code", "said"),
    [
        (
            {},
            ["--strong-model", "gpt"],
            2,
            "The data hold no model 'gpt'. Give --strong-model and --weak-model out of: big, small",
        ),
        ({}, [], 2, "The data hold no model 'strong'"),
        ({"winner": "tie"}, QUICK, 1, "All 60 comparisons of 'big' and 'small' are ties"),
        ({"winner": "model_a"}, QUICK, 1, "All 60 comparisons of 'big' and 'small' are won by 'big'"),
        ({"winner": None}, QUICK, 1, "No usable row"),
        ({}, [*QUICK, "--column", "prompt=qestion"], 1, "No file has the column 'qestion'"),
        ({}, [*QUICK, "--column", "prompt"], 2, "'prompt' is not NAME=OWN"),
        ({}, [*QUICK, "--validation-share", "0"], 2, "--validation-share is 0 of 60 prompts"),
        ({}, [*QUICK, "--seed", "-1"], 2, "'-1' is not a whole number from 0 on"),
        ({}, [*QUICK, "--embedding-model", "statc"], 2, "statc"),
        ({}, [*QUICK, "--exclude", "nowhere.jsonl"], 1, "There is no file 'nowhere.jsonl'"),
        ({}, [*QUICK, "--quantiles-data", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        ({}, [*QUICK, "--dim", "0"], 2, "--dim is 0; it must be above 0"),
    ],
)
def test_mistakes_take_one_line_and_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], flags: list[str], code: int, said: str
) -> None:
    try:
        found = train(votes(tmp_path / "v.jsonl", 60, **changes), tmp_path / "out", *flags)
    except SystemExit as ended:  # argparse's own
        found = int(str(ended.code))
    error = capsys.readouterr().err.splitlines()[-1]
    assert found == code
    assert error.startswith("routellm: error: ")
    assert said in error
    assert not (tmp_path / "out").exists()


def test_an_output_that_can_not_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = votes(tmp_path / "v.jsonl", 60)
    assert train(file, Path(file), *QUICK) == 2
    assert "can't be written" in capsys.readouterr().err


def test_an_unknown_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "mg", "--data", "x"]) == 2
    assert "Unknown trainer 'mg'" in capsys.readouterr().err


def test_a_trainers_help_has_its_own_flags_and_the_shared_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "mf", "--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: routellm train mf [OPTIONS]")
    assert all(flag in said for flag in ("--data", "--by-role", "--resume", "--learning-rate", "examples:"))
