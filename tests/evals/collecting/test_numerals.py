from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.evals.collecting.numerals import final_number, read_number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        # the mark of GSM8K comes first
        ("3 and 4 make 7\n#### 42", "42"),
        ("#### $1,234", "1234"),
        ("#### 18 dollars", "18"),
        ("#### 3 * 6 = 18", "18"),
        ("#### -3\n\nThe answer is 5.", "-3"),
        ("#### 5\n#### 5.0", "5"),
        ("#### 5\n#### 6", None),
        ("#### unknown, though 7 is near", "7"),
        ("#### unknown", None),
        # then a box
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"The answer is 9. $\boxed{1{,}234}$", "1234"),
        (r"\boxed{5} or \boxed{6}", None),
        # then a sentence
        ("The answer is $1,234.50.", "1234.5"),
        ("**Answer: 12**", "12"),
        ("The final answer is: $42$", "42"),
        ("answer is x = 12", "12"),
        ("The answer to the problem is 9.", "9"),
        ("The answer is about 7, give or take 1", "7"),
        ("The answer is 12 apples for 3 children", "12"),
        ("The answer is 10 - 4 = 6.", "6"),
        ("The answer is 5-6", None),
        ("The answer is 5 to 6", None),
        ("The answer is 5. The answer is 6", None),
        # then the last number
        ("9 * $2 = $18 every day", "18"),
        ("She earns $18.", "18"),
        ("10-4=6", "6"),
        ("3 + 4 = 7 eggs; 16 - 7 = 9 eggs. So 9 * $2 = $18.", "18"),
        ("1. She has 5\n2. She sells it", "5"),
        ("In total 7 on the 3rd day", "7"),
        ("H2O is 5 g", "5"),
        ("x^2 is 4", "4"),
        ("it's 5km", "5"),
        ("between 5-6", None),
        # forms
        ("-5", "-5"),
        ("it is −5 degrees", "-5"),
        ("minus 5", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("20.00", "20"),
        ("3/4", "3/4"),
        ("2 1/2 cups", "5/2"),
        ("2½", "5/2"),
        ("50%", "50"),
        (r"50\%", "50"),
        ("Total: 1,000,000", "1000000"),
        ("6 million", "6000000"),
        ("1.5e-2", "0.015"),
        # no plain numbers
        ("", None),
        ("no number", None),
        ("3:30", None),
        ("12/25/2024", None),
        ("1.234,50", None),
        ("1,23", None),
        ("1,2,3", None),
        ("1/0", None),
        ("1e999", None),
        ("9" * 5000, None),
        ("<think>5", None),
        ("<think>5</think>6", "6"),
    ],
)
def test_what_answers_look_like(answer: str, number: str | None) -> None:
    assert final_number(answer) == (None if number is None else Fraction(number))


INTEGERS = st.integers(-(10**12), 10**12)
DECIMALS = st.decimals(-(10**9), 10**9, places=3, allow_nan=False)


@given(INTEGERS, st.sampled_from(["{}", "#### {}", "The answer is {}.", "so it is {} apples", "x = {}", r"\boxed{{{}}}"]))
def test_integers_survive_any_shape_with_and_without_separators(value: int, shape: str) -> None:
    assert final_number(shape.format(value)) == value
    assert final_number(shape.format(f"{value:,}")) == value


@given(DECIMALS)
def test_decimals_are_read_exactly(value: object) -> None:
    assert final_number(f"The total is ${value:,}.") == Fraction(str(value))


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_are_read_exactly(above: int, below: int) -> None:
    assert final_number(f"#### {above}/{below}") == Fraction(above, below)


@given(INTEGERS, INTEGERS)
def test_the_mark_comes_before_everything_else(marked: int, other: int) -> None:
    assert final_number(f"The answer is {other}.\n#### {marked}\nThat was {other}") == marked


@given(st.text())
def test_any_text_gives_a_number_or_nothing(text: str) -> None:
    assert isinstance(final_number(text), Fraction | None)
    assert isinstance(read_number(text), Fraction | None)


@given(st.text(alphabet="0123456789.,:/-$ e%"))
def test_any_run_of_digits_and_signs_gives_a_number_or_nothing(text: str) -> None:
    assert isinstance(final_number(text), Fraction | None)


@pytest.mark.parametrize(
    ("text", "number"), [("$ 1,200", 1200), ("18 eggs", 18), ("3 * 6 = 18", 18), ("1 2", None), ("x", None)]
)
def test_the_one_number_of_a_short_text(text: str, number: int | None) -> None:
    assert read_number(text) == number
