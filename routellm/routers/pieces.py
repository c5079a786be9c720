"""A prompt in pieces: the paragraphs that somebody may have put around a question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

MOST = 32
"""A prompt of more pieces is cut into so many of about as many paragraphs each, which bounds what looking at them costs."""

_BETWEEN = "\n\n"
_FENCE = "```"
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_OPTION = re.compile(r"\(?[A-Ja-j][.):](?![A-Za-z]\.)")


def pieces_of(prompt: str) -> list[str]:
    """The prompt's paragraphs and its blocks of code between fences, at most `MOST`.

    Options belong to the paragraph before them.
    """
    found: list[str] = []
    for piece in _paragraphs(prompt):
        if found and _OPTION.match(piece):
            found[-1] = joined([found[-1], piece])
        else:
            found.append(piece)
    if len(found) <= MOST:
        return found
    edges = [len(found) * number // MOST for number in range(MOST + 1)]
    return [joined(found[start:end]) for start, end in pairwise(edges)]


def joined(pieces: Sequence[str]) -> str:
    """The text that the pieces make up."""
    return _BETWEEN.join(pieces)


def _paragraphs(text: str) -> Iterator[str]:
    parts = text.split(_FENCE)
    if len(parts) % 2 == 0:  # the last block is never closed
        parts[-2:] = [_FENCE.join(parts[-2:])]
    for number, part in enumerate(parts):
        if number % 2:
            yield f"{_FENCE}{part}{_FENCE}"
            continue
        for paragraph in _PARAGRAPH_END.split(part.strip("\n")):
            if paragraph.strip():
                yield paragraph.rstrip()
