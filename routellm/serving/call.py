"""What is learned of one request on its way, and the record that it leaves behind."""

from __future__ import annotations

from time import perf_counter, time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from routellm.serving.usage import UsageReader
from routellm.types import Decision, Outcome, RequestRecord, Usage

if TYPE_CHECKING:
    from routellm.keys.lease import Lease
    from routellm.upstream.base import Format, UpstreamReply

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left; it is never sent."""

_NO_TOKENS = Usage(input_tokens=0, output_tokens=0)


class _Undecided(NamedTuple):
    """What stands in a record for want of a decision."""

    model: None = None
    reason: None = None
    router: None = None
    threshold: None = None
    win_rate: None = None
    decision_us: float = 0.0


_UNDECIDED = _Undecided()


class Call(msgspec.Struct):
    """One request. Everything is filled in as it becomes known.

    Attributes:
        body: the client's, from which usage is estimated where the upstream tells none.
        client: the id of the client's key.
        ended: by `perf_counter`.
        query: what stands after the `?` of the request's path.
        lease: what the key was granted for the request, to be settled once it is over.
        waited: seconds spent waiting for upstreams.
        attempts: calls made to them.
        told: whether the decision stands among the reply's headers already.
    """

    format: Format
    request_id: str
    query: bytes = b""
    asked: str = ""
    attempts: int = 0
    body: bytes = b""
    client: str | None = None
    decision: Decision | None = None
    ended: float = 0.0
    error: str | None = None
    first_byte: float | None = None
    lease: Lease | None = None
    outcome: Outcome = "client-gone"
    prompt: str | None = None
    status: int = CLIENT_CLOSED_REQUEST
    streamed: bool = False
    told: bool = False
    waited: float = 0.0
    _at: float = msgspec.field(default_factory=time)
    _started: float = msgspec.field(default_factory=perf_counter)
    _reader: UsageReader | None = None
    _usage: Usage | None = None

    def begin(self, reply: UpstreamReply, format: Format, *, counts: bool, free: bool = False) -> None:
        """A reply begins. Its bytes are of the API `format`; with `counts` its tokens are read. A `free` one takes none."""
        kind = reply.content_type
        self.status = reply.status
        self.streamed = kind.startswith("text/event-stream")
        if reply.status >= 300:
            return
        if free:
            self._usage = _NO_TOKENS
        elif counts:
            self._reader = UsageReader(format, kind, reply.content_encoding)

    def take(self, chunk: bytes, waited: float) -> None:
        """A piece of the reply came in after so many seconds."""
        self.waited += waited
        if self.first_byte is None:
            self.first_byte = perf_counter()
        if self._reader is not None:
            self._reader.feed(chunk)

    def record(self) -> RequestRecord:
        """What is known, once the request is over."""
        total = self.ended - self._started
        decision = self.decision or _UNDECIDED
        return RequestRecord(
            request_id=self.request_id,
            at=self._at,
            api=self.format,
            asked=self.asked,
            outcome=self.outcome,
            status=self.status,
            key=self.client,
            model=decision.model,
            reason=decision.reason,
            router=decision.router,
            threshold=decision.threshold,
            win_rate=decision.win_rate,
            decision_us=decision.decision_us,
            error=self.error,
            streamed=self.streamed,
            attempts=self.attempts,
            own_ms=(total - self.waited) * 1e3,
            upstream_ms=self.waited * 1e3,
            first_byte_ms=None if self.first_byte is None else (self.first_byte - self._started) * 1e3,
            usage=self._usage if self._reader is None else self._reader.usage(self.body),
            prompt=self.prompt,
        )
