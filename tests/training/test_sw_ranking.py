"""What the trainer of sw_ranking does with its data, alone and as `routellm train` runs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from routellm.errors import ConfigError, DataError
from routellm.routers.battles import Battle, Outcome
from routellm.routers.checkpoint import META_FILE
from routellm.routers.sw_ranking import EMBEDDINGS_FILE, SimilarityWeightedRouter
from routellm.training.preferences import Preference
from routellm.training.sw_ranking import SimilarityWeightedTrainer
from routellm.training.train import main, trainer_parser
from routellm.training.trainers import Trained, TrainingData

HARD = "Prove the theorem about thing {} rigorously."
EASY = "Say hello to my good friend {}."
QUESTIONS = ["Prove the theorem about primes rigorously.", "Say hello to my good friend Ann."]


def votes(count: int = 300, source: str = "votes", win_share: float = 0.5) -> list[Preference]:
    """The strong model wins on hard prompts, on easy ones `win_share` of the time; a tenth are ties."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        hard = bool(random.random() < 0.5)
        outcome: Outcome = "tie" if random.random() < 0.1 else "first" if hard or random.random() < win_share else "second"
        rows.append(Preference((HARD if hard else EASY).format(number), "strong", "weak", outcome, source))
    return rows


def train(rows: Sequence[Preference], work: Path, *flags: str, held: Sequence[bool] | None = None) -> Trained:
    arguments = trainer_parser("routellm train", "sw_ranking").parse_args(["--data", "-", "--output", "-", *flags])
    work.mkdir(exist_ok=True)
    mask = np.array(held if held is not None else [False] * len(rows))
    return SimilarityWeightedTrainer().fit(
        TrainingData(rows, mask, "strong", "weak", seed=0), arguments, work, lambda line: None
    )


def router(trained: Trained) -> SimilarityWeightedRouter:
    assert isinstance(trained.router, SimilarityWeightedRouter)
    return trained.router


def scores(trained: Trained) -> list[float]:
    return [float(score) for score in trained.router.calculate_strong_win_rates(QUESTIONS)]


def test_two_roles_make_two_tiers_and_hard_prompts_score_higher(tmp_path: Path) -> None:
    trained = train(votes(), tmp_path)
    assert router(trained).ranking.tier_count == 2
    hard, easy = scores(trained)
    assert hard > easy + 0.05


def test_rows_for_validation_are_not_seen(tmp_path: Path) -> None:
    rows = votes()
    held = [number % 3 == 0 for number in range(len(rows))]
    some = train([row for row, out in zip(rows, held, strict=True) if not out], tmp_path)
    assert scores(train(rows, tmp_path, held=held)) == scores(some)
    assert scores(train(rows, tmp_path)) != scores(some)


def test_a_rows_weight_is_for_how_many_it_counts(tmp_path: Path) -> None:
    rows = votes(60)
    heavy = [*rows, Preference(HARD.format("x"), "strong", "weak", "second", "votes", weight=9.0)]
    often = [*rows, *[Preference(HARD.format("x"), "strong", "weak", "second", "votes")] * 9]
    assert scores(train(heavy, tmp_path)) == pytest.approx(scores(train(often, tmp_path)), abs=1e-9)


def test_ties_are_half_a_win_for_each_or_left_out_or_lost(tmp_path: Path) -> None:
    tied = [Preference(EASY.format(n), "strong", "weak", "tie", "votes") for n in range(40)]
    rows = [*votes(40), *tied]
    half, drop, loss = (scores(train(rows, tmp_path, "--ties", ties))[1] for ties in ("half", "drop", "loss"))
    assert loss < half
    assert loss < drop
    assert scores(train(votes(40) + tied, tmp_path, "--ties", "drop")) == scores(
        train([row for row in rows if row.outcome != "tie"], tmp_path)
    )


def masses(trained: Trained, sources: Sequence[Preference]) -> dict[tuple[str, int], float]:
    """The weight of each source's battles by the points of the first model."""
    table = router(trained).ranking.table
    of_prompt = {place: row.source for row, place in zip(sources, range(len(sources)), strict=True)}
    found: dict[tuple[str, int], float] = {}
    for prompt, points, weight in zip(table.prompt, table.points, table.weight, strict=True):
        key = (of_prompt[int(prompt)], int(points))
        found[key] = found.get(key, 0.0) + float(weight)
    return found


