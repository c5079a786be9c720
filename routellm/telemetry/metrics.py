"""Counting each finished request, and telling Prometheus.

    metrics = Metrics({"gpt-4o": "strong", "gpt-4o-mini": "weak"}, ["mf"], directory)
    metrics.observe(record, dollars=0.0021)    # a few microseconds; on the event loop
    metrics.publish(gauges)                    # every second, so that other workers know of this one's present state
    content_type, body = metrics.render()      # milliseconds: in a thread

Counts of several workers are right at any time, since each is visible to the others as soon as it is made; see `cells.py`.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from routellm.telemetry import families
from routellm.telemetry.cells import Cells, Row
from routellm.telemetry.exposition import expose
from routellm.telemetry.families import Family
from routellm.types import RequestRecord

NONE, OTHER = "none", "other"
"""Label values: there is no such thing, and one that is not among those that are told apart."""

_CODES = frozenset(status.value for status in HTTPStatus) | {499, 529}  # nginx's for a client that left, Anthropic's overload
_MOST_ERRORS = 64
_MOST_PLANS = 4096
_CREDENTIALS = re.compile(r"(?<=//)[^/@]*@|\?.*", re.DOTALL)


class KeyCounts(NamedTuple):
    """See `GuardStates` of the keys, whose names these are."""

    unauthorized: int
    over_limit: int
    over_budget: int
    unchecked: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The present state of one worker process.

    Attributes:
        in_flight: requests that are not over.
        queues: a queue's name -> how many wait in it.
        breakers: model and endpoint -> the state of the circuit breaker ("closed", "open", "half-open").
        ledger_buffered: records that the ledger has yet to write; None without a ledger.
        ledger_dropped: records that it has given up on since this process began.
        keys: how many requests were refused by their key, and why, how many could not be checked, and how many settlements
            were lost, since this process began; None without keys.
    """

    in_flight: int = 0
    queues: Mapping[str, int] = field(default_factory=dict[str, int])
    breakers: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    ledger_buffered: int | None = None
    ledger_dropped: int = 0
    keys: KeyCounts | None = None


