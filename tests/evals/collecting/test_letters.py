from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.evals.collecting.letters import offered_letters, option_letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        # alone
        ("B", "B"),
        (" b\n", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("$B$", "B"),
        ("（B）", "B"),
        ("Option B", "B"),
        ("B\nB\nB", "B"),
        ("B B", "B"),
        (r"Thus $\boxed{B}$.", "B"),
        (r"\boxed{\text{(C)}}", "C"),
        # named
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("Answer:\n\nB) 4", "B"),
        ("answer: (c)", "C"),
        ("Answer - C", "C"),
        ('{"answer": "D"}', "D"),
        ("The answer is B.", "B"),
        ("The answer is\nB", "B"),
        ("The correct answer is **(B)** 4.", "B"),
        ("The right answer is: **B. 4**", "B"),
        ("The best option is (C)", "C"),
        ("So the answer is option B: 4", "B"),
        ("The answer to the question is B.", "B"),
        ("The answer is A because it is.", "A"),
        ("The answer is D, not C.", "D"),
        ("Answer: D. Both A and B", "D"),
        ("Answer: B\nAnswer: B", "B"),
        ("Final Answer: The final answer is B", "B"),
        ("A is correct", "A"),
        ("(B) is the correct answer", "B"),
        ("Option A is incorrect. Option B is right.", "B"),
        ("Given B we know that C is correct", "C"),
        ("I choose option C.", "C"),
        ("I would go with D", "D"),
        ("The answer is not A. The answer is B.", "B"),
        ("The incorrect answer is A. The answer is B", "B"),
        # by its place
        ("B) 4", "B"),
        ("(B)4", "B"),
        ("B: 4", "B"),
        ("B. 4\n\nSince A is false.", "B"),
        ("Let me think. 2 + 2 = 4.\n\nB", "B"),
        ("A. 0\nB. 4\nC. 2\nD. 6\nAnswer: B", "B"),
        ("<think>A? The answer is A.</think>The answer is B.", "B"),
        # nothing to read
        ("", None),
        ("4", None),
        ("E", None),
        ("The answer is E.", None),
        ("None of the above", None),
        ("Sorry, I can't answer that.", None),
        ("A good question.", None),
        ("The answer is a tricky one", None),
        ("I think it's a hard one", None),
        ("B 4", None),
        ("<think>The answer is A", None),
        # ambiguous
        ("A and B", None),
        ("A, B", None),
        ("It is A or B.", None),
        ("The answer is A or B", None),
        ("Answer: B, C", None),
        ("Answer: B/C", None),
        ("The answer is A. The answer is B.", None),
        ("B) 4. But in truth the answer is C.", None),
        ("A. Incorrect, B. Correct", None),
        ("A. wrong\nB. right\nC. wrong", None),
        ("(A) is wrong", None),
        ("B is not correct", None),
        ("Neither A nor B is correct", None),
    ],
)
def test_what_answers_look_like(answer: str, letter: str | None) -> None:
    assert option_letter(answer) == letter


SHAPES = [
    "{}",
    "({})",
    "**{}**",
    "{}.",
    "Answer: {}",
    "**Answer: {}**",
    "The answer is {}.",
    "The correct answer is ({}).",
    "{}) the text of the option",
    "Option {} is correct.",
    "Working it out, step by step.\n\nThe answer is {}.",
    r"So it must be $\boxed{{{}}}$.",
    "<think>not {}? or is it</think>The answer is {}",
]


@given(st.sampled_from(SHAPES), st.sampled_from("ABCDEFGHIJ"))
def test_every_shape_gives_every_letter_that_was_offered(shape: str, letter: str) -> None:
    assert option_letter(shape.replace("{}", letter).replace("{{", "{").replace("}}", "}"), "ABCDEFGHIJ") == letter


@given(st.sampled_from(SHAPES), st.sampled_from("EFGH"))
def test_a_letter_that_was_not_offered_is_no_answer(shape: str, letter: str) -> None:
    assert option_letter(shape.replace("{}", letter).replace("{{", "{").replace("}}", "}"), "ABCD") is None


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from(["\n", " ", ". "]))
def test_two_statements_count_only_where_they_agree(first: str, second: str, between: str) -> None:
    said = option_letter(f"The answer is {first}.{between}The answer is {second}.")
    assert said == (first if first == second else None)


@given(st.text())
def test_any_text_gives_an_offered_letter_or_nothing(answer: str) -> None:
    assert option_letter(answer) in {"A", "B", "C", "D", None}


@given(st.text(alphabet=string.ascii_lowercase + " \n.,"))
def test_lower_case_prose_is_never_an_answer_unless_it_is_one_letter(answer: str) -> None:
    if len({character for character in answer if character.isalpha()}) > 1:
        words = answer.replace(".", " ").replace(",", " ").split("\n")
        if not any(len(set(line.split())) == 1 and len(line.split()[0]) == 1 for line in words):
            assert option_letter(answer) is None


@pytest.mark.parametrize(
    ("prompt", "letters"),
    [
        ("How many?\nA. 0\nB. 4\nC. 2\nD. 6\nAnswer:", "ABCD"),
        ("How many?\nA) 0\nB) 4\nC) 2", "ABC"),
        ("Q\n(A) 0\n(B) 4", "AB"),
        ("Q1\nA. 0\nB. 4\nC. 1\nAnswer: A\nQ2\nA. 3\nB. 4\nC. 5\nD. 6\nE. 7\nAnswer:", "ABCDE"),
        ("No options at all.", "ABCD"),
        ("A. Only one", "ABCD"),
    ],
)
def test_the_letters_that_a_prompt_offers(prompt: str, letters: str) -> None:
    assert offered_letters(prompt) == letters
