"""Every metric that the server has, as data: its name, what it counts, its labels and, of a histogram, its bounds.

Names follow Prometheus' conventions: base units (seconds), counters end in `_total`, and a label's values are few: models and
routers are those that are served, never what a client wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

WIN_RATES = tuple(step / 20 for step in range(1, 20))
DECISION_SECONDS = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0)
OWN_SECONDS = (100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0)
MODEL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all its label values. `bounds` are a histogram's upper bounds, inclusive, without infinity."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers a label set has: 1, or a histogram's count of each bucket and then the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


REQUESTS = Family(
    "routellm_requests_total",
    "counter",
    "Requests that are over, by the HTTP status that went out (499: the client left first) and what became of them.",
    ("api", "model", "code", "outcome"),
)
ERRORS = Family("routellm_errors_total", "counter", "Errors that this server answered with or logged, by code.", ("error",))
TOKENS = Family(
    "routellm_tokens_total",
    "counter",
    "Tokens by kind: input is what the provider did not have in its cache, cached_input what it had.",
    ("model", "kind"),
)
COST = Family("routellm_cost_dollars_total", "counter", "What the requests cost by the list of prices.", ("model",))
STRONG_COST = Family(
    "routellm_strong_cost_dollars_total",
    "counter",
    "An estimate of what the same requests would have cost, had the strong model answered them all.",
)
DECISIONS = Family(
    "routellm_decisions_total",
    "counter",
    "Decisions by router (none: none was asked), chosen model and its role, and reason.",
    ("router", "model", "role", "reason"),
)
CALLS = Family("routellm_upstream_calls_total", "counter", "Calls to models, retries included.", ("model",))
RETRIES = Family("routellm_upstream_retries_total", "counter", "Calls to models beyond a request's first.", ("model",))
DROPPED = Family(
    "routellm_ledger_dropped_records_total", "counter", "Records that the ledger gave up on, and that it now lacks."
)
KEYS_REFUSED = Family(
    "routellm_keys_refused_total",
    "counter",
    "Requests that were refused by their key: unauthorized (no valid one), over_limit or over_budget.",
    ("why",),
)
KEYS_UNCHECKED = Family(
    "routellm_keys_unchecked_total",
    "counter",
    "Requests whose key's limits could not be checked, since the database was away.",
)
KEYS_LOST = Family(
    "routellm_keys_lost_settlements_total", "counter", "Sums spent of which nobody knows whether they were booked."
)

WIN_RATE = Family(
    "routellm_win_rate", "histogram", "Win rates that routers gave the strong model, from 0 to 1.", ("router",), WIN_RATES
)
DECISION = Family("routellm_decision_seconds", "histogram", "Time a router took to decide.", ("router",), DECISION_SECONDS)
OWN = Family("routellm_overhead_seconds", "histogram", "Time a request spent in this server.", ("api",), OWN_SECONDS)
UPSTREAM = Family("routellm_upstream_seconds", "histogram", "Time a request waited for the model.", ("model",), MODEL_SECONDS)
WHOLE = Family(
    "routellm_request_seconds", "histogram", "Time from a request's arrival to the end of its reply.", ("api",), MODEL_SECONDS
)
FIRST_BYTE = Family(
    "routellm_first_byte_seconds",
    "histogram",
    "Time from a request's arrival to the first byte of its reply's body.",
    ("model",),
    MODEL_SECONDS,
)

IN_FLIGHT = Family("routellm_requests_in_flight", "gauge", "Requests that are not over yet.")
QUEUE = Family("routellm_queue_depth", "gauge", "What waits in a queue.", ("queue",))
BREAKERS = Family(
    "routellm_breaker_state",
    "gauge",
    "Worker processes whose circuit breaker of this endpoint is in this state.",
    ("model", "endpoint", "state"),
)
BUFFERED = Family("routellm_ledger_buffered_records", "gauge", "Records that the ledger has yet to write.")
WORKERS = Family("routellm_workers", "gauge", "Worker processes that are alive.")

_ALL = (
    *(REQUESTS, ERRORS, TOKENS, COST, STRONG_COST, DECISIONS, CALLS, RETRIES, DROPPED),
    *(KEYS_REFUSED, KEYS_UNCHECKED, KEYS_LOST),
    *(WIN_RATE, DECISION, OWN, UPSTREAM, WHOLE, FIRST_BYTE),
    *(IN_FLIGHT, QUEUE, BREAKERS, BUFFERED, WORKERS),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
"""By name, in the order in which they are told."""

GAUGES = frozenset(family.name for family in _ALL if family.kind == "gauge")
"""Those that tell of a process's present state, and so go with it."""
