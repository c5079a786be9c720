"""Leaves out of a prompt what is only said to be polite: a greeting, "could you please", thanks.

It says nothing of how hard a question is, but every word moves a mean over tokens, and a sentence more makes a prompt longer.
English only. The rules know no more than what begins and what ends a prompt; in its middle nothing is touched.
"""

from __future__ import annotations

import re

_MOST_WORDS, _MOST_CHARACTERS = 9, 80
"""A longer sentence is not taken for a courtesy, whatever its words are."""

_MOST_SENTENCES = 4
"""So many go at either end; who says more means something by it."""

_WORDS = frozenset(
    "hi hello hey there dear all everyone again good morning afternoon evening day sir madam friend assistant "
    "please kindly pls plz could can would will may might you your i i'm im we me my us it this that these is are be am do "
    "have had has got need want like love appreciate hope know wondering wonder looking ask asking get if "
    "answer help helping assist reply respond response solve question questions problem problems task request something "
    "some one a an the following next below here just quick with for to of on in out up so very much really well any kind "
    "thanks thank thx cheers advance lot great nice happy glad time attention appreciated grateful and or".split()
)
"""A sentence of nothing but these asks for an answer, or thanks for one, and does not say for which."""

_ALONE = frozenset("hi hello hey greetings please thanks thx cheers".split())
"""Of a single word, such a sentence is one of these: "Solve" may stand above an equation."""

_SENTENCE = re.compile(r"\s*([^.!?:;\n]{2,80})(?:[.!?:;]+(?=\s)|\n)\s*")
_LAST = re.compile(r"(?<=[.!?\n])\s*([^.!?:;\n]{2,80})[.!?\s]*$")
_WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")

_FIRST = frozenset(
    "hi hello hey dear good please kindly pls plz could can would will may i i'm i'd we just quick help answer solve respond "
    "reply the this here thanks thank".split()
)
_IN_LAST = ("thank", "thx", "cheers", "please", "appreciate", "help", "answer")
"""Words that one of a courtesy at the beginning begins with, and one of which a courtesy at the end holds."""

_BEGINNING, _END = 16, 90
"""Characters in which these are looked for."""

_MOST_SCANNED = 65_536
"""Characters; longer prompts are left as they are, which bounds the time that this takes."""

_GREETING = re.compile(
    r"\s*(?:hi|hello|hey)(?: (?:there|all|everyone|again))?(?:\s*[,!\-]\s*(?=\S)|\s+(?=can |could |please |i ))", re.IGNORECASE
)
_ASKING = re.compile(
    r"\s*(?:(?:could|can) you (?:please |kindly )?|(?:would|will) you (?:please|kindly) |"
    r"(?:please|kindly|pls|plz),? (?:(?:could|can) you )?)(?=[a-z])",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"[\s,;\-]*\b(?:(?:many )?thanks|thank you|thx|cheers)(?: (?:so|very) much| a lot| in advance| again)*[.!\s]*$"
    r"|[\s,]+please(?=[.?!]*\s*$)",
    re.IGNORECASE,
)


def without_courtesy(prompt: str) -> str:
    """The prompt without courtesies at its beginning and its end; the very same prompt where it has none, or nothing else."""
    if len(prompt) > _MOST_SCANNED:
        return prompt
    text = prompt
    first = text[:_BEGINNING].lower().split(None, 1)
    if first and first[0].rstrip(",.!:") in _FIRST:
        text = _from_matter(text)
    end = text[-_END:].lower()
    if any(word in end for word in _IN_LAST):
        text = _to_matter(text)
    return text if len(text) < len(prompt) and _WORD.search(text) else prompt


def _from_matter(text: str) -> str:
    start = 0
    for _ in range(_MOST_SENTENCES):
        first = _SENTENCE.match(text, start)
        if first is None or not _is_courtesy(first[1]):
            break
        start = first.end()
    rest = text[start:]
    for opening in (_GREETING, _ASKING):
        found = opening.match(rest)
        shorter = rest[found.end() :] if found else ""
        if len(_WORD.findall(shorter[:_END])) > 1 and not _is_courtesy(shorter):
            starts = rest.lstrip()[:1].isupper()
            rest = shorter[:1].upper() + shorter[1:] if starts else shorter
    return rest


def _to_matter(text: str) -> str:
    text = text[:-_END] + _THANKS.sub("", text[-_END:])
    for _ in range(_MOST_SENTENCES):
        last = _LAST.search(text, max(len(text) - _END, 0))
        if last is None or not _is_courtesy(last[1]):
            break
        text = text[: last.start()]
    return text


def _is_courtesy(sentence: str) -> bool:
    if len(sentence) > _MOST_CHARACTERS:
        return False
    words = [word.lower() for word in _WORD.findall(sentence)]
    known = _ALONE if len(words) == 1 else _WORDS
    return 0 < len(words) <= _MOST_WORDS and known.issuperset(words)
