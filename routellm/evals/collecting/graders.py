"""Right or wrong: what an answer says, against a reference. Each grader reads both strictly; what it can't read it says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from routellm.errors import ConfigError, DataError
from routellm.evals.collecting.letters import offered_letters, option_letter, without_thoughts
from routellm.evals.collecting.numerals import final_number, read_number

Value: TypeAlias = str | Fraction

GRADERS = ("option", "number", "exact", "regex")


@dataclass(frozen=True, slots=True)
class Grader:
    """How an answer is compared with a reference.

    Attributes:
        read: (answer, prompt) -> what the answer says; None where that can't be read.
        gold: (reference, prompt) -> what is right; None where the reference makes no sense.
        expects: what a reference must be, in words.
    """

    name: str
    read: Callable[[str, str], Value | None]
    gold: Callable[[object, str], Value | None]
    expects: str

    def grade(self, answer: str, reference: object, prompt: str) -> bool | None:
        """Whether an answer is right; None where it can't be read.

        Raises:
            DataError: the reference makes no sense.
        """
        gold = self.gold(reference, prompt)
        if gold is None:
            raise DataError(
                f"The reference {reference!r:.80} must be {self.expects}. It belongs to the prompt {prompt!r:.80}."
            )
        said = self.read(answer, prompt)
        return None if said is None else said == gold


def open_grader(name: str, pattern: str | None = None) -> Grader:
    """A grader by its name, one of `GRADERS`.

    Raises:
        ConfigError: `pattern` is missing, not wanted, or no regular expression.
    """
    if (name == "regex") != (pattern is not None):
        raise ConfigError("--pattern goes with --grader regex, and that needs it.")
    if name == "option":
        return Grader(name, _read_option, _gold_option, "the letter of an option that the prompt offers, such as B")
    if name == "number":
        return Grader(
            name, lambda answer, _: final_number(answer), _gold_number, "a number, or a solution that ends '#### 42'"
        )
    if name == "exact":
        return Grader(name, lambda answer, _: _squeezed(without_thoughts(answer)), _gold_text, "a text")
    return Grader(name, _pattern_reader(pattern or ""), _gold_text, "a text")


def _read_option(answer: str, prompt: str) -> str | None:
    return option_letter(answer, offered_letters(prompt))


def _gold_option(reference: object, prompt: str) -> str | None:
    letter = str(reference).strip().strip("().").upper()
    return letter if len(letter) == 1 and letter in offered_letters(prompt) else None


def _gold_number(reference: object, prompt: str) -> Fraction | None:
    text = str(reference)
    return final_number(text) if "####" in text else read_number(text)


def _gold_text(reference: object, prompt: str) -> str | None:
    return _squeezed(str(reference))


def _squeezed(text: str | None) -> str | None:
    """A text without white space around it, and with single spaces within; None for nothing."""
    return " ".join(text.split()) or None if text is not None else None


def _pattern_reader(pattern: str) -> Callable[[str, str], str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--pattern {pattern!r} is no regular expression: {error}.") from None

    def read(answer: str, prompt: str) -> str | None:
        found = {_squeezed(match[1] if compiled.groups else match[0]) for match in compiled.finditer(answer)}
        return found.pop() if len(found) == 1 else None

    return read
