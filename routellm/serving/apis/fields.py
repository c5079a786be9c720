"""Reading a request that is to be translated: every field is either understood or refused by its name, never dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from routellm.errors import RequestError

UNSUPPORTED = "unsupported_parameter"
"""The code of the error for what another API has no words for."""

_NULL = msgspec.Raw(b"null")


def unsupported(where: str, hint: str = "") -> RequestError:
    """What is asked for in the field `where` can't be said to the chosen model."""
    message = f"`{where}` can't be passed on: the chosen model is reached by chat completions, which have no place for it."
    return RequestError(f"{message} {hint}".rstrip(), param=where, code=UNSUPPORTED)


def invalid(where: str, allowed: str) -> RequestError:
    """The field `where` is not of the form that its API gives it."""
    return RequestError(f"`{where}` must be {allowed}.", param=where, code="invalid_value")


def known_fields(value: object, where: str, known: Collection[str]) -> dict[str, Any]:
    """The object's fields without those that are null.

    Raises:
        RequestError: `value` is no object, or has a field that is not `known`.
    """
    if not isinstance(value, dict):
        raise invalid(where, "an object")
    given = {name: field for name, field in value.items() if field is not None and field != _NULL}
    for name in given:
        if name not in known:
            raise unsupported(f"{where}.{name}")
    return given


def string_in(fields: Mapping[str, Any], name: str, where: str) -> str:
    """The text in a field that must be there.

    Raises:
        RequestError: it isn't, or is no string.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise invalid(f"{where}.{name}", "a string")
    return value
