"""What a server process has beside its gateway, and keeps when the configuration changes: counters, the ledger, the line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from routellm.costs import NANO
from routellm.dispatch.settings import spares_for
from routellm.ledger.settings import ledger_url
from routellm.policies.table import ConversationTable
from routellm.serving.admission import Admission
from routellm.serving.call import Call
from routellm.serving.gateway import Gateway
from routellm.serving.live import Live
from routellm.serving.settings import Settings
from routellm.telemetry.health import Readiness, readiness
from routellm.telemetry.logs import RequestLine
from routellm.telemetry.metrics import Gauges, KeyCounts, Metrics, shared_directory
from routellm.types import RequestRecord

if TYPE_CHECKING:
    from starlette.types import Scope

    from routellm.keys.client import Client
    from routellm.keys.guard import Guard
    from routellm.ledger.ledger import Ledger
    from routellm.ledger.rows import Terms
    from routellm.serving.request import ApiRequest
    from routellm.telemetry.traces import Traces

logger = logging.getLogger("routellm.serving")

Observer = Callable[[RequestRecord, Iterable[tuple[bytes, bytes]]], None]
"""Takes each finished request's record, and the client's headers."""

_PUBLISH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What the worker processes of one server share; goes to them as they are spawned.

    Attributes:
        table: which model each conversation is with.
        counters: a directory for the metrics; None for a server of one process.
    """

    table: ConversationTable
    counters: Path | None


@contextmanager
def shared_by_workers(settings: Settings) -> Iterator[Shared]:
    """Make what the workers share, for as long as the server runs."""
    table = ConversationTable.open(settings.gateway.sticky.entries, shared=settings.workers > 1)
    with shared_directory(settings.workers) as counters:
        yield Shared(table, counters)


