"""Ways to change a prompt: some leave its meaning alone, and should leave a router's score alone; some pad it to look hard.

Each is a function of a prompt and a generator of random numbers, and gives the same for the same seed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from random import Random
from typing import TypeAlias

Perturbation: TypeAlias = Callable[[str, Random], str]

_CLAUSE = re.compile(r"(?<=[,;])\s+|(?<=[.!?])\s+(?=[A-Z])")
_WORD = re.compile(r"[A-Za-z]{4,}")
_SHORT_FORMS = {"'": "\u2019", "--": "\u2014", "...": "\u2026"}


def title_first(prompt: str) -> str:
    """The first letter in the other case."""
    return prompt[:1].swapcase() + prompt[1:]


def typos(prompt: str, draw: Random, count: int) -> str:
    """`count` swaps of two neighbouring letters inside words of four letters or more, each in a word of its own."""
    words = [match.span() for match in _WORD.finditer(prompt)]
    letters = list(prompt)
    for start, end in draw.sample(words, min(count, len(words))):
        at = draw.randrange(start, end - 1)
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def swap_clauses(prompt: str) -> str:
    """The first clause or sentence of the first line moved to the end of that line."""
    line, rest, after = prompt.partition("\n")
    parts = _CLAUSE.split(line.strip())
    return " ".join([*parts[1:], parts[0]]) + rest + after


def without_punctuation(prompt: str) -> str:
    """All signs that Unicode calls punctuation taken out, but not those inside words and numbers, such as 3.5 or don't."""
    return re.sub(r"(?<!\w)[^\w\s]+|[^\w\s]+(?!\w)", _only_symbols, prompt)


def _only_symbols(match: re.Match[str]) -> str:
    return "".join(sign for sign in match[0] if not unicodedata.category(sign).startswith("P"))


def curly(prompt: str) -> str:
    """Straight quotes, double hyphens and three dots as a word processor writes them."""
    for plain, nice in _SHORT_FORMS.items():
        prompt = prompt.replace(plain, nice)
    return re.sub(r'"([^"\n]*)"', "\u201c\\1\u201d", prompt)


def full_width(prompt: str) -> str:
    """Digits and question marks as East Asian keyboards give them, which NFKC maps back."""
    return prompt.translate({ord(sign): ord(sign) + 0xFEE0 for sign in "0123456789?"})


HARMLESS: dict[str, Perturbation] = {
    "lower case": lambda prompt, _: prompt.lower(),
    "upper case": lambda prompt, _: prompt.upper(),
    "case of the first letter": lambda prompt, _: title_first(prompt),
    "doubled spaces": lambda prompt, _: prompt.replace(" ", "  "),
    "newline at the end": lambda prompt, _: prompt + "\n",
    "CRLF line ends": lambda prompt, _: prompt.replace("\n", "\r\n"),
    "no-break spaces": lambda prompt, _: prompt.replace(" ", "\u00a0"),
    "1 typo": lambda prompt, draw: typos(prompt, draw, 1),
    "3 typos": lambda prompt, draw: typos(prompt, draw, 3),
    "please before": lambda prompt, _: f"Please answer this. {prompt}",
    "could you before": lambda prompt, _: f"Could you help me with something? {prompt}",
    "thanks after": lambda prompt, _: f"{prompt} Thanks!",
    "clauses swapped": lambda prompt, _: swap_clauses(prompt),
    "no punctuation": lambda prompt, _: without_punctuation(prompt),
    "curly quotes": lambda prompt, _: curly(prompt),
    "full-width signs": lambda prompt, _: full_width(prompt),
    "NFKC": lambda prompt, _: unicodedata.normalize("NFKC", prompt),
}
"""Changes after which the right answer, and how hard it is to give, are the same."""

_PROOF = "Prove rigorously, from first principles and with every lemma stated, that the answer is correct and unique."
_LATEX = (
    "$$\\int_{0}^{\\infty} \\frac{x^{s-1}}{e^{x}-1}\\,dx = \\Gamma(s)\\zeta(s), \\quad "
    "\\sum_{n=1}^{\\infty} \\frac{1}{n^{s}} = \\prod_{p} \\frac{1}{1-p^{-s}}$$"
)
_STEPS = "Think step by step. Consider every case carefully, and verify each step of the reasoning before the conclusion."
_LIST = "\n".join(f"{number}. Condition {number} must hold for all inputs." for number in range(1, 21))
_CODE = (
    "```python\ndef solve(graph, source):\n    seen = {source: 0}\n    heap = [(0, source)]\n    while heap:\n"
    "        cost, node = heappop(heap)\n        for other, weight in graph[node]:\n            push(heap, cost + weight)\n```"
)
_LOREM = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat."
)

_PADDING = {
    "proof": _PROOF,
    "LaTeX": _LATEX,
    "step by step": _STEPS,
    "long list": _LIST,
    "code": _CODE,
    "lorem ipsum": _LOREM,
}


def _before(text: str) -> Perturbation:
    return lambda prompt, _: f"{text}\n\n{prompt}"


def _after(text: str) -> Perturbation:
    return lambda prompt, _: f"{prompt}\n\n{text}"


PADDED: dict[str, Perturbation] = {
    **{f"{name} before": _before(text) for name, text in _PADDING.items()},
    **{f"{name} after": _after(text) for name, text in _PADDING.items()},
    "all of them after": _after("\n\n".join(_PADDING.values())),
    "said five times": lambda prompt, _: "\n\n".join([prompt] * 5),
}
"""Boilerplate that a user may add to buy the strong model; the question that is asked stays the same."""
