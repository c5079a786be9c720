import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.embeddings.surface import (
    MAX_CHARS,
    SURFACE_DIM,
    SURFACE_NAMES,
    surface_features,
    surface_features_batch,
)


def feature(name: str, prompt: str) -> float:
    return float(surface_features(prompt)[SURFACE_NAMES.index(name)])


def test_names_are_distinct_and_as_many_as_the_features() -> None:
    assert len(set(SURFACE_NAMES)) == SURFACE_DIM == len(surface_features("x"))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("chars", "short", "a much longer prompt than that"),
        ("words", "unbelievably", "one two three"),
        ("lines", "one line", "three\nlines\nhere"),
        ("word_length", "a bb a", "extraordinarily complicated"),
        ("numbers", "two numbers", "12 and 7.5"),
        ("digit_share", "nine letters 1", "1111"),
        ("capital_share", "abc", "aBC"),
        ("punctuation_share", "ab cd", "(a), [b]!"),
        ("non_ascii_share", "plain", "простой"),
        ("english_share", "zebra quagga", "what is the name of it"),
        ("options", "Pick one.", "A) red B) blue C) green"),
        ("option_lines", "A. is inline", "A. red\nB. blue\nC. green"),
        ("code_fence", "code", "```python\nx\n```"),
        ("code_share", "plain words", "x = {y: [z]};"),
        ("math_share", "plain words", "x^2 + y^2 = z^2"),
        ("latex", "cost \\ $", r"$\frac{1}{2}$ and \alpha"),
        ("question_marks", "No.", "Really? Yes?"),
        ("ends_as_question", "Is it? Yes.", "Is it?  \n"),
        ("quotes", "plain", 'say "it"'),
        ("list_items", "one - two", "- one\n- two\n3. three"),
        ("very_short", "this prompt has more than six words in it", "hi there"),
        ("asks_wh", "name it", "Which one, and when?"),
        ("asks_how_why", "name it", "Explain why."),
        ("asks_to_write", "read it", "Write a poem"),
        ("asks_to_solve", "read it", "Solve the equation"),
        ("asks_to_rework", "read it", "Summarize and translate"),
        ("reasoning_words", "blue sky", "Suppose x; if so, therefore y"),
        ("quantity_words", "blue sky", "each costs half the average price"),
        ("code_words", "blue sky", "a python function to sort an array"),
        ("negation", "it is", "it is NOT, and never was"),
        ("role_play", "be quick", "Act as a character"),
    ],
)
def test_each_feature_rises_with_what_it_is_named_for(name: str, low: str, high: str) -> None:
    assert feature(name, low) < feature(name, high)


def test_every_feature_but_the_constant_has_a_case_above() -> None:
    marks = test_each_feature_rises_with_what_it_is_named_for.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(SURFACE_NAMES) - {"constant"}


@pytest.mark.parametrize("prompt", ["Find P(A) and f(b).", "It is in the U.S.A., e.g. here", "at 7 a.m. sharp"])
def test_a_letter_in_a_formula_or_an_abbreviation_is_no_option(prompt: str) -> None:
    assert feature("options", prompt) == 0.0


@pytest.mark.parametrize(("name", "one"), [("list_items", "- do it\n"), ("question_marks", "Is it? ")])
def test_more_of_the_same_stops_counting(name: str, one: str) -> None:
    assert feature(name, one) < feature(name, one * 5) == feature(name, one * 50) == 1.0


@given(st.text())
def test_features_of_any_text_are_finite_and_bounded(prompt: str) -> None:
    values = surface_features(prompt)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (values <= 5).all()


@given(st.lists(st.text(st.characters(), max_size=40), max_size=5))
def test_batch_rows_equal_singles(prompts: list[str]) -> None:
    batch = surface_features_batch(prompts)
    assert batch.shape == (len(prompts), SURFACE_DIM)
    for row, prompt in zip(batch, prompts, strict=True):
        assert (row == surface_features(prompt)).all()


def test_lone_surrogates_and_nul_bytes_are_ordinary_text() -> None:
    assert np.isfinite(surface_features("a \ud800 b \x00 c")).all()


def test_only_the_lengths_look_past_the_scanned_part() -> None:
    short, long = "x" * MAX_CHARS, "x" * MAX_CHARS + " ?" * 1000
    changed = {
        name for name, a, b in zip(SURFACE_NAMES, surface_features(short), surface_features(long), strict=True) if a != b
    }
    assert changed == {"chars", "words"}
