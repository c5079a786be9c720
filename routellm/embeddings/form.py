"""Form features: what the make-up of a question tells, beyond the surface features that every router sees.

A question's own text (the stem) is told apart from the options that it offers; the features count words, sentences and numbers
of the one, and compare lengths within the other. A router that is fitted to few labels lives on such features: each of them
means the same on every prompt, where the hundreds of columns of an embedding need as many labels to be weighed.

The list, and the text that it is computed from, are frozen under `FORM_VERSION`, which checkpoints record: a change of any
feature is a new version. Since version 2 what a prompt says again is left out before all else, since version 3 courtesies too
(`routellm.routers.views`), and long lists are no longer taken for options (`routellm.routers.parts.lists_options`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import log1p

import numpy as np

from routellm.embeddings.base import Vector
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.normal import plain_text
from routellm.embeddings.surface import MAX_CHARS

FORM_VERSION = 3

FORM_NAMES = (
    "stem_chars",
    "stem_words",
    "stem_sentences",
    "words_a_sentence",
    "stem_word_length",
    "long_words",
    "distinct_words",
    "title_case",
    "commas",
    "hyphens",
    "stem_numbers",
    "distinct_numbers",
    "largest_number",
    "number_size",
    "decimals",
    "fractions",
    "portions",
    "units",
    "option_length",
    "longest_option",
    "shortest_option",
    "option_word_length",
    "option_digits",
    "option_share",
    "option_of_options",
    "capital_negation",
    "statements",
    "refers_to_text",
)

FORM_DIM = len(FORM_NAMES)

_LETTERS = bytes(range(ord("a"), ord("z") + 1))
_TO_WORDS = bytes(
    byte if byte in _LETTERS or byte >= 0x80 else byte + 32 if bytes([byte]).isupper() else 0x20 for byte in range(256)
)
_TO_PARTS = bytes(byte if bytes([byte]).isalpha() else 0x20 for byte in range(256))
_DIGITS = b"0123456789"

_OPTION = re.compile(rb"^\(?[A-Ja-j][.):](?![A-Za-z]\.)([^\n]*)", re.MULTILINE)
_NUMBER = re.compile(rb"\d[\d,]*(?:\.\d+)?")
_FRACTION = re.compile(rb"\d/\d")
_OF_OPTIONS = (b"all of the", b"none of the", b"both of the", b"neither of the")
_CAPITAL_NEGATION = frozenset(b"NOT EXCEPT LEAST INCORRECT FALSE".split())
_STATEMENTS = (
    b"statement 1",
    b"statement 2",
    b"statement i ",
    b"statement i:",
    b"statement ii",
    b"claim 1",
    b"claim 2",
    b"assertion (",
    b"ii. ",
)
_REFERS = (b"passage", b"excerpt", b"refers to the", b"refer to the", b"text above", b"based on the")
_MOST_NUMBERS = 64
_LONG = 8
"""Letters; words of more are long."""

_PORTIONS = frozenset(
    b"each every twice half third quarter times more less fewer remaining left total double triple rest per ratio".split()
)
_UNITS = frozenset(
    b"hour hours minute minutes day days week weeks mile miles dollar dollars cent cents km kg cm meter meters metre metres "
    b"feet inches pound pounds percent year years mol volt volts ohm ohms gram grams degree degrees".split()
)


def form_features(prompt: str) -> Vector:
    """The features of one prompt: float32, shape (FORM_DIM,), in the order of `FORM_NAMES`; each about 0 to 1."""
    return _features(plain_text(prompt, MAX_CHARS).encode("utf-8", "replace"))


def form_features_batch(prompts: Sequence[str]) -> Vector:
    """The features of many prompts: float32, shape (len(prompts), FORM_DIM)."""
    return np.array([form_features(prompt) for prompt in prompts], dtype=np.float32).reshape(len(prompts), FORM_DIM)


def features_in_python(text: bytes) -> Vector:
    """The features of a text in one spelling."""
    return np.array(_listed(text), dtype=np.float32)


def _listed(text: bytes) -> list[float]:
    first = _OPTION.search(text)
    if first is None:
        return [*_of_stem(text), *_NO_OPTIONS, *_of_wording(text)]
    return [*_of_stem(text[: first.start()]), *_of_options(text[first.start() :], len(text)), *_of_wording(text)]


def _of_stem(stem: bytes) -> list[float]:
    words = stem.translate(_TO_WORDS).split()
    count = max(len(words), 1)
    distinct = set(words)
    sentences = 1 + stem.count(b". ") + stem.count(b"? ") + stem.count(b"! ")
    lengths = list(map(len, words))
    found = _NUMBER.findall(stem)[:_MOST_NUMBERS]
    numbers = [float(number.replace(b",", b"")[:24]) for number in found]
    sizes = [log1p(number) for number in numbers]
    total = 0.0
    for each in sizes:  # `sum` rounds otherwise since Python 3.12
        total += each
    return [
        log1p(len(stem)) / 10.0,
        log1p(len(words)) / 8.0,
        log1p(sentences) / 4.0,
        min(len(words) / sentences, 60.0) / 60.0,
        min(sum(lengths) / count, 12.0) / 12.0,
        sum(map(_LONG.__lt__, lengths)) / count,
        len(distinct) / count,
        min(sum(map(bytes.istitle, stem.split()[1:])) / count * 2.0, 1.0),
        min(stem.count(b",") / count * 4.0, 1.0),
        min(stem.count(b"-") / count * 4.0, 1.0),
        log1p(len(found)) / 4.0,
        log1p(len(set(numbers))) / 4.0,
        min(max(sizes, default=0.0), 20.0) / 20.0,
        min(total / max(len(sizes), 1), 20.0) / 20.0,
        log1p(sum(b"." in number for number in found)) / 4.0,
        log1p(len(_FRACTION.findall(stem))) / 4.0 if b"/" in stem else 0.0,
        min(sum(map(_PORTIONS.__contains__, words)), 8) / 8.0,
        min(sum(map(_UNITS.__contains__, words)), 8) / 8.0,
    ]


_NO_OPTIONS = [0.0] * 6


def _of_options(tail: bytes, size: int) -> list[float]:
    options = [option.strip() for option in _OPTION.findall(tail)]
    lengths = [len(option) for option in options]
    joined = b" ".join(options)
    words = joined.translate(_TO_WORDS).split()
    total = max(sum(lengths), 1)
    return [
        log1p(sum(lengths) / len(lengths)) / 6.0,
        log1p(max(lengths)) / 6.0,
        log1p(min(lengths)) / 6.0,
        min(sum(map(len, words)) / max(len(words), 1), 12.0) / 12.0,
        (len(joined) - len(joined.translate(None, _DIGITS))) / total,
        sum(lengths) / size,
    ]


def _of_wording(text: bytes) -> list[float]:
    lower = text.lower()
    return [
        float(any(phrase in lower for phrase in _OF_OPTIONS)),
        float(not _CAPITAL_NEGATION.isdisjoint(text.translate(_TO_PARTS).split())),
        min(sum(map(lower.count, _STATEMENTS)), 4) / 4.0,
        float(any(phrase in lower for phrase in _REFERS)),
    ]


def compiled_rules() -> scan.Form:
    """What the compiled kernel has to know."""
    words = {word: (word in _PORTIONS) + 2 * (word in _UNITS) for word in _PORTIONS | _UNITS}
    return scan.Form(words, dict.fromkeys(_CAPITAL_NEGATION, 1), (_OF_OPTIONS, _STATEMENTS, _REFERS), _LONG)


def compiled_features(rules: scan.Form) -> Callable[[bytes], Vector]:
    """What computes the same as `features_in_python`."""
    return lambda text: np.frombuffer(rules.features(text), dtype=np.float32)


RULES = compiled_rules() if COMPILED else None
_features = features_in_python if RULES is None else compiled_features(RULES)
