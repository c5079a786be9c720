"""The changes that the robustness benchmark makes to prompts, and what it counts."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.example_prompts import PROMPTS
from benchmarks.perturbations import HARMLESS, PADDED, PADDING, SEPARATORS, swap_clauses, typos, without_punctuation
from benchmarks.robustness import measure, measure_padding
from routellm.routers.routers import Router
from tests.prompts import ODD_PROMPTS

WAYS = {
    f"{kind}, {where}, {way}": change
    for kind, places in PADDED.items()
    for where, ways in places.items()
    for way, change in ways.items()
}
EVERY = {**HARMLESS, **WAYS}


class CapitalsRouter(Router):
    """Scores the share of capitals, and says so."""

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return sum(map(str.isupper, prompt)) / max(len(prompt), 1)

    def explain(self, prompt: str) -> dict[str, float]:
        return {"constant": -1.0, "capitals": self.calculate_strong_win_rate(prompt)}


@pytest.mark.parametrize("name", EVERY)
def test_every_change_takes_any_prompt_and_repeats_itself(name: str) -> None:
    for prompt in [*PROMPTS, *ODD_PROMPTS]:
        assert EVERY[name](prompt, Random(3)) == EVERY[name](prompt, Random(3))


@pytest.mark.parametrize("name", EVERY)
def test_every_change_alters_some_of_the_built_in_prompts(name: str) -> None:
    assert any(EVERY[name](prompt, Random(3)) != prompt for prompt in PROMPTS)


@pytest.mark.parametrize("name", WAYS)
def test_padding_keeps_the_whole_prompt(name: str) -> None:
    assert all(prompt in WAYS[name](prompt, Random(3)) for prompt in PROMPTS)


@pytest.mark.parametrize("kind", PADDING)
def test_each_kind_of_padding_stands_before_and_after_in_each_place(kind: str) -> None:
    for where, between in SEPARATORS.items():
        found = {way: change("Why?", Random(3)) for way, change in PADDED[kind][where].items()}
        assert found == {"before": f"{PADDING[kind]}{between}Why?", "after": f"Why?{between}{PADDING[kind]}"}


def test_a_typo_swaps_two_neighbouring_letters_of_one_word() -> None:
    for seed in range(20):
        changed = typos("explain it quickly", Random(seed), 1)
        assert sorted(changed) == sorted("explain it quickly")
        assert sum(a != b for a, b in zip(changed.split(), ["explain", "it", "quickly"], strict=True)) <= 1
    assert typos("a to be", Random(0), 3) == "a to be"


def test_clauses_change_places_within_the_first_line() -> None:
    assert swap_clauses("If it rains, what do I do?\nA. Go\nB. Stay") == "what do I do? If it rains,\nA. Go\nB. Stay"
    assert swap_clauses("Why is that?") == "Why is that?"


def test_punctuation_goes_and_numbers_and_words_stay_whole() -> None:
    assert without_punctuation('Don\'t round 3.5, "please": is 2 + 2 = 4?') == "Don't round 3.5 please is 2 + 2 = 4"


def test_an_effect_counts_flips_over_the_prompts_that_changed() -> None:
    prompts = ["aaaa", "bbbB", "CCCC", "DDDd"]
    upper = measure(CapitalsRouter(), prompts, {"upper case": HARMLESS["upper case"]}, seed=0)["upper case"]
    assert (upper.changed, upper.flips, upper.to_strong, upper.to_weak) == (3, pytest.approx(2 / 3), 1.0, 0.0)
    assert upper.moved == upper.shift == pytest.approx((1.0 + 0.75 + 0.25) / 3)
    assert upper.parts == {"capitals": pytest.approx(0.875)}


def test_padding_is_counted_over_the_prompts_that_went_to_the_weak_model() -> None:
    """Two of the four have no capitals and go to the weak model; what holds next to none does not change that."""
    shares = measure_padding(CapitalsRouter(), ["aaaa", "bbbb", "CCCC", "DDDD"], seed=0)
    assert set(shares) == set(PADDED)
    assert all(set(places) == set(SEPARATORS) for places in shares.values())
    assert shares["formulas of logic"]["own line"] == 0.0
    assert shares["said five times"]["same line"] == 0.0
