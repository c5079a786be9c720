"""The number that an answer comes to, for questions like GSM8K's: read strictly, compared as an exact fraction.

The first of these that an answer holds counts:

1. "#### 42"
2. `\\boxed{42}`
3. "the answer is 42", "Answer: 42"
4. its last number

Of the first three, all that an answer holds must agree; where they don't, or where what stands there is no plain number,
nothing is read. "$1,234.50", "-5", "3/4", "2 1/2", "\\frac{3}{4}", "1.5e3" and "6 million" are numbers; a unit behind one is
passed over, and a percent sign is a unit too (50% is 50). Times, dates, ratios, ranges and lists without spaces are not.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from routellm.evals.collecting.letters import without_thoughts

_LONGEST = 40

# A run of digits and whatever may join them, to be judged as a whole; a minus sign counts where it leads a number.
_RUN = r"\d[\d.,:/]*(?:[eE][-+]?\d+(?!\w))?"
_NUMBER = re.compile(
    rf"(?<![\w.,:/^])(?:(?P<sign>-)?[$€£¥]\s?)?(?P<sign2>-)?(?P<run>{_RUN})(?!(?:st|nd|rd|th)\b)"
    r"(?:\s(?P<part>\d+/\d+)(?![\w/]))?(?:\s*(?P<scale>thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_RANGE = re.compile(r"\s*%?\s*(?:[-–—+*/×÷^]|\b(?:to|or)\b)\s*[$€£¥]?\s*\d")
_RANGE_END = re.compile(r".*\d\s?[-–—]", re.DOTALL)

_MARKED = re.compile(r"####[ \t]*([^\n]*)")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_NAMED = re.compile(
    r"\banswer(?:\s+(?:to|for)\b[^.\n:]{0,80}?)?(?:\s+is\b\s*:?|\s*[:=])\s*"
    r"(?:(?:about|approximately|exactly|equal\s+to|[a-z]\s*=)\s*)?(?=[-$€£¥\s]{0,4}\d)",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"^\s*\(?\d+[.)]\s+(?=\S)", re.MULTILINE)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")


def final_number(answer: str) -> Fraction | None:
    """The number that `answer` comes to; None where there is none that can be read without guessing.

    >>> final_number("She sells 9 eggs and earns $18.")
    Fraction(18, 1)
    >>> final_number("#### 1,234.50")
    Fraction(2469, 2)
    """
    text = without_thoughts(answer)
    if text is None:
        return None
    text = _plain(text)
    for pattern in (_MARKED, _BOXED):
        found = [read_number(match[1]) for match in pattern.finditer(text)]
        if found:
            return found[0] if len(set(found)) == 1 else None
    found = [_first_after(text, match.end()) for match in _NAMED.finditer(text)]
    if found:
        return found[0] if len(set(found)) == 1 else None
    text = _LIST_MARK.sub("", text)
    matches = list(_NUMBER.finditer(text))
    if not matches or _RANGE_END.fullmatch(text, 0, matches[-1].start()):
        return None
    return _value(matches[-1])


def read_number(text: str) -> Fraction | None:
    """The one number of a short text such as "$ 1,200", "18 eggs" or "3 * 6 = 18"; None where it holds none, or several."""
    matches = list(_NUMBER.finditer(_plain(text).rsplit("=", 1)[-1]))
    return _value(matches[0]) if len(matches) == 1 else None


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.replace("½", " 1/2").replace("¼", " 1/4").replace("¾", " 3/4"))
    text = _FRACTION.sub(r" \1/\2", text.replace("−", "-").replace("⁄", "/"))
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,!; ]|\{,\}", lambda space: "," if space[0] == "{,}" else "", text)
    text = re.sub(r"\\([$%])", r"\1", text)
    text = re.sub(r"\b(?:minus|negative)\s+(?=[$€£¥]?\d)", "-", text, flags=re.IGNORECASE)
    return re.sub(r"[*`]{2,}|__", "", text)


def _first_after(text: str, start: int) -> Fraction | None:
    """The number at `start`; the end of a sum that begins there ("10 - 4 = 6"); None for a range."""
    match = _NUMBER.search(text, start)
    if match is None:
        return None
    if _RANGE.match(text, match.end()):
        line = text[start:].split("\n", 1)[0]
        return read_number(line.rsplit("=", 1)[1]) if "=" in line else None
    return _value(match)


def _value(match: re.Match[str]) -> Fraction | None:
    run = match["run"].rstrip(".,:/")
    value = _read_run(run)
    if value is None:
        return None
    if match["part"]:
        part = _read_run(match["part"])
        if part is None or part >= 1 or value.denominator != 1:
            return None
        value += part
    value *= _SCALES.get((match["scale"] or "").lower(), 1)
    return -value if match["sign"] or match["sign2"] else value


def _read_run(run: str) -> Fraction | None:
    if len(run) > _LONGEST:
        return None
    if re.fullmatch(r"\d+/\d+", run):
        above, below = map(int, run.split("/"))
        return Fraction(above, below) if below else None
    if not re.fullmatch(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,2})?", run):
        return None
    return Fraction(run.replace(",", ""))
