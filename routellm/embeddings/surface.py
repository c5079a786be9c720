"""Surface features: what a prompt's form tells about its difficulty, in microseconds.

Ranking MMLU or GSM8K by nothing but prompt length already beats many published routers, and no sentence embedding keeps
length, digits or layout. So learned routers see these beside the embedding. Every feature is bounded and about 0 to 1;
counts go in as logarithms, densities as shares of the characters looked at. All see the text in one spelling (`normal.py`), so
that how a prompt was typed moves none of them.

The list is frozen under `SURFACE_VERSION`, which checkpoints record: a change of any feature is a new version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import log, log1p

import numpy as np

from routellm.embeddings.base import Vector
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.normal import plain_text

SURFACE_VERSION = 2

MAX_CHARS = 16_384
"""Only so many characters are scanned, which bounds the time for huge prompts; the length features see the whole length."""

SURFACE_NAMES = (
    "constant",
    "chars",
    "words",
    "lines",
    "word_length",
    "numbers",
    "digit_share",
    "capital_share",
    "punctuation_share",
    "non_ascii_share",
    "english_share",
    "options",
    "option_lines",
    "code_fence",
    "code_share",
    "math_share",
    "latex",
    "question_marks",
    "ends_as_question",
    "quotes",
    "list_items",
    "very_short",
    "asks_wh",
    "asks_how_why",
    "asks_to_write",
    "asks_to_solve",
    "asks_to_rework",
    "reasoning_words",
    "quantity_words",
    "code_words",
    "negation",
    "role_play",
)

SURFACE_DIM = len(SURFACE_NAMES)

_LETTERS = bytes(range(ord("a"), ord("z") + 1))
# Byte tables: `bytes.translate` is several times faster than a regular expression at both counting and splitting.
_TO_WORDS = bytes(
    byte if byte in _LETTERS or byte >= 0x80 else byte + 32 if bytes([byte]).isupper() else 0x20 for byte in range(256)
)
_TO_NUMBERS = bytes(byte if bytes([byte]).isdigit() else 0x20 for byte in range(256))
_CAPITALS = bytes(range(ord("A"), ord("Z") + 1))
_SIGNS = bytes(byte for byte in range(0x21, 0x7F) if not bytes([byte]).isalnum())
_NOT_SIGNS = bytes(byte for byte in range(256) if byte not in _SIGNS)
_CODE = b"{}<>[];=_#/\\|&"
_MATH = b"+*/^=<>%$"
_HIGH = bytes(range(0x80, 0x100))

_LATEX = re.compile(rb"\\[a-zA-Z]+|\$[^$\n]+\$")
# Regular expressions that begin with a plain character are searched for many times faster than others. So an option is found
# from each kind of sign, which is rare, back to its letter (not in f(a), U.S.A. or e.g.), and lines from the end before them.
_OPTIONS = tuple(re.compile(sign + rb"(?<=(?<![\w.])(?<!\w\()[A-Ja-j].)(?![A-Za-z]\.)") for sign in (rb"\.", rb"\)", b":"))
_OPTION_LINE = re.compile(rb"\n\(?[A-Ja-j][.):](?![A-Za-z]\.)")
_LIST_ITEM = re.compile(rb"\n(?:[-*]|\d+[.)]) ")
_MOST_ITEMS, _MOST_QUESTIONS = 5, 3
"""From there on, more of them add nothing: a longer list or the same question again makes no prompt harder."""
_LOG_ITEMS, _LOG_QUESTIONS = log(1 + _MOST_ITEMS), log(1 + _MOST_QUESTIONS)


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


_COMMON = _words(
    "the a an of to in and is are was were be for on with that this it as at by from or if you your i my me we he she they "
    "not do does can what which how who when where why has have had will would should"
)
# Families of words that tell what is asked, each with the number of distinct hits that counts as full.
_FAMILIES = (
    (3, _words("what which who whom whose when where")),
    (3, _words("how why explain describe compare discuss difference analyze analyse")),
    (3, _words("write create generate compose draft design make tell give story poem essay letter email article")),
    (
        3,
        _words(
            "solve calculate compute find prove determine evaluate estimate derive simplify integrate probability equation"
        ),
    ),
    (3, _words("translate summarize summarise rewrite rephrase paraphrase correct fix improve extract classify convert")),
    (
        5,
        _words("if then therefore because since suppose assume given must implies conclude consider following except unless"),
    ),
    (
        6,
        _words(
            "each every total many much more less twice half third per percent times remaining left cost costs price hours "
            "minutes days weeks miles dollars cents average sum number"
        ),
    ),
    (
        5,
        _words(
            "python javascript java code function class program script sql query html css api algorithm array string list "
            "loop return import def int void const var regex bash error"
        ),
    ),
    (3, _words("not no never except cannot without none neither nor")),
    (2, _words("act imagine pretend roleplay character persona assistant")),
)
_FAMILY_OF: dict[bytes, tuple[int, ...]] = {
    word: tuple(index for index, (_, words) in enumerate(_FAMILIES) if word in words)
    for word in frozenset().union(*(words for _, words in _FAMILIES))
}
_FAMILY_WORDS = frozenset(_FAMILY_OF)
_FULL = tuple(most for most, _ in _FAMILIES)


def surface_features(prompt: str) -> Vector:
    """The features of one prompt: float32, shape (SURFACE_DIM,), in the order of `SURFACE_NAMES`."""
    plain = plain_text(prompt, MAX_CHARS)
    return _features(plain.encode("utf-8", "replace"), len(plain), scale_of(prompt))


def scale_of(prompt: str) -> float:
    """How many times longer the prompt is than what is scanned of it: lengths count whole."""
    return max(len(prompt.strip()) / MAX_CHARS, 1.0)


def surface_features_batch(prompts: Sequence[str]) -> Vector:
    """The features of many prompts: float32, shape (len(prompts), SURFACE_DIM)."""
    return np.array([surface_features(prompt) for prompt in prompts], dtype=np.float32).reshape(len(prompts), SURFACE_DIM)


def features_in_python(text: bytes, chars: int, scale: float) -> Vector:
    """The features of a text that was scanned: of `chars` characters, and that much shorter than the whole."""
    size = len(text) or 1
    spread = text.translate(_TO_WORDS)
    words = spread.split()
    count = len(words) or 1
    numbers = text.translate(_TO_NUMBERS).split()
    signs = text.translate(None, _NOT_SIGNS)  # in their order; there are few, and they are looked at often
    lines = b"\n" + text
    features = [
        1.0,
        log1p(chars * scale) / 10.0,
        log1p(len(words) * scale) / 8.0,
        log1p(text.count(b"\n") * scale) / 5.0,
        min((len(spread) - spread.count(b" ")) / count, 12.0) / 12.0,
        log1p(len(numbers)) / 4.0,
        min(sum(map(len, numbers)) / size * 4.0, 1.0),
        min((len(text) - len(text.translate(None, _CAPITALS))) / size * 4.0, 1.0),
        min(len(signs) / size * 4.0, 1.0),
        0.0 if text.isascii() else min((len(text) - len(text.translate(None, _HIGH))) / size, 1.0),
        sum(map(_COMMON.__contains__, words)) / count,
        log1p(sum(len(option.findall(text)) for option in _OPTIONS)) / 3.0,
        min(len(_OPTION_LINE.findall(lines)), 10) / 10.0,
        1.0 if b"```" in signs and b"```" in text else 0.0,
        min((len(signs) - len(signs.translate(None, _CODE))) / size * 8.0, 1.0),
        min((len(signs) - len(signs.translate(None, _MATH))) / size * 8.0, 1.0),
        log1p(len(_LATEX.findall(text))) / 4.0 if b"\\" in signs or b"$" in signs else 0.0,
        log1p(min(signs.count(b"?"), _MOST_QUESTIONS)) / _LOG_QUESTIONS,
        1.0 if text.endswith(b"?") else 0.0,
        log1p(signs.count(b'"')) / 4.0,
        log1p(min(len(_LIST_ITEM.findall(lines)), _MOST_ITEMS)) / _LOG_ITEMS,
        1.0 if len(words) <= 6 else 0.0,
        *_hits(words),
    ]
    return np.array(features, dtype=np.float32)


def _hits(words: list[bytes]) -> list[float]:
    """For each family: how many of its words there are, as a share of the number that counts as full."""
    shares = [0.0] * len(_FAMILIES)
    hits = [family for word in _FAMILY_WORDS.intersection(words) for family in _FAMILY_OF[word]]
    for family in hits:
        shares[family] = min(hits.count(family) / _FULL[family], 1.0)
    return shares


def compiled_rules() -> scan.Surface:
    """What the compiled kernel has to know."""
    words = {word: int(word in _COMMON) for word in (*_COMMON, *_FAMILY_OF)}
    for word, families in _FAMILY_OF.items():
        words[word] |= sum(2 << family for family in families)
    return scan.Surface(words, _FULL, _CODE, _MATH, _MOST_ITEMS, _LOG_ITEMS, _MOST_QUESTIONS, _LOG_QUESTIONS)


def compiled_features(rules: scan.Surface) -> Callable[[bytes, int, float], Vector]:
    """What computes the same as `features_in_python`."""
    return lambda text, chars, scale: np.frombuffer(rules.features(text, chars, scale), dtype=np.float32)


RULES = compiled_rules() if COMPILED else None
_features = features_in_python if RULES is None else compiled_features(RULES)
