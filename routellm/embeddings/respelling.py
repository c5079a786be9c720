"""Texts in which each run of characters beyond ASCII is replaced. Most runs are a letter or a sign that was seen before."""

from __future__ import annotations

import re
from collections.abc import Callable

from routellm.embeddings.kernel import COMPILED, scan

_RUN = re.compile(r"[^\0-\x7f]+")
_REMEMBERED_RUNS = 16_384
_LONG_RUN = 8
"""Characters; longer runs, as of Chinese, hardly come again."""


class Respelling(dict[str, str]):
    """Runs and what becomes of them, some of which are remembered.

    Args:
        respell: says what becomes of a run.
        compiled: whether the compiled kernel looks for runs.
    """

    def __init__(self, respell: Callable[[str], str], *, compiled: bool = COMPILED) -> None:
        super().__init__()
        self._respell = respell
        self._compiled = compiled

    def __missing__(self, run: str) -> str:
        becomes = self._respell(run)
        if len(run) <= _LONG_RUN and len(self) < _REMEMBERED_RUNS:
            self[run] = becomes
        return becomes

    def of(self, text: str) -> str:
        """The text with each run replaced."""
        found = scan.respell(text, self) if self._compiled else None
        # The kernel leaves lone surrogates alone, as UTF-8 does not know them.
        return _RUN.sub(lambda run: self[run[0]], text) if found is None else found
