"""The function by which a user decides what of a prompt is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module

from routellm.errors import ConfigError
from routellm.ledger.rows import Redact

logger = logging.getLogger("routellm.ledger")


def load_redaction(path: str) -> Redact:
    """The function at "package.module:function", made safe: where it fails, nothing is kept. An empty path keeps all.

    Raises:
        ConfigError: there is no such function.
    """
    if not path:
        return lambda prompt: prompt
    module, _, name = path.partition(":")
    try:
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"gateway.ledger.redact is {path!r}, which can't be imported: {error}.") from error
    if not callable(found):
        raise ConfigError(f"gateway.ledger.redact is {path!r}, which is not a function.")
    return _safe(found, path)


def _safe(function: Callable[[str], object], path: str) -> Redact:
    told: set[type] = set()

    def redact(prompt: str) -> str | None:
        try:
            kept = function(prompt)
            if kept is None or isinstance(kept, str):
                return kept
            raise TypeError(f"it returned a {type(kept).__name__}, not a text or None")
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything, and no request may suffer
            if type(error) not in told:  # its message may hold the prompt, so only its kind is told, and once
                told.add(type(error))
                logger.error("the redaction %s fails with %s; prompts are left out", path, type(error).__name__)
            return None

    return redact