class Services:
    """See the module's docstring. One for a process, on one event loop.

    Args:
        gateway: the first one that serves.
        settings, environ: what the process was started with.
        shared: with the other workers.

    Attributes:
        observed: whether anybody wants to know what requests took.
        billed: whether that must be known as well as can be.

    Raises:
        ConfigError: a setting is wrong.
        MissingExtraError: a library for what the configuration asks is not installed.
        LedgerError: the ledger can't be opened.
    """

    def __init__(self, gateway: Gateway, settings: Settings, environ: Mapping[str, str], shared: Shared) -> None:
        self.live = Live(gateway)
        self.settings, self.environ = settings, environ
        self.admission = Admission(gateway.settings.admission)
        self.metrics: Metrics | None = None
        self.ledger: Ledger | None = None
        self.guard: Guard | None = None
        self._traces: Traces | None = None
        self._observers: list[Observer] = []
        self._over: list[tuple[Call, Iterable[tuple[bytes, bytes]]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.keeps_prompts = False
        if gateway.settings.telemetry.metrics:
            self.metrics = Metrics(_roles(gateway), gateway.decider.routers, shared.counters)
            self._observers.append(self._count)
        if gateway.settings.ledger is not None:
            from routellm.ledger.ledger import Ledger

            ledger = self.ledger = Ledger.open(
                ledger_url(gateway.settings.ledger.url, environ),
                gateway.settings.ledger,
                _terms(gateway),
            )
            self.keeps_prompts = gateway.settings.ledger.prompts
            self._observers.append(lambda record, _: ledger.record(record))
        if gateway.settings.keys is not None:
            from routellm.keys.guard import Guard

            kept = gateway.settings.ledger
            self.guard = Guard.open(ledger_url(None if kept is None else kept.url, environ), gateway.settings.keys)
        if gateway.settings.telemetry.traces:
            from routellm.telemetry.traces import open_traces, parent_of

            traces = self._traces = open_traces(environ)
            self._observers.append(lambda record, headers: traces.observe(record, parent_of(headers)))
        if settings.verbose:
            self._observers.append(lambda record, _: logger.info(RequestLine(record)))
        self.billed = self.ledger is not None or self.guard is not None
        self.observed = bool(self._observers) or self.billed

    def admit(self, scope: Scope) -> Client | None:
        """Who sent the request; None where nobody is asked for a key.

        Raises:
            InvalidKeyError, KeysUnavailableError: see `Guard.admit`.
        """
        if self.guard is None:
            return None
        peer = scope.get("client")
        return self.guard.admit(scope["headers"], peer[0] if peer else "")

    async def take(self, call: Call, client: Client, request: ApiRequest, gateway: Gateway) -> None:
        """Hold the request's decision against its key, and count it against the key's limits.

        Raises:
            RequestError, OverloadedError: see `Client.check`, `Guard.take` and `Lease.decide`.
        """
        assert self.guard is not None
        assert call.decision is not None
        client.check(call.decision)
        if not client.limited:
            return
        pair = gateway.decider.pair
        estimate = self.guard.estimate(
            request.body, request.fields, call.decision.model, pair.weak, gateway.prices, answers=call.format != "embeddings"
        )
        call.lease = await self.guard.take(client, estimate)
        call.decision = call.lease.decide(call.decision, pair)

    def finish(self, call: Call, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """A request is over; whoever wants to know is told at the end of the event loop's turn, before anything else is read.

        What ended in one turn is told of in one go: done in the midst of each request's own work, it would find the
        processor's caches taken every time.
        """
        call.ended = perf_counter()
        if not self._observers and call.lease is None:
            return
        if not self._over:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._tell)
        self._over.append((call, headers))

    def _tell(self) -> None:
        over, self._over = self._over, []
        for call, headers in over:
            try:
                self._tell_of(call, headers)
            except Exception:  # those who come next are still to be told of
                logger.exception("%s could not be recorded", call.request_id)

    def _tell_of(self, call: Call, headers: Iterable[tuple[bytes, bytes]]) -> None:
        record = call.record()
        if call.lease is not None:
            call.lease.settle(record, self.live.gateway.prices.nanodollars(record.model, record.usage))
        for observe in self._observers:
            try:
                observe(record, headers)
            except Exception:  # of a library's or a plug-in's: the answer is out, and those who come next are still to be told
                logger.exception("%s could not be recorded", record.request_id)

    def renew(self, gateway: Gateway) -> None:
        """Put the gateway of a changed configuration in force."""
        self.live.replace(gateway)
        self.admission.change(gateway.settings.admission)
        if self.metrics is not None:
            self.metrics.serve(_roles(gateway), gateway.decider.routers)
        if self.ledger is not None:
            self.ledger.renew(_terms(gateway))
        if self.guard is not None and gateway.settings.keys is not None:
            self.guard.change(gateway.settings.keys)

    def gauges(self) -> Gauges:
        """The present state, for the metrics."""
        under_way, in_line = self.admission.depths()
        status = None if self.ledger is None else self.ledger.status()
        gateway = self.live.gateway
        keys = None if self.guard is None else self.guard.states()
        limits = {} if keys is None else {"limits": keys.waiting}
        return Gauges(
            in_flight=under_way,
            queues={"admission": in_line, "score": gateway.pool.depths()[1], **limits},
            breakers={(state.model, state.endpoint): state.breaker for state in gateway.dispatcher.states()},
            ledger_buffered=None if status is None else status.buffered,
            ledger_dropped=0 if status is None else status.dropped,
            keys=None if keys is None else KeyCounts(*(getattr(keys, name) for name in KeyCounts._fields)),
        )

    def readiness(self) -> Readiness:
        """Whether requests should be sent here."""
        gateway = self.live.gateway
        breakers: dict[str, list[str]] = {}
        for state in gateway.dispatcher.states():
            breakers.setdefault(state.model, []).append(state.breaker)
        pair, settings = gateway.decider.pair, gateway.settings
        spares = {name: spares_for(name, pair, settings, pinned=False) for name in breakers}
        return readiness(breakers, spares)

    async def publish(self) -> None:
        """Tell the other workers of this one's state, until cancelled."""
        while self.metrics is not None:
            self.metrics.publish(self.gauges())
            await asyncio.sleep(_PUBLISH_SECONDS)

    def release(self) -> None:
        """Close what needs no event loop: what the ledger and the traces still hold is written first. Blocks."""
        for closable in (self.guard, self.ledger, self._traces, self.metrics):
            if closable is not None:
                closable.close()

    async def aclose(self) -> None:
        """Close everything; what the ledger and the traces still hold is written first."""
        await self.live.aclose()
        self._tell()
        await asyncio.to_thread(self.release)

    def _count(self, record: RequestRecord, _: Iterable[tuple[bytes, bytes]]) -> None:
        assert self.metrics is not None
        if record.usage is None:
            self.metrics.observe(record)
            return
        gateway = self.live.gateway
        spent = gateway.prices.nanodollars(record.model, record.usage)
        strong = gateway.prices.nanodollars(gateway.decider.pair.strong, record.usage)
        self.metrics.observe(record, _dollars(spent), _dollars(strong))


def _dollars(nanodollars: int | None) -> float | None:
    return None if nanodollars is None else nanodollars / NANO


def _terms(gateway: Gateway) -> Terms:
    from routellm.ledger.rows import Terms

    return Terms(gateway.decider.pair, gateway.prices)


def _roles(gateway: Gateway) -> dict[str, str]:
    pair = gateway.decider.pair
    return {**dict.fromkeys(gateway.models, "spare"), pair.weak: "weak", pair.strong: "strong"}
