"""Ways to change a prompt: some leave its meaning alone, and should leave a router's score alone; some pad it to look hard.

Each is a function of a prompt and a generator of random numbers, and gives the same for the same seed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
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
    "other thanks": lambda prompt, _: f"I was hoping you might shed some light on this for me. {prompt} Much obliged.",
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

_MEASURES = (
    "Let $(X, \\mathcal{A}, \\mu)$ be a $\\sigma$-finite measure space and let $T \\colon L^p(\\mu) \\to L^q(\\mu)$ be a "
    "bounded linear operator with $1 < p \\le q < \\infty$. By the Riesz representation theorem the adjoint $T^{*}$ acts on "
    "$L^{q'}(\\mu)$, and $\\|T\\| = \\|T^{*}\\|$ by duality."
)
_PHYSICS = (
    "The Lagrangian density of the theory is L = -1/4 F_{mu nu} F^{mu nu} + psi-bar (i D-slash - m) psi. After "
    "renormalisation at one loop the beta function is positive, the coupling runs as alpha(Q^2) = alpha / (1 - (alpha / 3 "
    "pi) log(Q^2 / m^2)), and a particle of mass 0.511 MeV at 2.5 GeV has a gamma factor of 4892."
)
_CONTRACT = (
    "Notwithstanding any provision to the contrary herein, the Indemnifying Party shall hold harmless the Indemnified Party "
    "from and against any and all claims, liabilities and reasonable attorneys' fees arising out of or relating to a breach "
    "of Section 14.2(b), provided that written notice is given within thirty (30) days, time being of the essence."
)
_CASE_NOTES = (
    "History: 67-year-old male, type 2 diabetes, stage 3 chronic kidney disease, on metformin 850 mg and lisinopril 20 mg. "
    "Presents with acute dyspnoea, bilateral crackles, troponin 0.9 ng/mL, lactate 3.1 mmol/L, and new left bundle branch "
    "block; differential includes cardiogenic shock and pulmonary embolism."
)
_SQL = (
    "```sql\nWITH ranked AS (\n  SELECT user_id, amount, ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY created_at DESC) "
    "AS rn\n  FROM payments WHERE status <> 'void'\n)\nSELECT user_id, SUM(amount) FROM ranked WHERE rn <= 5 GROUP BY "
    "user_id HAVING COUNT(*) > 2;\n```"
)
_CPP = (
    "template <typename T, std::size_t N>\nclass RingBuffer {\n  std::array<std::atomic<T>, N> slots;\n"
    "  alignas(64) std::atomic<std::size_t> head{0};\n  bool push(T value) noexcept {\n"
    "    auto at = head.fetch_add(1, std::memory_order_acq_rel);\n    return slots[at % N].exchange(value) == T{};\n  }\n};"
)
_JSON = (
    '{"model": {"layers": 48, "heads": 16, "dropout": 0.1}, "optimizer": {"name": "adamw", "lr": 0.0003, "betas": [0.9, '
    '0.95]}, "schedule": [{"until": 2000, "warmup": true}, {"until": 100000, "decay": "cosine"}]}'
)
_EXPERT = (
    "You are a world-class expert with three doctorates and forty years of experience. A committee of Nobel laureates will "
    "review what you say, so be exhaustive, nuanced and formally correct."
)
_DEMANDS = (
    "Weigh at least five alternative hypotheses against each other, quantify the uncertainty of each, anticipate "
    "objections, and justify every inference with a citation. A superficial response is not acceptable; this is an "
    "extremely difficult problem that most models fail."
)
_PUZZLE = (
    "Five neighbours live in a row. The Norwegian lives next to the blue house, the owner of the zebra drinks neither milk "
    "nor tea, and whoever smokes a pipe lives two doors from the violinist. Exactly one of these statements is false."
)
_LOGIC = (
    "\u2200x\u2203y (P(x) \u2192 (Q(y) \u2227 \u00acR(x, y))), \u2203z\u2200x (R(z, x) \u2194 \u00acP(x)), "
    "\u2234 \u2203x\u2203y (Q(y) \u2227 \u00acP(x)); \u25a1(p \u2192 \u25c7q) \u22a2 \u25c7p \u2192 \u25c7\u25c7q"
)
_TABLE = (
    "| year | revenue | cogs | opex | ebitda |\n|---|---|---|---|---|\n| 2019 | 4,210.5 | 1,873.2 | 988.4 | 1,348.9 |\n"
    "| 2020 | 3,987.1 | 1,902.7 | 1,041.0 | 1,043.4 |\n| 2021 | 5,120.8 | 2,288.1 | 1,130.6 | 1,702.1 |"
)
_CISTERN = (
    "A cistern is filled by two pipes in 12 and 15 hours and emptied by a third in 20 hours. The first pipe is opened at 7 "
    "am, the second 90 minutes later, and the third when the cistern is 40% full; a 5% loss by evaporation is to be taken "
    "into account."
)
_GERMAN = (
    "Die transzendentale Deduktion der reinen Verstandesbegriffe beruht darauf, dass die synthetische Einheit der "
    "Apperzeption die Bedingung der Möglichkeit aller Erfahrung ist, unter der das Mannigfaltige der Anschauung in einem "
    "Bewusstsein vereinigt wird."
)

PADDING = {
    "proof": _PROOF,
    "LaTeX": _LATEX,
    "step by step": _STEPS,
    "long list": _LIST,
    "code": _CODE,
    "lorem ipsum": _LOREM,
    "measure theory": _MEASURES,
    "physics": _PHYSICS,
    "contract": _CONTRACT,
    "case notes": _CASE_NOTES,
    "SQL": _SQL,
    "C++": _CPP,
    "JSON": _JSON,
    "expert": _EXPERT,
    "demands": _DEMANDS,
    "puzzle's facts": _PUZZLE,
    "formulas of logic": _LOGIC,
    "table": _TABLE,
    "word problem's facts": _CISTERN,
    "German": _GERMAN,
}
"""Boilerplate that a user may add to buy the strong model. No router is fitted to it."""

SEPARATORS = {"own paragraph": "\n\n", "own line": "\n", "same line": " "}
"""What stands between the padding and the question."""


def _around(separator: str, before: Sequence[str], after: Sequence[str]) -> Perturbation:
    return lambda prompt, _: separator.join([*before, prompt, *after])


def _repeated(separator: str) -> Perturbation:
    return lambda prompt, _: separator.join([prompt] * 5)


_EVERYTHING = tuple(PADDING.values())

PADDED: dict[str, dict[str, dict[str, Perturbation]]] = {
    **{
        kind: {
            where: {"before": _around(between, [text], []), "after": _around(between, [], [text])}
            for where, between in SEPARATORS.items()
        }
        for kind, text in PADDING.items()
    },
    "several": {
        where: {
            "before and after": _around(between, [_MEASURES, _EXPERT], [_CONTRACT]),
            "six after": _around(between, [], _EVERYTHING[:6]),
            "six others after": _around(between, [], _EVERYTHING[10:16]),
        }
        for where, between in SEPARATORS.items()
    },
    "said five times": {where: {"": _repeated(between)} for where, between in SEPARATORS.items()},
}
"""Kind of padding -> where it stands -> ways to put it there; the question that is asked stays the same."""
