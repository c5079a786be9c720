"""What the trainer of mf does with its data; that it is run by `routellm train` is tested in test_train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import ConfigError, DataError
from routellm.routers.battles import Outcome
from routellm.training.dataset import prepare, split_by_prompt
from routellm.training.mf import MatrixFactorizationTrainer, serving_offset
from routellm.training.preferences import Preference
from routellm.training.train import trainer_parser
from routellm.training.trainers import Trained, TrainingData

HARD = ["Prove the theorem about {} rigorously.", "Derive the equation of {} step by step.", "Solve {} = 0 for every x."]
EASY = ["Say hello to {}.", "What colour is the {}?", "Name a friend of {}."]


def battles(count: int = 400) -> list[Preference]:
    """The strong model wins on hard prompts, and on easy ones half of the time; a tenth are ties."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        hard = bool(random.random() < 0.5)
        prompt = str(random.choice(HARD if hard else EASY)).format(f"thing {number}")
        outcome: Outcome = "tie" if random.random() < 0.1 else "first" if hard or random.random() < 0.5 else "second"
        rows.append(Preference(prompt, "big", "small", outcome, "votes"))
    return rows


def train(rows: Sequence[Preference], work: Path, *flags: str) -> Trained:
    arguments = trainer_parser("routellm train", "mf").parse_args(["--data", "-", "--output", "-", *flags])
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    held_prompts = {prompts[index] for index in np.flatnonzero(split_by_prompt(len(prompts), 0.25, 0))}
    held = np.array([row.prompt in held_prompts for row in rows])
    work.mkdir(exist_ok=True)
    data = TrainingData(rows, held, "big", "small", seed=0)
    return MatrixFactorizationTrainer().fit(data, arguments, work, lambda line: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(battles(), tmp_path_factory.mktemp("mf"), "--epochs", "30", "--learning-rate", "0.003")


def test_it_learns_what_was_planted(trained: Trained) -> None:
    hard = trained.router.calculate_strong_win_rates([prompt.format("matter") for prompt in HARD])
    easy = trained.router.calculate_strong_win_rates([prompt.format("matter") for prompt in EASY])
    assert hard.min() > easy.max()
    assert trained.metrics["validation_loss"] < trained.metrics["validation_loss_of_offsets_alone"]


def test_scores_are_calibrated_to_outright_wins(trained: Trained) -> None:
    """Two thirds of the comparisons are won outright by the strong model (0.9 * 0.75); ties count as not won."""
    rows = battles()
    won = np.mean([row.outcome == "first" for row in rows])
    scores = trained.router.calculate_strong_win_rates([row.prompt for row in rows])
    assert scores.mean() == pytest.approx(won, abs=0.08)


def same(first: Trained, second: Trained) -> bool:
    return all((first.tensors[name] == second.tensors[name]).all() for name in first.tensors)


def test_ties_are_left_out_or_count_as_not_won(tmp_path: Path) -> None:
    rows = battles(120)
    dropped = train(rows, tmp_path / "a", "--epochs", "2")
    assert same(dropped, train(rows, tmp_path / "b", "--epochs", "2"))
    assert not same(dropped, train(rows, tmp_path / "c", "--epochs", "2", "--ties", "loss"))


def test_a_rows_weight_counts_in_the_loss(tmp_path: Path) -> None:
    """Hard and easy prompts differ in nothing but the weight of their outcomes."""
    rows = []
    for number in range(150):
        for template, won in ((HARD[number % 3], 0.95), (EASY[number % 3], 0.05)):
            prompt = template.format(f"thing {number}")
            rows += [
                Preference(prompt, "big", "small", "first", "s", won),
                Preference(prompt, "big", "small", "second", "s", 1.0 - won),
            ]
    router = train(rows, tmp_path, "--epochs", "30", "--learning-rate", "0.003").router
    hard, easy = (router.calculate_strong_win_rates([row.prompt for row in rows[at::4]]).mean() for at in (0, 2))
    assert hard > 0.8
    assert easy < 0.2


def test_weights_of_one_change_nothing_and_sources_count_by_the_root_of_their_weight() -> None:
    features = PromptFeatures(load_embedder("static"))
    rows = [Preference(f"p{number}", "a", "b", "first", "large" if number else "small") for number in range(5)]
    assert prepare(rows, features).battles.weight == pytest.approx(np.array([5 / 3, 5 / 6, 5 / 6, 5 / 6, 5 / 6]))
    halved = [Preference(row.prompt, "a", "b", "first", row.source, 1.0 if row.source == "small" else 0.25) for row in rows]
    weights = prepare(halved, features).battles.weight  # both sources now weigh 1
    assert weights == pytest.approx(np.array([2.5, 0.625, 0.625, 0.625, 0.625]))


def test_one_class_only_is_told_with_what_may_help(tmp_path: Path) -> None:
    rows = [Preference(f"p{number}", "big", "small", "tie" if number % 2 else "first", "s") for number in range(40)]
    with pytest.raises(DataError, match=r"20 \(none that the first model did not win\).*--ties loss|--ties loss"):
        train(rows, tmp_path)
    train(rows, tmp_path, "--ties", "loss", "--epochs", "1")


@pytest.mark.parametrize(("flag", "value"), [("--dim", "0"), ("--epochs", "-1"), ("--noise", "-0.1")])
def test_settings_out_of_range(tmp_path: Path, flag: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} is {value}"):
        train(battles(20), tmp_path, flag, value)


def test_split_is_by_prompt_and_seeded() -> None:
    held = split_by_prompt(1000, 0.1, 0)
    assert held.sum() == 100
    assert (held == split_by_prompt(1000, 0.1, 0)).all()
    assert not (held == split_by_prompt(1000, 0.1, 1)).all()


def test_serving_offset_moves_the_mean_where_it_should_be() -> None:
    random = np.random.default_rng(0)
    logits, weights = random.normal(2.0, 1.0, 500), random.random(500)
    assert np.mean(1 / (1 + np.exp(-(logits + serving_offset(logits, 0.3))))) == pytest.approx(0.3, abs=1e-6)
    rates = 1 / (1 + np.exp(-(logits + serving_offset(logits, 0.3, weights))))
    assert np.average(rates, weights=weights) == pytest.approx(0.3, abs=1e-6)
