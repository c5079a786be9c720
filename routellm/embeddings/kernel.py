"""The compiled kernel, which reads prompts in microseconds, and whether it is there.

An installation without a C compiler goes without it. Whatever the kernel does, a function in Python beside its use does too,
and with the same bits; which of the two runs is chosen in one place for each, by `COMPILED`.
"""

from __future__ import annotations

import logging
from functools import cache

try:
    from routellm.embeddings import _scan as scan

    COMPILED = True
except ImportError:  # not built, or for another machine
    scan = None  # type: ignore[assignment]
    COMPILED = False

__all__ = ["COMPILED", "scan", "tell_if_missing"]

logger = logging.getLogger("routellm.embeddings")


@cache
def tell_if_missing() -> None:
    """Log once a process that scores take longer than they have to."""
    if not COMPILED:
        logger.warning(
            "routellm's compiled kernel is missing: scores are the same, but take several times as long. "
            "To have it, install a C compiler, then routellm again; in a checkout, which Python reads in place of what is "
            "installed, by `pip install -e .`."
        )
