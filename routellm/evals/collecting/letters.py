"""Which option a multiple-choice answer names: read strictly, never guessed.

An answer counts where all that it states names one and the same letter of the options offered. Read as statements are

1. the letter alone, dressed or not: "B", "(b)", "**B**", "B.", `\\boxed{B}`
2. a sentence that names it: "Answer: B", "The correct answer is (B) because", "B is correct", "I choose option B"
3. a first line that begins with it ("B) 4", "B. Since ..."), or a first or last line that is nothing else

A list of several options, as answers that quote the question hold, states nothing. Two letters, a letter that is not among
the options, or the text of an option without its letter: no answer can be read.
"""

from __future__ import annotations

import re
import unicodedata

_OFFERED = re.compile(r"^\s*\(?([A-Z])[.):]\s", re.MULTILINE)
_THOUGHT = re.compile(r".*</think>", re.DOTALL)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|textbf|mathrm|mathbf)\{)?\s*\(?([A-Za-z])\)?[.)]?\s*\}?\s*\}")

# A letter on its own: in brackets of either case, or a bare capital. A bare "A" or "I" before a small word is an article or a
# pronoun, unless the word goes on with a reason.
_LETTER = (
    r"(?:[(\[{]\s*([A-Za-z])\s*[)\]}]|['\"]?((?-i:[A-Z]))['\"]?(?![\w'’])"
    r"(?!(?<=[AI])\s+(?!(?:because|since|as|for|due|which|given|is)\b)(?-i:[a-z])))"
)
_KIND = r"(?:option|choice|letter|answer)"
_IS = r"(?:\s+(?:is|was|would\s+be|should\s+be|must\s+be|will\s+be)|['\"]?\s*[:=]|\s+[-–—])"
_NAMED = re.compile(
    r"(?<!incorrect\s)(?<!wrong\s)(?<!not\s)\b(?:answer|option|choice|ans\.?)(?:\s+choice)?"
    r"(?:\s+(?:to|for|of|in|here)\b[^.\n:]{0,80}?)?" + _IS + r"[\s:]*(?:therefore|thus|indeed|clearly)?\s*"
    r"(?:(?:the\s+)?(?:correct\s+)?" + _KIND + r"\s*:?\s*)?" + _LETTER,
    re.IGNORECASE,
)
_CONFIRMED = re.compile(
    r"(?<!nor\s)(?<!or\s)(?<!and\s)(?<![\w'])" + _LETTER + r"\s+is\s+(?:indeed\s+|therefore\s+)?"
    r"(?:(?:the\s+)?(?:correct|right)\b|the\s+(?:best\s+)?(?:answer|option|choice)\b)",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\bI(?:['’]d|\s+would|\s+will|['’]ll)?\s+(?:choose|chose|select|pick|answer|go\s+with)\s+(?:" + _KIND + r"\s*)?"
    + _LETTER,
    re.IGNORECASE,
)  # fmt: skip
_AND_MORE = re.compile(
    r"[)\].'\"]*\s*(?:,|/|&|\bor\b|\band\b|,\s*(?:or|and)\b)\s*(?:option\s+)?(?:\([A-Za-z]\)|[A-Z](?![\w'’]))"
)

_ALONE = re.compile(r"\W*(?:(?:option|choice)\s+)?([A-Za-z])(?:\W+\1)*\W*", re.IGNORECASE)
_LEADING = re.compile(
    r"(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Z])(?:\)|[.:](?=\s|$)))(?!\s*\(?[A-Z]\)?\W*$)"
    r"(?!\s*(?i:is|are|was|isn['’]t|can|cannot|could|may|might|seems|looks|and|or|not|incorrect|wrong|false)\b)"
)
_MARKED = re.compile(r"(?<![\w'’])(?:[(\[]([A-Za-z])[)\]]|([A-Z])[.)](?=\s))")
_LISTED = re.compile(r"^\s*[-•]?\s*(?:[(\[]([A-Za-z])[)\]]|([A-Z])[.):])(?=\s|$)", re.MULTILINE)


def offered_letters(prompt: str, default: str = "ABCD") -> str:
    """The letters of the options in `prompt`: lines that begin "A.", "B)", ... in order; `default` where there are none."""
    found = ""
    for match in _OFFERED.finditer(prompt):
        letter = match[1]
        if letter == "A":
            found = "A"  # the last list counts: a few-shot prompt has several
        elif found and ord(letter) == ord(found[-1]) + 1:
            found += letter
    return found if len(found) > 1 else default


def option_letter(answer: str, letters: str = "ABCD") -> str | None:
    """The option that `answer` names, a capital out of `letters`; None where it names none, several, or another letter.

    >>> option_letter("The correct answer is **(B)** 4.")
    'B'
    >>> option_letter("It is A or B.") is None
    True
    """
    text = without_thoughts(answer)
    if text is None:
        return None
    text = re.sub(r"[*`]|__", "", unicodedata.normalize("NFKC", text)).replace("$", " ").strip()
    alone = _ALONE.fullmatch(text)
    if alone:
        return _one_of({alone[1].upper()}, letters)
    stated = {match[1].upper() for match in _BOXED.finditer(text)}
    for pattern in (_NAMED, _CONFIRMED, _CHOSEN):
        for match in pattern.finditer(text):
            if _AND_MORE.match(text, match.end()) and pattern is not _CONFIRMED:
                return None
            stated.add(next(group for group in match.groups() if group).upper())
    return _one_of(stated | _placed(text), letters)


def without_thoughts(answer: str) -> str | None:
    """An answer without what a model thought aloud before it (`<think>...</think>`); None where it never came to an end."""
    text = _THOUGHT.sub("", answer)
    return None if "<think>" in text else text


def _placed(text: str) -> set[str]:
    """Letters stated by where they stand: at the start of the first line, alone on the first or the last."""
    listed = {(match[1] or match[2]).upper() for match in _LISTED.finditer(text)}
    if len(listed) > 1:
        return set()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = set()
    for line in (lines[0], lines[-1]) if lines else ():
        alone = _ALONE.fullmatch(line)
        if alone:
            found.add(alone[1].upper())
    leading = _LEADING.match(lines[0]) if lines else None
    if leading and len({match[1] or match[2] for match in _MARKED.finditer(lines[0])}) < 2:
        found.add((leading[1] or leading[2]).upper())
    return found


def _one_of(found: set[str], letters: str) -> str | None:
    if len(found) != 1:
        return None
    (letter,) = found
    return letter if letter in letters else None
