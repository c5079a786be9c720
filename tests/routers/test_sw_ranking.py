"""Similarity-weighted ranking against the paper's formulas, written out plainly over all battles."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from routellm.config import load_config
from routellm.embeddings.base import EMBEDDERS
from routellm.errors import ConfigError, DataError, EmbeddingError
from routellm.routers.battles import Battle
from routellm.routers.routers import ROUTER_CLS
from routellm.routers.sw_ranking import SimilarityWeightedRouter
from tests.routers.battle_files import MODELS, PROMPTS, GridEmbedder, battles_of, build, embedded, random_rows, write
from tests.routers.test_bradley_terry import logistic_regression


@pytest.fixture(autouse=True)
def grid_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDERS, "grid", GridEmbedder)


def plain_win_rate(rows: Sequence[dict[str, Any]], tiers: dict[str, int], prompt: str, sharpness: float = 1.0) -> float:
    """The method as the paper tells it: weights of all battles, and a logistic regression over them."""
    embed = GridEmbedder().embed_batch([json.loads(row["prompt"])[0] for row in rows]).astype(np.float64)
    query = GridEmbedder().embed(prompt).astype(np.float64)
    cosine = embed @ query / np.linalg.norm(embed, axis=1) / np.linalg.norm(query)
    weight = 10 * 10 ** (1 + sharpness * (cosine / cosine.max() - 1))
    first = np.array([tiers[row["model_a"]] for row in rows])
    second = np.array([tiers[row["model_b"]] for row in rows])
    score = np.array([row["winner_model_a"] + 0.5 * row["winner_tie"] for row in rows])
    across = first != second  # a tier does not beat itself
    count = max(tiers.values()) + 1
    ratings = logistic_regression(first[across], second[across], score[across], weight[across], count, ridge=1.0)
    strong, weak = (400 / np.log(10) * ratings[tiers[name]] for name in ("alpha", "zeta"))
    return float(1 / (1 + 10 ** ((weak - strong) / 400)))


@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_equals_the_papers_formula_over_all_battles(tmp_path: Path, sharpness: float) -> None:
    rows = random_rows(600)
    router = build(tmp_path, rows, sharpness=sharpness)
    each_its_own = {name: tier for tier, name in enumerate(MODELS)}
    for prompt in PROMPTS[:4]:
        assert router.calculate_strong_win_rate(prompt) == pytest.approx(
            plain_win_rate(rows, each_its_own, prompt, sharpness), abs=1e-6
        )


def test_models_are_rated_by_tiers(tmp_path: Path) -> None:
    rows = random_rows(600)
    router = build(tmp_path, rows, num_tiers=3)
    halves = {"alpha": 2, "beta": 2, "gamma": 1, "delta": 1, "epsilon": 0, "zeta": 0}
    assert router.ranking.tier_count == 3
    for prompt in PROMPTS[:3]:
        assert router.calculate_strong_win_rate(prompt) == pytest.approx(plain_win_rate(rows, halves, prompt), abs=1e-6)


def test_embeddings_from_a_data_set_equal_those_made_here(tmp_path: Path) -> None:
    rows = random_rows(300)
    embeddings = [embedded(tmp_path / "embeddings.jsonl", rows)]
    given, made = build(tmp_path, rows, arena_embedding_datasets=embeddings), build(tmp_path, rows)
    assert given.calculate_strong_win_rates(PROMPTS).tolist() == made.calculate_strong_win_rates(PROMPTS).tolist()
    assert given.fingerprint == made.fingerprint


def test_several_data_sets_equal_one(tmp_path: Path) -> None:
    rows = random_rows(300)
    parts = [rows[:100], rows[100:]]
    several = SimilarityWeightedRouter(
        [write(tmp_path / f"b{number}.jsonl", part) for number, part in enumerate(parts)],
        [embedded(tmp_path / f"e{number}.jsonl", part) for number, part in enumerate(parts)],
        "alpha",
        "zeta",
        embedding_model="grid",
    )
    one = build(tmp_path, rows)
    assert several.calculate_strong_win_rates(PROMPTS) == pytest.approx(one.calculate_strong_win_rates(PROMPTS), abs=1e-9)


def test_similar_battles_decide(tmp_path: Path) -> None:
    base = {"model_a": "big", "model_b": "small"}
    maths = [{**base, "prompt": f"Prove the theorem about {n} primes.", "winner": "model_a"} for n in range(30)]
    chat = [{**base, "prompt": f"Say hello to my {n} friends.", "winner": ["model_b", "tie"][n % 2]} for n in range(30)]
    file = write(tmp_path / "b.jsonl", maths + chat)
    router = SimilarityWeightedRouter(file, strong_model="big", weak_model="small")
    hard, easy = router.calculate_strong_win_rates(["Prove that there are infinitely many primes.", "Say hello to my dog"])
    assert hard > 0.55 > 0.45 > easy
    sharper = SimilarityWeightedRouter(file, strong_model="big", weak_model="small", sharpness=5)
    assert sharper.calculate_strong_win_rate("Prove that there are infinitely many primes.") > hard


def test_a_batch_equals_singles_to_the_bit_over_many_blocks(tmp_path: Path) -> None:
    router = build(tmp_path, random_rows(2000), num_tiers=4)
    prompts = [*PROMPTS, *(f"prompt {number}" for number in range(150))]
    together = router.calculate_strong_win_rates(prompts)
    assert together.tolist() == [router.calculate_strong_win_rate(prompt) for prompt in prompts]
    assert router.calculate_strong_win_rates([]).shape == (0,)


def test_a_prompt_that_resembles_nothing_is_judged_by_all_battles_alike(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"an English question, number {n}", "model_a": "a", "model_b": "b", "winner": "model_a"} for n in range(9)
    ]
    file = write(tmp_path / "b.jsonl", [*rows, {**rows[0], "winner": "model_b"}])
    router = SimilarityWeightedRouter(file, strong_model="a", weak_model="b")
    for nothing in ("", "\x00", " "):
        parts = router.explain(nothing)
        assert parts["similar_battles"] == 0.0
        assert router.calculate_strong_win_rate(nothing) == pytest.approx(0.9, abs=0.01)


def test_an_explanation_sums_to_the_log_odds(tmp_path: Path) -> None:
    router = build(tmp_path, random_rows(300))
    constants = set()
    for prompt in PROMPTS[:4]:
        parts = router.explain(prompt)
        rate = router.calculate_strong_win_rate(prompt)
        assert sum(parts.values()) == pytest.approx(np.log(rate / (1 - rate)), abs=1e-9)
        constants.add(parts["constant"])
    assert len(constants) == 1


def test_swapping_the_models_mirrors_the_win_rate(tmp_path: Path) -> None:
    rows = random_rows(300)
    one, other = build(tmp_path, rows), build(tmp_path, rows, strong_model="zeta", weak_model="alpha")
    assert one.calculate_strong_win_rates(PROMPTS) + other.calculate_strong_win_rates(PROMPTS) == pytest.approx(1.0)


def test_the_published_configurations_keys_are_taken() -> None:
    published = load_config(Path(__file__).parents[2] / "config.hub.yaml", ROUTER_CLS)["sw_ranking"]
    assert set(published) <= set(signature(SimilarityWeightedRouter).parameters)
    assert {"arena_battle_datasets", "arena_embedding_datasets", "num_tiers"} <= set(published)


# Adding battles


def test_added_battles_count_as_if_they_had_always_been_there(tmp_path: Path) -> None:
    rows, more = random_rows(300), random_rows(120, seed=1, models=[*MODELS, "omega"])
    router = build(tmp_path, rows)
    before = router.fingerprint
    assert router.add_battles(battles_of(more[:50])) == 50
    assert router.add_battles(battles_of(more[50:])) == 70
    whole = build(tmp_path, rows + more)
    assert router.calculate_strong_win_rates(PROMPTS) == pytest.approx(whole.calculate_strong_win_rates(PROMPTS), abs=1e-9)
    assert router.ranking.table.models == whole.ranking.table.models
    assert router.fingerprint != before


def test_weights_say_for_how_many_battles_one_counts(tmp_path: Path) -> None:
    rows = random_rows(100)
    heavy, many = build(tmp_path, rows), build(tmp_path, rows)
    battle = Battle("Another question about something", "alpha", "zeta", "second")
    heavy.add_battles([Battle(battle.prompt, battle.first, battle.second, battle.outcome, weight=7.0)])
    many.add_battles([battle] * 7)
    assert heavy.calculate_strong_win_rates(PROMPTS) == pytest.approx(many.calculate_strong_win_rates(PROMPTS), abs=1e-9)


def test_short_prompts_are_left_out(tmp_path: Path) -> None:
    router = build(tmp_path, random_rows(100))
    before = router.fingerprint
    assert router.add_battles([Battle("fifteen letters", "alpha", "zeta", "first")]) == 0
    assert router.fingerprint == before
    assert router.add_battles([Battle("sixteen letters!", "alpha", "zeta", "first")]) == 1


@pytest.mark.parametrize(
    "battle",
    [
        Battle("a long enough prompt", "alpha", "alpha", "first"),
        Battle("a long enough prompt", "alpha", "beta", "alpha"),  # type: ignore[arg-type]
        Battle("a long enough prompt", "alpha", "beta", "tie", weight=0.0),
        Battle("a long enough prompt", "alpha", "beta", "tie", weight=float("nan")),
    ],
)
def test_what_is_no_battle_is_refused_whole(tmp_path: Path, battle: Battle) -> None:
    router = build(tmp_path, random_rows(100))
    before = router.fingerprint
    with pytest.raises(DataError):
        router.add_battles([Battle("a long enough prompt", "alpha", "beta", "first"), battle])
    assert router.fingerprint == before


def test_threads_score_while_others_add(tmp_path: Path) -> None:
    rows = random_rows(400)
    router, steps = build(tmp_path, rows[:200], num_tiers=3), 10
    stages = [build(tmp_path, rows[: 200 + 10 * step], num_tiers=3) for step in range(steps + 1)]
    allowed = [stage.calculate_strong_win_rates(PROMPTS) for stage in stages]
    seen: list[NDArray[np.float64]] = []
    done = threading.Event()

    def score() -> None:
        while not done.is_set():
            seen.append(router.calculate_strong_win_rates(PROMPTS))

    readers = [threading.Thread(target=score) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(steps):
        router.add_battles(battles_of(rows[200 + 10 * step : 210 + 10 * step]))
    done.set()
    for reader in readers:
        reader.join()
    assert router.calculate_strong_win_rates(PROMPTS) == pytest.approx(allowed[-1], abs=1e-9)
    assert seen
    assert all(any(np.allclose(scores, stage, atol=1e-9, rtol=0) for stage in allowed) for scores in seen)


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    router, more = build(tmp_path, random_rows(100)), battles_of(random_rows(80, seed=2))
    writers = [threading.Thread(target=lambda part=more[n::8]: [router.add_battles([b]) for b in part]) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(router.ranking.table) == 180


# What is refused


def test_an_unknown_model_is_named_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model 'alpa' \(did you mean 'alpha'\?\). They know: alpha, beta"):
        build(tmp_path, random_rows(100), strong_model="alpa")
    with pytest.raises(ConfigError, match=r"no model 'mixtral-8x7b-instruct-v0\.1'"):
        build(tmp_path, random_rows(100), weak_model=None)


def test_models_of_one_tier_can_not_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'alpha' and 'beta'.*one of 2 tiers.*Raise num_tiers \(at most 6\)"):
        build(tmp_path, random_rows(600), weak_model="beta", num_tiers=2)


@pytest.mark.parametrize("arguments", [{"num_tiers": 1}, {"num_tiers": 2.5}, {"sharpness": -1}, {"sharpness": "high"}])
def test_settings_out_of_range(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        build(tmp_path, random_rows(50), **arguments)


def test_ties_only_or_nothing_left(tmp_path: Path) -> None:
    ties = [{"prompt": f"a long enough prompt {n}", "model_a": "alpha", "model_b": "zeta", "winner": "tie"} for n in range(9)]
    with pytest.raises(DataError, match="All battles are ties"):
        build(tmp_path, ties)
    with pytest.raises(DataError, match=r"No battle is left.*at least 16 characters"):
        build(tmp_path, [{**row, "prompt": "short"} for row in ties])


def test_an_unknown_winner_is_named_with_its_row(tmp_path: Path) -> None:
    rows = random_rows(3)
    rows[2] |= {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 0}
    with pytest.raises(DataError, match=r"row 3: the winner is None; known are: model_a"):
        build(tmp_path, rows)


def test_lengths_of_battles_and_embeddings_must_agree(tmp_path: Path) -> None:
    rows = random_rows(30)
    for many, few in ((rows, rows[:-2]), (rows[:-2], rows)):
        embeddings = [embedded(tmp_path / "e.jsonl", few)]
        with pytest.raises(DataError, match=f"has {len(many)} rows and .* has {len(few)}"):
            build(tmp_path, many, arena_embedding_datasets=embeddings)


def test_each_data_set_needs_its_embeddings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 2 entries for 1 arena_battle_datasets"):
        build(tmp_path, random_rows(30), arena_embedding_datasets=["a.jsonl", "b.jsonl"])


def test_embeddings_of_another_width_than_the_embedders(tmp_path: Path) -> None:
    rows = random_rows(30)
    embeddings = [embedded(tmp_path / "e.jsonl", rows)]
    with pytest.raises(ConfigError, match=r"have 16 numbers, but the embedder 'static:.*makes 256. Set embedding_model"):
        build(tmp_path, rows, arena_embedding_datasets=embeddings, embedding_model="static")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([float("nan")] * 16, "finite numbers"),
        ([1.0] * 15, "has 15 numbers, those before it 16"),
        ("no list", "no list of numbers"),
        ([], "finite numbers"),
        (None, "finite numbers"),
    ],
)
def test_a_bad_embedding_is_named_with_its_row(tmp_path: Path, value: object, message: str) -> None:
    rows = random_rows(30)
    file = Path(embedded(tmp_path / "e.jsonl", rows))
    lines = file.read_text().splitlines()
    lines[4] = json.dumps({"embeddings": value})
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"row 5: the embedding.*{message}"):
        build(tmp_path, rows, arena_embedding_datasets=[str(file)])


def test_an_embedder_that_gives_no_numbers_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    router = build(tmp_path, random_rows(30))
    monkeypatch.setattr(GridEmbedder, "embed_batch", lambda self, prompts: np.full((len(prompts), 16), np.nan, np.float32))
    with pytest.raises(EmbeddingError, match="not finite"):
        router.calculate_strong_win_rate("anything")