def test_balance_gives_sources_or_their_outcomes_equal_weight(tmp_path: Path) -> None:
    small = [
        Preference(f"Another question with number {n}", "strong", "weak", "tie" if n % 5 == 0 else "first", "few")
        for n in range(30)
    ]
    small[3] = Preference(small[3].prompt, "strong", "weak", "second", "few")
    rows = [*votes(200), *small]
    sources = masses(train(rows, tmp_path, "--balance", "sources"), rows)
    total = {name: sum(mass for (source, _), mass in sources.items() if source == name) for name in ("votes", "few")}
    assert total["votes"] == pytest.approx(total["few"], rel=1e-5)
    assert sum(total.values()) == pytest.approx(len(rows), rel=1e-5)
    outcomes = masses(train(rows, tmp_path, "--balance", "outcomes"), rows)
    assert set(outcomes) == {("votes", 2), ("votes", 0), ("few", 2), ("few", 0)}
    assert max(outcomes.values()) == pytest.approx(min(outcomes.values()), rel=1e-5)


def test_surface_features_tell_apart_what_an_embedding_takes_for_alike(tmp_path: Path) -> None:
    """The strong model wins where the same words hold numbers and come twice over."""
    short, long = "Add the apples of Tom", "Add the apples of Tom, 3 + {}; and then, add the apples of Tom: 5 * {}?"
    rows = [
        Preference(long.format(n, n + 7) if n % 2 else f"{short} {'and Ann ' * (n % 3)}.", "strong", "weak", outcome, "votes")
        for n, outcome in ((n, "first" if n % 2 else "second") for n in range(120))
    ]
    apart = []
    for length in ("0", "1"):
        found = train(rows, tmp_path, "--surface-length", length).router.calculate_strong_win_rates([long.format(8, 9), short])
        apart.append(found[0] - found[1])
    assert apart[1] > apart[0] + 0.02


def test_joined_vectors_are_saved_and_loaded(tmp_path: Path) -> None:
    rows = [
        {"prompt": row.prompt, "strong_score": row.outcome == "first", "weak_score": row.outcome == "second"}
        for row in votes()
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out"
    flags = ["--by-role", "--surface-length", "0.5", "--output", str(output)]
    assert main(["sw_ranking", "--data", str(tmp_path / "votes.jsonl"), *flags]) == 0
    loaded = SimilarityWeightedRouter(checkpoint_path=str(output))
    hard, easy = loaded.calculate_strong_win_rates(QUESTIONS)
    assert hard > easy
    assert [loaded.calculate_strong_win_rate(one) for one in QUESTIONS] == [hard, easy]
    assert loaded.add_battles([Battle(QUESTIONS[1], "strong", "weak", "first")] * 200) == 200
    assert loaded.calculate_strong_win_rate(QUESTIONS[1]) > easy
    assert "| surface_length | 0.5 |" in (output / "README.md").read_text()


def test_what_can_not_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No battle is left of 5 comparisons"):
        train([Preference("short prompt", "strong", "weak", "first", "votes")] * 5, tmp_path)
    with pytest.raises(DataError, match="All battles are ties"):
        train([Preference(HARD, "strong", "weak", "tie", "votes")] * 5, tmp_path)
    with pytest.raises(DataError, match="or ties"):
        train([Preference(HARD, "strong", "weak", "tie", "votes")] * 5, tmp_path, "--ties", "drop")
    with pytest.raises(ConfigError, match="no model 'weak'"):
        train([Preference(HARD, "strong", "other", "first", "votes")] * 5, tmp_path)
    with pytest.raises(ConfigError, match="--surface-length is -1; it must be from 0"):
        train(votes(20), tmp_path, "--surface-length", "-1")
    with pytest.raises(ConfigError, match="num_tiers is 1"):
        train(votes(20), tmp_path, "--num-tiers", "1")


def test_the_command_makes_a_folder_that_scores_alike(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": row.prompt,
            "strong": "gpt",
            "weak": "llama",
            "outcome": {"first": "strong", "second": "weak"}.get(row.outcome, "tie"),
        }
        for row in votes(400)
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out"
    flags = ["--by-role", "--sharpness", "2", "--output", str(output)]
    assert main(["sw_ranking", "--data", str(tmp_path / "votes.jsonl"), *flags]) == 0
    loaded = SimilarityWeightedRouter(checkpoint_path=str(output))
    hard, easy = loaded.calculate_strong_win_rates(QUESTIONS)
    assert hard > easy
    assert loaded.quantiles is not None
    assert loaded.quantiles.prompts == 400
    meta = json.loads((output / META_FILE).read_text())
    assert (meta["sharpness"], meta["model_ids"], set(meta["files"])) == (2.0, ["strong", "weak"], {EMBEDDINGS_FILE})
    assert meta["metrics"]["validation_by_source"]["votes"]["auc"][0] > 0.6
    assert "| sharpness | 2.0 |" in (output / "README.md").read_text()
    assert not list(output.glob("*.work"))
