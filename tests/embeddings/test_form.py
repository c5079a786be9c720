"""Form features and hashed words: bounded for any prompt, a batch equals singles, and they see what they are named for."""

from __future__ import annotations

import numpy as np
import pytest

from routellm.embeddings.form import FORM_DIM, FORM_NAMES, form_features, form_features_batch
from routellm.embeddings.words import BUCKETS, word_counts, word_counts_batch
from tests.prompts import ODD_PROMPTS

PROMPTS = [*ODD_PROMPTS, "9" * 500, "long word " * 5_000, "A.\nB. \nC)", "1,,,2,3 4/5 0.5"]


def named(prompt: str) -> dict[str, float]:
    return dict(zip(FORM_NAMES, form_features(prompt).tolist(), strict=True))


def test_form_features_are_bounded_and_a_batch_equals_singles() -> None:
    batch = form_features_batch(PROMPTS)
    assert batch.shape == (len(PROMPTS), FORM_DIM)
    assert np.all((batch >= 0.0) & (batch <= 2.0))
    assert all(np.array_equal(row, form_features(prompt)) for row, prompt in zip(batch, PROMPTS, strict=True))


def test_the_stem_is_told_apart_from_the_options() -> None:
    found = named("Which of these is NOT a metal?\nA. Iron\nB. Helium\nC. 24 carat gold")
    bare = named("Which of these is NOT a metal?")
    assert found["stem_words"] == bare["stem_words"]
    assert found["option_length"] > 0.0 == bare["option_length"]
    assert found["longest_option"] > found["shortest_option"]
    assert found["option_digits"] > 0.0
    assert found["capital_negation"] == 1.0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("stem_numbers", "I have apples.", "I have 3 apples and 4 pears."),
        ("largest_number", "I have 3 apples.", "I have 3,000 apples."),
        ("distinct_numbers", "5 and 5 and 5", "5 and 6 and 7"),
        ("decimals", "It costs 3.", "It costs 3.5."),
        ("fractions", "Take 2 cups.", "Take 1/2 cups."),
        ("portions", "How many are there?", "How many are left in total?"),
        ("units", "It takes long.", "It takes 3 hours and 20 minutes."),
        ("stem_sentences", "One here", "One here. Two here. And three."),
        ("long_words", "a big cat", "a thermodynamic equilibrium"),
        ("title_case", "a trip to town", "a trip to Berlin with Anna"),
        ("option_of_options", "A. one\nB. two", "A. one\nB. All of the above"),
        ("statements", "Which is true?", "Statement 1 | true. Statement 2 | false."),
        ("refers_to_text", "Why is it so?", "Why is it so, based on the passage?"),
    ],
)
def test_a_feature_sees_what_it_is_named_for(name: str, low: str, high: str) -> None:
    assert named(low)[name] < named(high)[name]


def test_options_are_found_by_small_letters_too() -> None:
    found, small = named("Which one?\nA. Iron\nB. Helium"), named("Which one?\na. iron\nb. helium")
    assert {name: found[name] for name in found if "option" in name} == {
        name: small[name] for name in found if "option" in name
    }


@pytest.mark.parametrize("prompt", ["All are true EXCEPT:\nA. one", "Which is NOT, so far, known?"])
def test_a_capital_negation_counts_beside_a_sign_and_not_in_a_text_of_capitals(prompt: str) -> None:
    assert named(prompt)["capital_negation"] == 1.0
    assert named(prompt.upper())["capital_negation"] == 0.0


def test_word_counts_have_length_one_and_a_batch_equals_singles() -> None:
    batch = word_counts_batch(PROMPTS)
    assert batch.shape == (len(PROMPTS), BUCKETS)
    for row, prompt in zip(batch, PROMPTS, strict=True):
        assert np.array_equal(row, word_counts(prompt))
        assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-5) or not row.any()


def test_words_count_without_case_and_their_order_counts_in_pairs() -> None:
    assert np.array_equal(word_counts("The Cat sat"), word_counts("the cat  SAT"))
    assert not np.array_equal(word_counts("cat sat the"), word_counts("the cat sat"))
    assert float(word_counts("the cat sat") @ word_counts("the cat ran")) > float(
        word_counts("the cat sat") @ word_counts("a dog ran")
    )
