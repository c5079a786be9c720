"""One request on its way through the deployments, and the reply that is handed on at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeAlias, TypeVar

from routellm.dispatch.deployment import Deployment
from routellm.errors import MissingKeyError, UpstreamError, UpstreamUnavailableError
from routellm.upstream.base import Upstream, UpstreamReply

T = TypeVar("T")

SendTo: TypeAlias = Callable[[Upstream], Awaitable[tuple[UpstreamReply, T]]]
"""Sends a request to the upstream that it is given; what it returns beside the reply is handed on with that."""


class Dispatched(Generic[T]):
    """A reply that is handed on. An asynchronous context manager, to be entered while the reply is read::

        async with await dispatcher.dispatch(model, spares, send) as dispatched:
            async for chunk in dispatched.reply.chunks(): ...

    It closes the reply, and sees by how the block ends whether the reply came whole, broke off (UpstreamError), or was left by
    its reader (any other exception).

    Attributes:
        reply: not yet read.
        extra: what `send` gave beside it.
        model: the model that answered.
        attempts: calls made, this one included.
        fell_back: whether `model` is not the one that was asked for.
    """

    __slots__ = ("_deployment", "_token", "attempts", "extra", "fell_back", "model", "reply")

    def __init__(
        self, reply: UpstreamReply, extra: T, model: str, deployment: Deployment | None, token: int, run: Run[T]
    ) -> None:
        self.reply = reply
        self.extra = extra
        self.model = model
        self.attempts = run.attempts
        self.fell_back = model != run.asked
        self._deployment = deployment
        """None once it has been told how the call ended."""
        self._token = token

    def mark_broken(self, why: str = "it broke off its reply") -> None:
        """The reply broke off, fell silent, or was not what its API promises: a failure of the deployment."""
        if self._deployment is not None:
            self._deployment.failed(self._token, why)
            self._deployment = None

    def mark_left(self) -> None:
        """The reply was not read to its end, by no fault of the deployment's."""
        if self._deployment is not None:
            self._deployment.left(self._token)
            self._deployment = None

    def aclose(self) -> Awaitable[None]:
        """Close the reply; where it was not marked, it came whole. Closing twice does nothing."""
        if self._deployment is not None:
            self._deployment.succeeded(self._token)
            self._deployment = None
        return self.reply.aclose()

    async def __aenter__(self) -> Self:
        return self

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Awaitable[None]:
        if isinstance(error, UpstreamError):
            self.mark_broken(str(error))
        elif error is not None:
            self.mark_left()
        return self.aclose()


class Failure(NamedTuple):
    """What an attempt that failed leaves to be tried."""

    repeatable: bool
    """At the same deployment."""
    ends_model: bool
    """At no other deployment of the model."""


class Run(Generic[T]):
    """One request on its way: what was tried and what came of it."""

    __slots__ = ("asked", "attempts", "deadline", "error", "held", "missing_key", "send", "tried")

    def __init__(self, send: SendTo[T], asked: str, deadline: float) -> None:
        self.send = send
        self.asked = asked
        self.deadline = deadline
        self.attempts = 0
        self.held: Dispatched[T] | None = None
        """The last error reply, kept open to be handed on if nothing better comes."""
        self.error: UpstreamError | None = None
        self.missing_key: MissingKeyError | None = None
        self.tried: dict[Deployment, Failure] = {}
        """By deployment, the last failure."""

    async def hold(self, failed: Dispatched[T]) -> None:
        """Keep an error reply, and let go of the one before."""
        before, self.held = self.held, failed
        if before is not None:
            await before.aclose()

    async def let_go(self) -> None:
        """Close what is kept."""
        held, self.held = self.held, None
        if held is not None:
            await held.aclose()

    async def hand_on(self, good: Dispatched[T]) -> Dispatched[T]:
        """Return `good`, and let go of what is kept."""
        if self.held is not None:
            try:
                await self.let_go()
            except BaseException:  # cancelled, and so nobody will close it
                good.mark_left()
                await good.aclose()
                raise
        return good

    def give_up(self, open_for: float | None) -> Dispatched[T]:
        """Nothing is left to be tried."""
        if self.held is not None:
            self.held.attempts = self.attempts
            return self.held
        if self.error is not None:
            self.error.attempts = self.attempts
            raise self.error
        if self.missing_key is not None and open_for is None:
            raise self.missing_key
        raise UpstreamUnavailableError(self.asked, open_for or 0.0)
