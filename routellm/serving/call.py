"""What is learned of one request on its way, and the record that it leaves behind."""

from __future__ import annotations

from time import perf_counter, time
from typing import TYPE_CHECKING

from routellm.serving.usage import UsageReader
from routellm.types import Decision, Outcome, RequestRecord, Usage

if TYPE_CHECKING:
    from routellm.keys.lease import Lease
    from routellm.upstream.base import Format, UpstreamReply

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; it is never sent."""

_NO_TOKENS = Usage(input_tokens=0, output_tokens=0)


class Call:
    """One request. Everything is filled in as it becomes known.

    Attributes:
        body: the client's, from which usage is estimated where the upstream tells none.
        client: the id of the client's key.
        query: what stands after the `?` of the request's path.
        lease: what the key was granted for the request, to be settled once it is over.
        waited: seconds spent waiting for upstreams.
        attempts: calls made to them.
        told: whether the decision stands among the reply's headers already.
    """

    __slots__ = (
        "_at", "_reader", "_started", "_usage", "asked", "attempts", "body", "client", "decision", "error", "first_byte",
        "format", "lease", "outcome", "prompt", "query", "request_id", "status", "streamed", "told", "waited",
    )  # fmt: skip

    def __init__(self, format: Format, request_id: str) -> None:
        self._at = time()
        self._started = perf_counter()
        self.format = format
        self._reader: UsageReader | None = None
        self._usage: Usage | None = None
        self.request_id = request_id
        self.asked = ""
        self.attempts = 0
        self.body = b""
        self.client: str | None = None
        self.decision: Decision | None = None
        self.error: str | None = None
        self.first_byte: float | None = None
        self.lease: Lease | None = None
        self.outcome: Outcome = "client-gone"
        self.prompt: str | None = None
        self.query = b""
        self.status = CLIENT_CLOSED_REQUEST
        self.streamed = False
        self.told = False
        self.waited = 0.0

    def begin(self, reply: UpstreamReply, format: Format, *, counts: bool, free: bool = False) -> None:
        """A reply begins. Its bytes are of the API `format`; with `counts` its tokens are read. A `free` one takes none."""
        headers = reply.headers
        kind = headers.get("content-type", "")
        self.status = reply.status
        self.streamed = kind.startswith("text/event-stream")
        if reply.status >= 300:
            return
        if free:
            self._usage = _NO_TOKENS
        elif counts:
            self._reader = UsageReader(format, kind, headers.get("content-encoding", ""))

    def take(self, chunk: bytes, waited: float) -> None:
        """A piece of the reply came in after so many seconds."""
        self.waited += waited
        if self.first_byte is None:
            self.first_byte = perf_counter()
        if self._reader is not None:
            self._reader.feed(chunk)

    def record(self) -> RequestRecord:
        """What is known, once the request is over."""
        total = perf_counter() - self._started
        decision = self.decision
        return RequestRecord(
            request_id=self.request_id,
            at=self._at,
            api=self.format,
            asked=self.asked,
            outcome=self.outcome,
            status=self.status,
            key=self.client,
            model=None if decision is None else decision.model,
            reason=None if decision is None else decision.reason,
            router=None if decision is None else decision.router,
            threshold=None if decision is None else decision.threshold,
            win_rate=None if decision is None else decision.win_rate,
            decision_us=0.0 if decision is None else decision.decision_us,
            error=self.error,
            streamed=self.streamed,
            attempts=self.attempts,
            own_ms=(total - self.waited) * 1e3,
            upstream_ms=self.waited * 1e3,
            first_byte_ms=None if self.first_byte is None else (self.first_byte - self._started) * 1e3,
            usage=self._usage if self._reader is None else self._reader.usage(self.body),
            prompt=self.prompt,
        )
