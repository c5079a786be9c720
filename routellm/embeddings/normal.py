"""One spelling of a prompt for the features that count characters and words, whichever way it was typed or pasted.

No-break spaces, curly quotes, full-width digits, line ends of Windows, indentation and a pressed Caps Lock say nothing about
how hard a question is. Counted as they come, they move a router's score more than many a word does.
"""

from __future__ import annotations

import re
import unicodedata

from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.respelling import Respelling

_APOSTROPHE = "\u2018\u2019\u201a\u201b\u2032\u02bc"
_QUOTE = "\u201c\u201d\u201e\u201f\u00ab\u00bb"
_HYPHEN = "\u2010\u2011\u2012\u2013\u2212"
_INVISIBLE = (
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
)
_SPACE = "\x85\u1680\u2028\u2029"  # what NFKC leaves of it beyond ASCII
_PLAIN = {
    **dict.fromkeys(_APOSTROPHE, "'"),
    **dict.fromkeys(_QUOTE, '"'),
    **dict.fromkeys(_HYPHEN, "-"),
    **dict.fromkeys(_INVISIBLE, ""),
    **dict.fromkeys(_SPACE, " "),
    "\u2014": "--",
    "\u2015": "--",
    "\u2044": "/",  # NFKC writes one half with this slash
}
_ODD = re.compile(f"[{''.join(_PLAIN)}]")  # a few signs replaced cost less than `str.translate` on all of them


_PIECE_END = re.compile(r"((?<=[.?!])\s+|\n+)")
_LEAST_PIECE = 10
"""Characters; shorter sentences and lines, such as a label or a closing bracket, may well come more than once."""
_MOST_SCANNED = 65_536
"""Characters; of longer prompts the kernel does not say whether they repeat anything, which bounds its time and memory."""


def without_repeats(prompt: str) -> str:
    """The prompt without sentences and lines that it has said before; the very same prompt where it repeats none.

    Said five times, a question is no harder, but longer.
    """
    if COMPILED and len(prompt) <= _MOST_SCANNED and prompt.isascii() and not scan.says_again(prompt, _LEAST_PIECE):
        return prompt
    return without_repeats_in_python(prompt)


def without_repeats_in_python(prompt: str) -> str:
    """The same for any prompt; the kernel only tells when there is nothing to do."""
    pieces = _PIECE_END.split(prompt)
    said = [piece.strip() for piece in pieces[::2]]
    long = [piece for piece in said if len(piece) >= _LEAST_PIECE]
    if len(set(long)) == len(long):
        return prompt
    seen: set[str] = set()
    kept: list[str] = []
    for piece, end in zip(said, [*pieces[1::2], ""], strict=True):
        if piece not in seen or len(piece) < _LEAST_PIECE:
            kept += [piece, end]
            seen.add(piece)
        elif "\n" in end:
            kept[-1] = end  # what follows still begins a line
    return "".join(kept)


def plain_text(prompt: str, most: int) -> str:
    """The first `most` characters, in one spelling.

    Compatibility forms become the usual signs (NFKC), quotes and dashes ASCII ones, invisible signs go. White space is a
    single newline where a line ends and a single space elsewhere; none is left at the ends, and no empty line. A text without
    any small letter is taken for one in small letters.
    """
    if not COMPILED:
        return plain_text_in_python(prompt, most)
    if prompt.isascii():
        return scan.plain_text(prompt, most)
    try:
        text = _SPELLINGS.of(prompt.strip()[:most])[:most]
        return scan.single_spaces(_without_caps_lock(text, most))
    except (_JoinsError, UnicodeEncodeError):  # the latter for lone surrogates
        return plain_text_in_python(prompt, most)


def plain_text_in_python(prompt: str, most: int) -> str:
    """The same."""
    text = prompt.strip()[:most]
    if text.isascii() and text.isprintable() and "  " not in text and text[-1:] != " " and not text.isupper():
        return text  # as most are
    if not text.isascii():
        text = _with_plain_signs(text)[:most]
    text = _without_caps_lock(text, most)
    if "\n" not in text and "\r" not in text:
        return " ".join(text.split())
    lines = [" ".join(line.split()) for line in text.replace("\r", "\n").split("\n")]
    return "\n".join(filter(None, lines))


def _with_plain_signs(text: str) -> str:
    return _ODD.sub(lambda odd: _PLAIN[odd[0]], unicodedata.normalize("NFKC", text))


def _without_caps_lock(text: str, most: int) -> str:
    return text.lower()[:most] if text.isupper() else text  # a small letter may take two characters


class _JoinsError(Exception):
    """What a run becomes depends on the letter before it, which a mark at its start may join."""


def _respell(run: str) -> str:
    text = _with_plain_signs(run)
    if unicodedata.combining(text[:1] or " "):
        raise _JoinsError
    return text


_SPELLINGS = Respelling(_respell)