@contextmanager
def shared_directory(workers: int) -> Iterator[Path | None]:
    """Where several workers count together, in memory where the system can; gone at the end. None for one worker."""
    if workers == 1:
        yield None
        return
    memory = Path("/dev/shm")  # noqa: S108 - the directory made in it is ours alone
    with TemporaryDirectory(prefix="routellm-metrics-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@dataclass(frozen=True, slots=True)
class _Histogram:
    """A row of counts, and the sum behind them."""

    counts: int
    total: int
    bounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _ModelRows:
    """Places of a model's rows."""

    upstream: _Histogram
    first_byte: _Histogram
    calls: int
    retries: int
    input: int
    cached_input: int
    output: int


@dataclass(frozen=True, slots=True)
class _RouterRows:
    """Places of a router's rows."""

    win_rate: _Histogram
    decision: _Histogram


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where requests of one kind are counted: places of rows."""

    ones: tuple[int, ...]
    own: _Histogram
    whole: _Histogram
    model: _ModelRows | None
    router: _RouterRows | None


class Metrics:
    """What one worker process counts, and the sums over all of them.

    For the event loop's thread, but for `render`, which any thread may call.

    Args:
        roles: every served model's name -> what it is served as ("strong", "weak", "spare").
        routers: every served router's name.
        directory: one that the workers of this server share, empty when the server starts; None where there is one worker.

    Raises:
        ConfigError: the directory can't be used.
    """

    def __init__(self, roles: Mapping[str, str], routers: Iterable[str], directory: Path | None = None) -> None:
        self._cells = Cells(directory, families.GAUGES)
        self._plans: dict[tuple[object, ...], _Plan] = {}
        self._costs: dict[str | None, int] = {}
        self._strong_cost: int | None = None
        self._errors: set[str] = set()
        self._counted: dict[int, int] = {}
        self.serve(roles, routers)
        self.publish(Gauges())

    def serve(self, roles: Mapping[str, str], routers: Iterable[str]) -> None:
        """Tell apart these models and routers from now on, and put others under "other"; after a change of configuration."""
        self._roles = dict(roles)
        self._routers = frozenset(routers)
        self._plans.clear()
        self._costs.clear()

    def observe(self, record: RequestRecord, dollars: float | None = None, strong_dollars: float | None = None) -> None:
        """Count a finished request.

        Args:
            record: what is known of it.
            dollars: what it cost; None where no price is known.
            strong_dollars: an estimate of what the strong model would have cost in its place.
        """
        key = (record.api, record.model, record.status, record.outcome, record.router, record.reason, record.error)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(record)
            if len(self._plans) < _MOST_PLANS:
                self._plans[key] = plan
        values = self._cells.values
        for place in plan.ones:
            values[place] += 1.0
        own, upstream = record.own_ms / 1e3, record.upstream_ms / 1e3
        _add(values, plan.own, own)
        _add(values, plan.whole, own + upstream)
        if plan.router is not None and record.win_rate is not None:
            _add(values, plan.router.win_rate, record.win_rate)
            _add(values, plan.router.decision, record.decision_us / 1e6)
        if plan.model is not None:
            _count_model(values, plan.model, record, upstream)
        if dollars is not None:
            cost = self._costs.get(record.model)
            if cost is None:
                cost = self._costs[record.model] = self._place(families.COST, self._model(record.model))
            values[cost] += dollars
        if strong_dollars is not None:
            if self._strong_cost is None:
                self._strong_cost = self._place(families.STRONG_COST)
            values[self._strong_cost] += strong_dollars

    def publish(self, gauges: Gauges) -> None:
        """Make this process's present state visible to all workers. What `gauges` lacks and had before becomes 0."""
        now = {self._place(families.WORKERS): 1, self._place(families.IN_FLIGHT): gauges.in_flight}
        for queue, depth in gauges.queues.items():
            now[self._place(families.QUEUE, queue)] = depth
        for (model, endpoint), state in gauges.breakers.items():
            place = self._place(families.BREAKERS, self._model(model), _CREDENTIALS.sub("", endpoint), state)
            now[place] = now.get(place, 0) + 1
        if gauges.ledger_buffered is not None:
            now[self._place(families.BUFFERED)] = gauges.ledger_buffered
            self._count_up(self._place(families.DROPPED), gauges.ledger_dropped)
        if gauges.keys is not None:
            for why in ("unauthorized", "over_limit", "over_budget"):
                self._count_up(self._place(families.KEYS_REFUSED, why), getattr(gauges.keys, why))
            self._count_up(self._place(families.KEYS_UNCHECKED), gauges.keys.unchecked)
            self._count_up(self._place(families.KEYS_LOST), gauges.keys.lost)
        for name in families.GAUGES:
            for place in self._cells.rows(name):
                self._cells.values[place] = now.get(place, 0)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body for `GET /metrics`, summed over all workers; `accept` is the request's header.

        Raises:
            MissingExtraError: prometheus_client is not installed.
        """
        sums: dict[Row, array[float]] = {}
        for page in self._cells.read():
            for row, values in page.rows.items():
                if row[0] in families.GAUGES and not page.alive:
                    continue
                before = sums.get(row)
                sums[row] = values if before is None else array("d", map(add, before, values))
        return expose(sums, accept)

    def close(self) -> None:
        """Let go of the shared files; what was counted stays in the sums. Nothing may be counted any more."""
        self._cells.close()

    def _count_up(self, place: int, now: int) -> None:
        """Add what a count that somebody else keeps has grown by."""
        self._cells.values[place] += max(0, now - self._counted.get(place, 0))
        self._counted[place] = now

    def _plan(self, record: RequestRecord) -> _Plan:
        model = self._model(record.model)
        router = NONE if record.router is None else record.router if record.router in self._routers else OTHER
        ones = [self._place(families.REQUESTS, record.api, model, _code(record.status), record.outcome)]
        if record.error is not None:
            ones.append(self._place(families.ERRORS, self._error(record.error)))
        if record.reason is not None:
            role = self._roles.get(record.model or "", OTHER)
            ones.append(self._place(families.DECISIONS, router, model, role, record.reason))
        return _Plan(
            tuple(ones),
            own=self._histogram(families.OWN, record.api),
            whole=self._histogram(families.WHOLE, record.api),
            model=None if record.model is None else self._model_rows(model),
            router=None if record.router is None else self._router_rows(router),
        )

    def _model_rows(self, model: str) -> _ModelRows:
        return _ModelRows(
            self._histogram(families.UPSTREAM, model),
            self._histogram(families.FIRST_BYTE, model),
            *(self._place(family, model) for family in (families.CALLS, families.RETRIES)),
            *(self._place(families.TOKENS, model, kind) for kind in ("input", "cached_input", "output")),
        )

    def _router_rows(self, router: str) -> _RouterRows:
        return _RouterRows(self._histogram(families.WIN_RATE, router), self._histogram(families.DECISION, router))

    def _model(self, name: str | None) -> str:
        return NONE if name is None else name if name in self._roles else OTHER

    def _error(self, code: str) -> str:
        if code not in self._errors and len(self._errors) >= _MOST_ERRORS:
            return OTHER
        self._errors.add(code)
        return code

    def _histogram(self, family: Family, *labels: str) -> _Histogram:
        place = self._place(family, *labels)
        return _Histogram(place, place + family.width - 1, family.bounds)

    def _place(self, family: Family, *labels: str) -> int:
        clean = tuple(label.encode("utf-8", "replace").decode() for label in labels)  # a lone surrogate fits no file
        return self._cells.row(family.name, clean, family.width)


def _add(values: memoryview[float], histogram: _Histogram, value: float) -> None:
    values[histogram.counts + bisect_left(histogram.bounds, value)] += 1.0
    values[histogram.total] += value


def _count_model(values: memoryview[float], rows: _ModelRows, record: RequestRecord, upstream: float) -> None:
    attempts, usage = record.attempts, record.usage
    if attempts:
        _add(values, rows.upstream, upstream)
        values[rows.calls] += attempts
        if attempts > 1:
            values[rows.retries] += attempts - 1
    if record.first_byte_ms is not None:
        _add(values, rows.first_byte, record.first_byte_ms / 1e3)
    if usage is not None:
        cached = usage.cached_input_tokens
        values[rows.input] += usage.input_tokens - cached
        values[rows.output] += usage.output_tokens
        if cached:
            values[rows.cached_input] += cached


def _code(status: int) -> str:
    """The status as a label: one that has a name, else its class ("4xx")."""
    return str(status) if status in _CODES else f"{status // 100}xx"
