"""A key as people and programs see it: without what is secret about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from routellm.keys.store import Key


def as_dict(key: Key, now: float) -> dict[str, Any]:
    """Its fields as JSON-able values, times in UTC; `state` is that of `now`, in Unix seconds."""
    return {
        "object": "key",
        "id": key.id,
        "name": key.name,
        "state": key.state(now),
        "created": time_text(key.created),
        "expires": time_text(key.expires),
        "revoked": time_text(key.revoked),
        "previous_until": time_text(key.previous_until),
        "policy": msgspec.to_builtins(key.policy),
    }


def time_text(seconds: int | None) -> str | None:
    """Unix seconds as "2026-01-31T12:00:00Z"."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def policy_text(key: Key) -> str:
    """Its bounds on one line; "no bounds" where there are none."""
    bounds = msgspec.to_builtins(key.policy)
    return "; ".join(f"{name} {_value_text(value)}" for name, value in bounds.items()) or "no bounds"


def _value_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(value) or "none"
    return f"{value:,.10g}" if isinstance(value, float) else str(value)
