"""From what a configuration or a checkpoint says to an embedder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from routellm.embeddings.base import EMBEDDERS, Embedder
from routellm.errors import ConfigError, UnknownNameError, did_you_mean

OPENAI_MODELS = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")
"""Names that published configurations give for an embedder; each means `{"type": "openai", "model": NAME}`."""


def load_embedder(spec: str | Mapping[str, Any] | None = None) -> Embedder:
    """Construct an embedder.

    Args:
        spec: None or "static" for the bundled table; the name of another registered embedder, with a colon and its first
            argument behind it if need be, such as ``bert:my-router``; the name of an OpenAI embedding model; or a mapping
            with the name as `type` beside the constructor's arguments, such as
            ``{"type": "openai", "model": "bge-m3", "base_url": "http://localhost:8000/v1"}``.

    Raises:
        UnknownNameError: no embedder has this name.
        ConfigError: `spec` is of another type, or the embedder takes no such argument.
        CheckpointError, MissingExtraError, MissingKeyError: what the embedder needs is not there.
    """
    if spec is None:
        spec = "static"
    if isinstance(spec, str):
        if spec in OPENAI_MODELS:
            return _construct("openai", (), {"model": spec})
        wanted, colon, argument = spec.partition(":")
        if colon and not argument:
            raise ConfigError(f"The embedder {spec!r} has nothing behind its colon; leave that out, or give an argument.")
        return _construct(wanted, (argument,) if argument else (), {})
    if not isinstance(spec, Mapping):
        raise ConfigError(f"An embedder is a name, or a mapping with `type` and arguments; not {spec!r}.")
    name = spec.get("type")
    if not isinstance(name, str):
        raise ConfigError(
            f"An embedder's mapping needs a `type`, one of: {', '.join(EMBEDDERS)}. Given: {sorted(map(str, spec))}."
        )
    return _construct(name, (), {key: value for key, value in spec.items() if key != "type"})


def _construct(name: str, given: Sequence[str], arguments: Mapping[str, Any]) -> Embedder:
    if name not in EMBEDDERS:
        raise UnknownNameError("embedder", name, [*EMBEDDERS, *OPENAI_MODELS])
    cls = EMBEDDERS[name]
    try:
        inspect.signature(cls).bind(*given, **arguments)
    except TypeError as error:
        known = list(inspect.signature(cls).parameters)
        hint = "".join(did_you_mean(str(key), known) for key in arguments if key not in known)
        raise ConfigError(f"The embedder {name!r}: {error}{hint}. It takes: {', '.join(known) or 'nothing'}.") from error
    return cls(*given, **arguments)
