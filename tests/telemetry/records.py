"""Finished requests to count."""

from __future__ import annotations

from typing import Any

from routellm.telemetry.metrics import Metrics
from routellm.types import RequestRecord, Usage

ROLES = {"openai/big": "strong", "openai/small": "weak"}
ROUTERS = ["mf"]


def record(**changes: Any) -> RequestRecord:
    """A chat request that `mf` sent to the strong model, which answered; but for `changes`."""
    fields: dict[str, Any] = {
        "request_id": "req-1",
        "at": 1_700_000_000.25,
        "api": "chat",
        "asked": "router-mf-0.5",
        "outcome": "answered",
        "status": 200,
        "model": "openai/big",
        "reason": "threshold",
        "router": "mf",
        "threshold": 0.5,
        "win_rate": 0.62,
        "decision_us": 120.0,
        "attempts": 1,
        "own_ms": 0.4,
        "upstream_ms": 800.0,
        "first_byte_ms": 300.0,
        "usage": Usage(input_tokens=10, output_tokens=20, cached_input_tokens=4),
    }
    return RequestRecord(**{**fields, **changes})


def refused(**changes: Any) -> RequestRecord:
    """A request whose model's name this server does not know."""
    fields: dict[str, Any] = {"outcome": "refused", "status": 404, "asked": "no-such", "error": "model_not_found"}
    fields |= dict.fromkeys(("model", "reason", "router", "threshold", "win_rate", "first_byte_ms", "usage"))
    return record(**{**fields, "attempts": 0, "upstream_ms": 0.0, "decision_us": 0.0, **changes})


def metrics(**options: Any) -> Metrics:
    """For the two models and the router of `record`."""
    return Metrics(ROLES, ROUTERS, **options)
