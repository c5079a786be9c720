"""An encoder that learns a language model's states, on states made of the letters of prompts."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest

from routellm.embeddings.truncation import HEAD_TAIL, TokenIds
from routellm.errors import DataError
from routellm.tables import write_table
from routellm.training.bert_data import Examples, Rows
from routellm.training.trainers import Trained
from tests.conftest import require
from tests.embeddings.encoders import write_tokenizer
from tests.training.letters import data, train, write_small_encoder

WIDTH = 6
LONGER = ("--epochs", "4", "--epoch-size", "200")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_encoder(tmp_path_factory.mktemp("encoder"))


def states_file(folder: Path, **changed: Any) -> str:
    """States of 400 prompts: means over letters, of which there are more than the encoder is wide."""
    random = np.random.default_rng(4)
    of_letter = dict(zip(ascii_lowercase, random.normal(size=(26, WIDTH)), strict=True))
    prompts = [" ".join(random.choice(list(of_letter), 5)) for _ in range(400)]
    states = [np.mean([of_letter[letter] for letter in prompt.split()], axis=0).tolist() for prompt in prompts]
    table = {"prompt": prompts, "state": states, **changed}
    write_table(folder / "states.jsonl", {name: column for name, column in table.items() if column is not None})
    return str(folder / "states.jsonl")


def made_examples(file: str, folder: Path, check_size: int = 40, seed: int = 0) -> tuple[Examples, Rows, Rows]:
    require("torch")
    from routellm.training.bert_states import state_examples

    write_tokenizer(folder / "tokenizer.json")
    return state_examples(file, TokenIds(folder / "tokenizer.json", 16, HEAD_TAIL).of_batch, check_size, seed)


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("work")
    return train(encoder, folder, "--states", states_file(folder), *LONGER)


def test_the_encoder_learns_to_predict_states_from_what_it_says_of_them_before(encoder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    made = train(encoder, tmp_path, "--states", states_file(tmp_path), *LONGER, lines=lines)
    told = next(line for line in lines if line.startswith("before the first step: "))
    before = 1.0 - float(told.rpartition(" ")[2])
    assert 0.2 < before < 0.8
    assert made.metrics["states_r2"] > before + 0.1
    assert any(line.startswith("360 states to learn, 40 to check") for line in lines)


def test_what_is_served_was_fitted_to_the_comparisons(trained: Trained) -> None:
    early, late = trained.router.calculate_strong_win_rates(["a b c d a", "w x y z w"])
    assert early > late + 0.1
    rates = trained.router.calculate_strong_win_rates([row.prompt for row in data().rows])
    assert 0.05 < rates.std() < 0.4
    assert trained.metrics["int8_rank_correlation"] > 0.97
    assert "validation_loss" not in trained.metrics
    assert trained.settings["refit_head"] is True
    assert trained.settings["states"].startswith("states.jsonl, sha256:")


def test_a_resumed_run_learns_what_one_that_never_broke_off_learned(encoder: Path, trained: Trained, tmp_path: Path) -> None:
    flags = ("--states", states_file(tmp_path), *LONGER)

    class Interrupted(Exception):
        pass

    class Breaks(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if len(self) > 1 and self[-2].startswith("epoch 2, step 4 of 10"):
                raise Interrupted

    with pytest.raises(Interrupted):
        train(encoder, tmp_path, *flags, lines=Breaks())
    lines: list[str] = []
    again = train(encoder, tmp_path, *flags, resume=True, lines=lines)
    assert not any(line.startswith(("before the first step", "epoch 1", "epoch 2, step 2 ")) for line in lines)
    assert again.metrics == trained.metrics


def test_states_beyond_the_spread_of_most_do_not_make_the_components(tmp_path: Path) -> None:
    file, random = str(tmp_path / "states.jsonl"), np.random.default_rng(5)
    states = random.normal(size=(100, 3))
    states[::10, 2] = 1e4
    write_table(file, {"prompt": [f"a {place}" for place in range(100)], "state": states.tolist()})
    targets = made_examples(file, tmp_path)[0].targets
    assert targets.var(axis=0).sum() == pytest.approx(1.0)
    assert targets.var(axis=0)[0] < 0.7


def test_prompts_held_out_are_drawn_by_the_seed_and_at_most_a_fifth(tmp_path: Path) -> None:
    file = states_file(tmp_path)
    _, training, checking = made_examples(file, tmp_path)
    assert (len(training), len(checking)) == (360, 40)
    assert sorted({*training, *checking}) == list(range(400))
    assert len(made_examples(file, tmp_path, check_size=1000)[2]) == 80
    assert made_examples(file, tmp_path)[2].tolist() == checking.tolist()
    assert made_examples(file, tmp_path, seed=1)[2].tolist() != checking.tolist()


def test_no_more_of_a_prompt_is_read_than_its_state_is_of(tmp_path: Path) -> None:
    prompts = [f"{'ab ' * 400}{tail}" for tail in ["", *"cdefghijk"]]
    write_table(tmp_path / "long.jsonl", {"prompt": prompts, "state": np.eye(10).tolist()})
    ids = made_examples(str(tmp_path / "long.jsonl"), tmp_path)[0].ids
    assert all(each.tolist() == ids[0].tolist() for each in ids)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"state": [[0.0, 1.0]] * 399 + [[0.0]]}, r"states of the widths \[1, 2\]"),
        ({"state": [[0.0, 1.0]] * 399 + [[0.0, float("nan")]]}, "holds states that are not finite"),
        ({"state": None}, "has no column 'state'"),
    ],
)
def test_a_file_without_states_is_refused(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        made_examples(states_file(tmp_path, **changed), tmp_path)


def test_a_file_of_too_few_prompts_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "few.jsonl", {"prompt": list("abcdefghi"), "state": np.eye(9).tolist()})
    with pytest.raises(DataError, match="has states of 9 prompts; it must have at least 10"):
        made_examples(str(tmp_path / "few.jsonl"), tmp_path)


def test_a_file_that_is_not_there_is_refused_by_the_command(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        train(encoder, tmp_path, "--states", str(tmp_path / "none.parquet"))
