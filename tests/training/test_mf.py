"""The trainer as a user runs it: from a file to a folder that a configuration can point at."""

import json
from pathlib import Path

import numpy as np
import pytest

from routellm.routers.checkpoint import META_FILE, WEIGHTS_FILE
from routellm.routers.mf import MatrixFactorizationRouter
from routellm.training.dataset import split_by_prompt
from routellm.training.mf import main, serving_offset

HARD = ["Prove the theorem about {} rigorously.", "Derive the equation of {} step by step.", "Solve {} = 0 for every x."]
EASY = ["Say hello to {}.", "What colour is the {}?", "Name a friend of {}."]


def battles(path: Path, count: int = 400) -> str:
    """The strong model wins on hard prompts, and on easy ones half of the time; a tenth are ties."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        hard = bool(random.random() < 0.5)
        prompt = str(random.choice(HARD if hard else EASY)).format(f"thing {number}")
        winner = "tie" if random.random() < 0.1 else "model_a" if hard or random.random() < 0.5 else "model_b"
        rows.append({"prompt": prompt, "model_a": "big", "model_b": "small", "winner": winner})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mf")
    arguments = ["--data", battles(folder / "votes.jsonl"), "--output", str(folder / "out")]
    models = ["--strong-model", "big", "--weak-model", "small"]
    assert main([*arguments, *models, "--epochs", "30", "--learning-rate", "0.003", "--validation-share", "0.25"]) == 0
    return folder


def test_the_folder_is_a_router_that_learned_what_was_planted(trained: Path) -> None:
    router = MatrixFactorizationRouter(str(trained / "out"))
    hard = router.calculate_strong_win_rates([prompt.format("matter") for prompt in HARD])
    easy = router.calculate_strong_win_rates([prompt.format("matter") for prompt in EASY])
    assert hard.min() > easy.max()


def test_scores_are_calibrated_to_outright_wins(trained: Path) -> None:
    """Two thirds of the comparisons are won outright by the strong model (0.9 * 0.75); ties count as not won."""
    router = MatrixFactorizationRouter(str(trained / "out"))
    rows = [json.loads(line) for line in (trained / "votes.jsonl").read_text().splitlines()]
    won = np.mean([row["winner"] == "model_a" for row in rows])
    scores = router.calculate_strong_win_rates([row["prompt"] for row in rows])
    assert scores.mean() == pytest.approx(won, abs=0.08)


def test_the_card_and_the_meta_tell_how_it_was_made(trained: Path) -> None:
    meta = json.loads((trained / "out" / META_FILE).read_text())
    card = (trained / "out" / "README.md").read_text()
    assert meta["training"]["data"]["votes.jsonl"].startswith("sha256:")
    assert meta["training"]["rows_by_source"] == {"votes": 400}
    assert meta["training"]["seed"] == 0
    assert f"{meta['metrics']['validation_loss']:.4f}" in card
    assert meta["metrics"]["validation_loss"] < meta["metrics"]["validation_loss_of_offsets_alone"]
    assert meta["metrics"]["validation_auc_by_source"]["votes"] > 0.7


def test_quantiles_are_those_of_the_saved_router(trained: Path) -> None:
    router = MatrixFactorizationRouter(str(trained / "out"))
    rows = [json.loads(line)["prompt"] for line in (trained / "votes.jsonl").read_text().splitlines()]
    assert router.quantiles is not None
    chosen = router.quantiles.threshold_for_share(0.3)
    assert np.mean(router.calculate_strong_win_rates(rows) >= chosen.threshold) == pytest.approx(0.3, abs=0.01)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    file = battles(tmp_path / "votes.jsonl", 120)
    models = ["--strong-model", "big", "--weak-model", "small", "--epochs", "2"]
    for name in ("one", "two"):
        assert main(["--data", file, "--output", str(tmp_path / name), *models]) == 0
    assert (tmp_path / "one" / WEIGHTS_FILE).read_bytes() == (tmp_path / "two" / WEIGHTS_FILE).read_bytes()


def test_ties_are_left_out_or_count_as_not_won(tmp_path: Path) -> None:
    file = battles(tmp_path / "votes.jsonl", 120)
    models = ["--strong-model", "big", "--weak-model", "small", "--epochs", "2"]
    for ties in ("drop", "loss"):
        assert main(["--data", file, "--output", str(tmp_path / ties), "--ties", ties, *models]) == 0
    assert (tmp_path / "drop" / WEIGHTS_FILE).read_bytes() != (tmp_path / "loss" / WEIGHTS_FILE).read_bytes()


def test_a_model_that_the_data_lack_is_an_error_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = battles(tmp_path / "votes.jsonl", 20)
    assert main(["--data", file, "--output", str(tmp_path / "out"), "--strong-model", "gpt"]) == 2
    assert "The data hold no model 'gpt'. Give --strong-model and --weak-model out of: big, small" in capsys.readouterr().err


def test_ties_only_can_not_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{i}", "model_a": "big", "model_b": "small", "winner": "tie"} for i in range(30)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--data", str(tmp_path / "t.jsonl"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--strong-model", "big", "--weak-model", "small"]) == 1
    assert "decided comparisons won by either side" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_split_is_by_prompt_and_seeded() -> None:
    held = split_by_prompt(1000, 0.1, 0)
    assert held.sum() == 100
    assert (held == split_by_prompt(1000, 0.1, 0)).all()
    assert not (held == split_by_prompt(1000, 0.1, 1)).all()


def test_serving_offset_moves_the_mean_where_it_should_be() -> None:
    logits = np.random.default_rng(0).normal(2.0, 1.0, 500)
    offset = serving_offset(logits, 0.3)
    assert np.mean(1 / (1 + np.exp(-(logits + offset)))) == pytest.approx(0.3, abs=1e-6)
