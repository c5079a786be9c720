"""One spelling of a prompt: what was typed otherwise moves no feature of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.embeddings.base import Vector
from routellm.embeddings.form import form_features
from routellm.embeddings.normal import plain_text, without_repeats
from routellm.embeddings.surface import MAX_CHARS, SURFACE_NAMES, surface_features
from routellm.embeddings.words import word_counts
from tests.prompts import ODD_PROMPTS

PROMPTS = [
    *ODD_PROMPTS,
    "Maria's shop sold 48 clips -- half of them for $2 each... How many are left?",
    'Which of "these" is NOT a metal?\n\nA. Iron\nB. Helium (24 K)\n- a list\n- of two',
    "def f(x):\n    if x > 3:\n        return x ** 2",
]

RESPELLINGS: dict[str, Callable[[str], str]] = {
    "doubled spaces": lambda prompt: prompt.replace(" ", "  "),
    "no-break spaces": lambda prompt: prompt.replace(" ", "\u00a0"),
    "tabs": lambda prompt: prompt.replace(" ", "\t"),
    "line ends of Windows": lambda prompt: prompt.replace("\n", "\r\n"),
    "empty lines": lambda prompt: prompt.replace("\n", "\n \n\n"),
    "space around": lambda prompt: f"\n\u3000 {prompt}\t\r\n",
    "curly quotes": lambda prompt: prompt.replace("'", "\u2019").replace('"', "\u201d"),
    "dashes and dots of a word processor": lambda prompt: prompt.replace("--", "\u2014").replace("...", "\u2026"),
    "full-width signs": lambda prompt: "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in prompt),
    "zero-width spaces": lambda prompt: prompt.replace("n", "n\u200b"),
    "NFKC": lambda prompt: unicodedata.normalize("NFKC", prompt),
    "a byte order mark": lambda prompt: "\ufeff" + prompt,
}


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("respelling", RESPELLINGS)
@pytest.mark.parametrize("features", [surface_features, form_features, word_counts])
def test_a_respelling_moves_no_feature(features: Callable[[str], Vector], respelling: str, prompt: str) -> None:
    assert np.array_equal(features(RESPELLINGS[respelling](prompt)), features(prompt))


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("features", [surface_features, form_features, word_counts])
def test_all_capitals_count_as_no_capitals(features: Callable[[str], Vector], prompt: str) -> None:
    assert np.array_equal(features(prompt.upper()), features(prompt.lower()))


def test_without_capitals_only_the_features_of_capitals_change() -> None:
    prompt = "Which of these is a Noble Gas?\nA. Argon\nB) Neon, e.g. in lamps"
    moved = surface_features(prompt) != surface_features(prompt.lower())
    assert [name for name, other in zip(SURFACE_NAMES, moved, strict=True) if other] == ["capital_share"]


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("\u201cIt\u2019s 5\u20137\u201d", '"It\'s 5-7"'),
        ("x\u00b2 \u2212 \u00bdx\u00a0= 3\u2026", "x2 - 1/2x = 3..."),
        ("\u00ab\u0434\u0430\u00bb\u2014\u0434\u0430", '"\u0434\u0430"--\u0434\u0430'),
        ("co\u00adopera\u200btion", "cooperation"),
        ("  two\t words \r\n\r\n  and a line ", "two words\nand a line"),
        ("WHY NOT?", "why not?"),
        ("WHY not?", "WHY not?"),
        ("12 + 7", "12 + 7"),
        ("\ud800 lone", "\ud800 lone"),
    ],
)
def test_one_spelling(prompt: str, plain: str) -> None:
    assert plain_text(prompt, MAX_CHARS) == plain


@given(st.text())
def test_no_run_of_spaces_and_no_empty_line_is_left(prompt: str) -> None:
    plain = plain_text(prompt, 100)
    assert len(plain) <= 100
    assert plain.split() == [word for line in plain.split("\n") for word in line.split(" ") if plain]


def test_white_space_before_a_prompt_does_not_push_it_out_of_sight() -> None:
    assert plain_text(" " * 50 + "Why?", 10) == "Why?"


QUESTION = "How many sheep are left after that?"


@pytest.mark.parametrize("between", [" ", "\n", "\n\n", " \n "])
def test_what_is_said_again_is_left_out(between: str) -> None:
    assert without_repeats(between.join([QUESTION] * 5)).strip() == QUESTION
    assert (
        without_repeats(between.join(["Ann has 3 sheep.", QUESTION, QUESTION])).split()
        == f"Ann has 3 sheep. {QUESTION}".split()
    )


def test_what_follows_a_repetition_still_begins_a_line() -> None:
    options = "A. one\nB. two"
    assert without_repeats(f"{QUESTION} {QUESTION}\n{options}") == f"{QUESTION}\n{options}"


@pytest.mark.parametrize("prompt", [*PROMPTS, "Yes. Yes. Yes.", "if a:\n}\n}\n}", "", "\n\n"])
def test_a_prompt_that_repeats_no_sentence_is_left_as_it_is(prompt: str) -> None:
    assert without_repeats(prompt) == prompt


@pytest.mark.parametrize("unit", [" ", "\n", ". ", ".", "? \n", "a\n"])
def test_repetitions_of_huge_prompts_are_found_in_time_that_grows_with_their_length(unit: str) -> None:
    assert len(without_repeats(unit * 100_000)) <= 100_000 * len(unit)
