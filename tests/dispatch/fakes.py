"""Upstreams that answer as told, and time that passes only where something waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from openai import AsyncOpenAI, OpenAI

from routellm.dispatch.dispatcher import Dispatcher
from routellm.dispatch.run import Dispatched
from routellm.dispatch.settings import DispatchSettings
from routellm.errors import UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import Upstream, UpstreamReply

T = TypeVar("T")


class FakeReply(UpstreamReply):
    """A reply with an empty body."""

    def __init__(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.closed = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def aclose(self) -> None:
        self.closed += 1


Act: TypeAlias = int | FakeReply | BaseException | Callable[[], Awaitable[FakeReply]]
"""What a call comes to: a reply of this status, a reply, an error, or what an asynchronous function returns."""


class FakeUpstream(Upstream):
    """Plays `acts` in order, one a call; the last one repeats."""

    def __init__(self, model: str = "m", *acts: Act) -> None:
        self.model = model
        self.endpoint = f"http://{model}"
        self.acts = list(acts) or [200]
        self.calls = 0
        self.replies: list[FakeReply] = []
        self.closed = False

    async def play(self) -> FakeReply:
        act = self.acts[min(self.calls, len(self.acts) - 1)]
        self.calls += 1
        if isinstance(act, BaseException):
            raise act
        reply = FakeReply(act) if isinstance(act, int) else act if isinstance(act, FakeReply) else await act()
        self.replies.append(reply)
        return reply

    def check(self) -> None:
        pass

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        return await self.play()

    def client(self) -> OpenAI:
        raise NotImplementedError

    def async_client(self) -> AsyncOpenAI:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


def refused() -> UpstreamError:
    """Nothing listens."""
    return UpstreamError("refused", repeatable=True)


def reset() -> UpstreamError:
    """A new connection was cut before any reply."""
    return UpstreamError("reset")


def silent() -> UpstreamTimeoutError:
    """No first byte in time."""
    return UpstreamTimeoutError("no answer")


def limited(status: int = 429, **headers: str) -> FakeReply:
    """An error reply with headers, of which `retry_after="2"` gives `retry-after: 2`."""
    return FakeReply(status, {name.replace("_", "-"): value for name, value in headers.items()})


class World:
    """A dispatcher over fakes. `now` passes only by sleeping, and by hand; `slept` lists what was slept."""

    def __init__(
        self, models: Mapping[str, Sequence[FakeUpstream]], settings: DispatchSettings | None = None, random: float = 0.0
    ) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.random = random
        self.dispatcher = Dispatcher(
            models, settings or DispatchSettings(), clock=lambda: self.now, sleep=self.sleep, random=lambda: self.random
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds

    async def ask(self, model: str = "m", *spares: str) -> Dispatched[Upstream]:
        """Dispatch, and leave the reply open."""

        async def send(upstream: Upstream) -> tuple[UpstreamReply, Upstream]:
            assert isinstance(upstream, FakeUpstream)
            return await upstream.play(), upstream

        return await self.dispatcher.dispatch(model, spares, send)

    async def get(self, model: str = "m", *spares: str) -> Dispatched[Upstream]:
        """Dispatch, and read the reply to its end."""
        async with await self.ask(model, *spares) as dispatched:
            return dispatched

    def outstanding(self) -> int:
        """Calls under way."""
        return sum(state.outstanding for state in self.dispatcher.states())


def settings(**sections: Any) -> DispatchSettings:
    """Settings as a file would give them: `retries={"count": 2}`."""
    return msgspec.convert(sections, DispatchSettings)


def run(main: Coroutine[Any, Any, T]) -> T:
    """On an event loop of its own."""
    return asyncio.run(main)


def one(*acts: Act, **sections: Any) -> tuple[World, FakeUpstream]:
    """A world of one model "m" at one endpoint."""
    upstream = FakeUpstream("m", *acts)
    return World({"m": [upstream]}, settings(**sections)), upstream


def several(*acts: list[Act], **sections: Any) -> tuple[World, list[FakeUpstream]]:
    """A world of one model "m" at several endpoints."""
    upstreams = [FakeUpstream(f"m{number}", *each) for number, each in enumerate(acts)]
    deployments = [{"base_url": f"http://m{number}"} for number in range(len(acts))]
    return World({"m": upstreams}, settings(models={"m": {"deployments": deployments}}, **sections)), upstreams


def with_spare(acts: list[Act], spare: list[Act], **sections: Any) -> tuple[World, FakeUpstream, FakeUpstream]:
    """A world of a model "m" and another one "s"."""
    main, other = FakeUpstream("m", *acts), FakeUpstream("s", *spare)
    return World({"m": [main], "s": [other]}, settings(**sections)), main, other


def told(answer: Dispatched[Upstream]) -> tuple[int, str, int, bool]:
    """Status, model, attempts, whether it fell back."""
    return answer.reply.status, answer.model, answer.attempts, answer.fell_back
