"""The trainers `gain_fast` and `gain_accurate`: what they learn of each kind of comparison, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from routellm.errors import DataError
from routellm.routers.battles import Outcome
from routellm.routers.checkpoint import META_FILE, WEIGHTS_FILE
from routellm.routers.odds import log_odds
from routellm.routers.routers import Router, build_router
from routellm.tables import write_table
from routellm.training import gain_fit
from routellm.training.boosting import TreeSettings
from routellm.training.gain_fit import Gains, balanced, gather, platt
from routellm.training.overlap import prompt_hash
from routellm.training.preferences import Preference
from routellm.training.testprompts import TestPrompts
from routellm.training.train import trainer_parser
from tests.conftest import require
from tests.routers.classifiers import write_checkpoint
from tests.training.files import write
from tests.training.gains import comparisons, prompt, run_train


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain_fit, "TREES", TreeSettings(trees=20, depth=3, rate=0.2, penalty=5.0, rows=0.8, columns=0.5))
    monkeypatch.setattr(gain_fit, "SMALL", 20)


def trained(folder: Path, *flags: str, name: str = "gain_fast") -> Router:
    data = write(folder / "gains.jsonl", comparisons(400))
    assert run_train(name, data, folder / "made", "--validation-share", "0.3", *flags) == 0
    return build_router(name, {"checkpoint_path": str(folder / "made")})


def mean_score(router: Router, subject: str, hard: bool) -> float:
    return float(router.calculate_strong_win_rates([prompt(subject, hard, number) for number in range(900, 930)]).mean())


def test_hard_prompts_score_higher_within_a_subject(tmp_path: Path) -> None:
    router = trained(tmp_path)
    for subject in ("arts", "sums"):
        assert mean_score(router, subject, hard=True) > mean_score(router, subject, hard=False) + 0.1


def test_subjects_are_told_apart_by_the_kinds_that_are_named(tmp_path: Path) -> None:
    """Within sources subjects say nothing; across those of gain the arts win, across those of difficulty the sums."""
    leads = {}
    for kind in ("gain", "difficulty"):
        folder = tmp_path / kind
        folder.mkdir()
        router = trained(folder, "--across", kind)
        leads[kind] = np.mean([mean_score(router, "arts", hard) - mean_score(router, "sums", hard) for hard in (False, True)])
    assert leads["gain"] > 0.1
    assert leads["difficulty"] < -0.1


@pytest.mark.parametrize(("across", "won"), [(["gain"], 0.375), (["difficulty"], 0.6), ([], 0.4875)])
def test_scores_are_chances_by_the_kinds_that_are_named(tmp_path: Path, across: list[str], won: float) -> None:
    router = trained(tmp_path, *(["--across", *across] if across else []))
    found = [mean_score(router, subject, hard) for subject in ("arts", "sums") for hard in (False, True)]
    assert np.mean(found) == pytest.approx(won, abs=0.05)


def test_the_explanation_adds_up_and_the_card_says_how_it_was_fitted(tmp_path: Path) -> None:
    router = trained(tmp_path, "--across", "gain", "--penalty", "2")
    for one in (prompt("arts", True, 5), "", "日本語"):
        parts = router.explain(one)
        assert sum(parts.values()) == pytest.approx(log_odds(router.calculate_strong_win_rate(one)), abs=1e-4)
        assert {"constant", "embedding", "trees", "form: stem_numbers"} <= set(parts)
    training = json.loads((tmp_path / "made" / META_FILE).read_text())["training"]
    assert (training["kinds"], training["across"], training["penalty"]) == (["difficulty", "gain"], ["gain"], 2.0)
    assert "| across |" in (tmp_path / "made" / "README.md").read_text()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    data = write(tmp_path / "gains.jsonl", comparisons(200))
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        assert run_train("gain_fast", data, tmp_path / name, "--validation-share", "0.3", "--seed", seed) == 0
    one, two, three = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_gain_accurate_is_gain_fast_on_other_vectors(tmp_path: Path) -> None:
    """On the same vectors it is the same sum, a teacher's student included. Its own vectors are the shipped encoder's."""
    tensors = {}
    for name in ("gain_fast", "gain_accurate"):
        (tmp_path / name).mkdir()
        trained(tmp_path / name, "--embedding-model", "static", "--teacher", "mf", name=name)
        tensors[name] = (tmp_path / name / "made" / WEIGHTS_FILE).read_bytes()
    assert tensors["gain_fast"] == tensors["gain_accurate"]
    for name, wanted in (("gain_fast", "static"), ("gain_accurate", "bert")):
        arguments = trainer_parser("routellm train", name).parse_args(["--data", "-", "--output", "-"])
        assert arguments.embedding_model == wanted


def test_what_an_encoder_tells_is_learned(tmp_path: Path) -> None:
    """Hard and easy prompts that differ in nothing but their letters, which the tiny encoder tells apart."""
    require("onnxruntime")
    draw = np.random.default_rng(4)
    rows: list[dict[str, object]] = []
    while len(rows) < 300:
        hard = bool(draw.random() < 0.5)
        one = " ".join(draw.choice(list("abcd" if hard else "wxyz"), 6))
        outcome = "strong" if draw.random() < (0.9 if hard else 0.1) else "tie"
        rows.append({"prompt": one, "source": "gain/letters", "strong": "big", "weak": "small", "outcome": outcome})
    data = write(tmp_path / "letters.jsonl", rows)
    flags = ["--validation-share", "0.3", "--embedding-model", f"bert:{write_checkpoint(tmp_path / 'bert')}"]
    assert run_train("gain_accurate", data, tmp_path / "made", *flags) == 0
    router = build_router("gain_accurate", {"checkpoint_path": str(tmp_path / "made")})
    assert router.calculate_strong_win_rate("a d b c d a") > router.calculate_strong_win_rate("w z y x w z") + 0.3
    parts = router.explain("a d b c d a")
    assert sum(parts.values()) == pytest.approx(log_odds(router.calculate_strong_win_rate("a d b c d a")), abs=1e-4)
    assert parts["embedding"] > 0.3


def test_a_student_follows_its_teacher_by_its_weight(tmp_path: Path) -> None:
    """`sw_ranking` of the same data in reverse is a teacher whose scores fall where those of the comparisons rise."""
    turned = [{**row, "outcome": "weak" if row["outcome"] == "strong" else "tie"} for row in comparisons(200)]
    assert run_train("sw_ranking", write(tmp_path / "turned.jsonl", turned), tmp_path / "teacher") == 0
    others = write(tmp_path / "others.jsonl", [{"prompt": prompt("sums", True, number)} for number in range(500, 520)])
    leads = []
    for weight in ("0.01", "100"):
        (folder := tmp_path / weight).mkdir()
        flags = ["--teacher", "sw_ranking", "--teacher-path", str(tmp_path / "teacher"), "--teacher-prompts", others]
        router = trained(folder, *flags, "--teacher-weight", weight)
        leads.append(np.mean([mean_score(router, one, True) - mean_score(router, one, False) for one in ("arts", "sums")]))
        meta = json.loads((folder / "made" / META_FILE).read_text())
        taught = meta["training"]
        assert (taught["teacher"], taught["teacher_weight"]) == ("sw_ranking", float(weight))
        assert taught["prompts_of_the_teacher"] == 400 - 120 + 20
        assert taught["teacher_prompts"].startswith("others.jsonl sha256:")
        assert meta["metrics"]["correlation_with_teacher"] > 0.5
        assert meta["priors"] == []
    assert leads[0] > 0.1
    assert leads[1] < 0.05


def test_prompts_for_a_teacher_that_hold_test_prompts_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "Which of these seven rivers carries the most water in a dry summer, and by how much does it lead the next one?"
    known = TestPrompts.of({"exam": [("", secret)]})
    monkeypatch.setattr(TestPrompts, "load", classmethod(lambda cls: known))
    others = write(tmp_path / "others.jsonl", [{"prompt": secret}, {"prompt": "Another prompt."}])
    trained(tmp_path, "--teacher", "mf", "--teacher-prompts", others)
    assert "left out 1 prompts of" in capsys.readouterr().err
    training = json.loads((tmp_path / "made" / META_FILE).read_text())["training"]
    assert training["prompts_of_the_teacher"] == 400 - 120 + 1


def test_excluded_prompts_are_gone_from_what_is_fitted_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = comparisons(200)
    out = sorted({row["prompt"] for row in rows})[:30]
    found = {"train_row": 1, "benchmark": "exam", "prompt_sha256": "0", "measure": "cosine", "value": 1.0}
    listed = [{**found, "train_sha256": prompt_hash(one)} for one in out]
    write_table(tmp_path / "near.jsonl", {name: [row[name] for row in listed] for name in listed[0]})
    fitted: list[Gains] = []

    def watch(*arguments: object) -> Gains:
        fitted.append(gather(*arguments))  # type: ignore[arg-type]
        return fitted[-1]

    monkeypatch.setattr("routellm.training.gain.gather", watch)
    data = write(tmp_path / "gains.jsonl", rows)
    flags = ["--validation-share", "0.3", "--exclude", str(tmp_path / "near.jsonl")]
    assert run_train("gain_fast", data, tmp_path / "made", *flags) == 0
    assert not set(fitted[0].prompts) & set(out)
    assert len(fitted[0].prompts) == 170
    training = json.loads((tmp_path / "made" / META_FILE).read_text())["training"]
    assert training["rows_left_out"] == {"on the list of prompts to leave out": 60}


ALIKE = {"gain/arts": (0.5, 0.9), "flat/sums": (0.5, 0.5)}


def flatten(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**row, "weight": 0.5} if row["source"] == "flat/sums" else row for row in rows]


@pytest.mark.parametrize(
    ("name", "flags", "code", "said"),
    [
        ("gain_fast", ["--across", "gian"], 2, "the kind 'gian' (did you mean 'gain'?); the data have: 'flat', 'gain'"),
        ("gain_fast", ["--penalty", "0"], 2, "--penalty is 0; it must be a number above 0"),
        ("gain_fast", ["--penalty", "nan"], 2, "--penalty is nan"),
        ("gain_fast", [], 1, "The training comparisons of the kind 'flat' end all alike"),
        ("gain_fast", ["--teacher-prompts", "some.jsonl"], 2, "speak of a teacher; name one by --teacher"),
        ("gain_fast", ["--teacher", "mf", "--teacher-weight", "0"], 2, "--teacher-weight is 0; it must be a number above 0"),
        ("gain_fast", ["--embedding-model", "statc"], 2, "Unknown embedder 'statc' (did you mean 'static'?)"),
        ("gain_fast", ["--embedding-model", "bert:nowhere"], 1, "No checkpoint at 'nowhere'"),
        ("gain_accurate", ["--embedding-model", "brt:x"], 2, "Unknown embedder 'brt'"),
        ("gain_accurate", ["--penalty", "0"], 2, "--penalty is 0; it must be a number above 0"),
        ("gain_accurate", ["--teacher-path", "x"], 2, "speak of a teacher; name one by --teacher"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, flags: list[str], code: int, said: str
) -> None:
    data = write(tmp_path / "gains.jsonl", flatten(comparisons(120, sources=ALIKE)))
    assert run_train(name, data, tmp_path / "made", *flags) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("routellm: error: ")
    assert said in error
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--teacher", "mff"], 2, "Unknown router 'mff'"),
        (["--teacher", "random"], 2, "--teacher 'random': nothing vouches that it scores a prompt alike each time"),
        (["--teacher", "mf", "--teacher-path", "nowhere"], 1, "No checkpoint at 'nowhere'"),
        (["--teacher", "mf", "--teacher-prompts", "none.jsonl"], 1, "none.jsonl"),
    ],
)
def test_a_teacher_that_can_not_teach_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, said: str
) -> None:
    data = write(tmp_path / "gains.jsonl", comparisons(120))
    assert run_train("gain_accurate", data, tmp_path / "made", "--embedding-model", "static", *flags) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("routellm: error: ")
    assert said in error
    assert not (tmp_path / "made").exists()


def test_nothing_to_calibrate_by_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One prompt in 120 is of the kind that scores are calibrated by, and it is not among the 12 for validation."""
    rows = comparisons(120, sources={"difficulty/sums": (0.2, 0.8)})
    rows += comparisons(2, sources={"gain/arts": (0.2, 0.8)})
    data = write(tmp_path / "gains.jsonl", rows)
    assert run_train("gain_fast", data, tmp_path / "made", "--across", "gain") == 1
    assert "No validation prompt has a comparison to calibrate by" in capsys.readouterr().err.splitlines()[-1]


# The pieces


def row(prompt: str, outcome: Outcome, weight: float = 1.0, source: str = "s", names: str = "big small") -> Preference:
    first, second = names.split()
    return Preference(prompt, first, second, outcome, source, weight)


def test_rows_of_a_prompt_and_source_are_one_gain_by_weight() -> None:
    rows = [
        row("a", "first", 3.0),
        row("a", "second", 1.0),
        row("b", "tie"),
        row("a", "first", source="gain/t"),
        row("b", "first", names="small big"),
        row("c", "first", names="big other"),
    ]
    gains = gather(rows, "big", "small")
    assert gains.prompts == ["a", "b"]
    assert (gains.prompt.tolist(), gains.sources, gains.source.tolist()) == ([0, 1, 0], ["gain/t", "s"], [1, 1, 0])
    assert (gains.gain.tolist(), gains.won.tolist()) == ([0.5, -0.5, 1.0], [0.75, 0.0, 1.0])
    assert {kind: places.tolist() for kind, places in gains.kinds().items()} == {"": [0, 1], "gain": [2]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("a", "first", names="big other")], "None of the 1 comparisons is of 'big' and 'small'"),
        ([row("a", "first"), row("b", "first")], "end alike"),
        ([row("a", "first"), row("a", "second"), row("b", "tie")], "end alike"),
    ],
)
def test_comparisons_that_say_nothing_are_refused(rows: list[Preference], said: str) -> None:
    with pytest.raises(DataError, match=said):
        gather(rows, "big", "small")


def test_a_sources_weight_grows_with_the_root_of_its_size() -> None:
    weights = balanced(np.array([0] * 16 + [1] * 4))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:16].sum() == pytest.approx(2 * weights[16:].sum())


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_platt_finds_slope_and_constant(shift: float) -> None:
    draw = np.random.default_rng(1)
    scores = draw.normal(0.0, 2.0, 5000)
    won: Callable[[float, float], np.ndarray] = lambda slope, bias: 1 / (1 + np.exp(-(slope * scores + bias)))  # noqa: E731
    slope, bias = platt(scores + shift, won(0.7, -1.2), np.ones(5000))
    assert (slope, bias) == (pytest.approx(0.7, abs=0.01), pytest.approx(-1.2 - 0.7 * shift, abs=0.01 + 0.01 * shift))
    slope, bias = platt(scores, won(-0.7, -1.2), np.ones(5000))
    assert 0.0 < slope < 0.01, "a score never ranks the wrong way round"
