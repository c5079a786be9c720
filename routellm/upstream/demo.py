"""`demo/NAME`: an offline stand-in for a model, for trying things out and for tests. Public, and marked in all that it says.

How it behaves is part of its name, as a query string::

    demo/strong?delay=0.2&chunk_delay=0.05&chunks=5     slow, in five pieces
    demo/weak?status=429&retry_after=2                  answers with an error status
    demo/weak?fail=midstream                            "connect", "timeout" or "midstream": no answer, or half of one

`delay` and `chunk_delay` are seconds, before the answer and before each piece of a stream after the first. `fail=timeout`
fails after `delay`, so that a test need not wait. See `demo_reply` for what it answers and how it counts tokens.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl

from routellm.errors import ConfigError, UpstreamBrokeOffError, UpstreamError, UpstreamTimeoutError, did_you_mean
from routellm.upstream.base import ModelSpec, UpstreamReply
from routellm.upstream.demo_reply import DemoReply, error_reply, mark, reply_to
from routellm.upstream.local import AsyncReply, BlockingReply, LocalUpstream

_FAILURES = ("connect", "timeout", "midstream")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How a demo model behaves; see the head of this module."""

    delay: float = 0.0
    chunk_delay: float = 0.0
    chunks: int | None = None
    status: int | None = None
    retry_after: float | None = None
    fail: str | None = None


class DemoUpstream(LocalUpstream):
    """A model that needs no network, no key and no download, and knows nothing. A base URL and a key are not looked at."""

    def __init__(self, spec: ModelSpec, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._name = spec.name
        self.model, self._options = parse_demo_name(spec.name)

    def check(self) -> None:
        """Nothing can be missing."""

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        await asyncio.sleep(self._options.delay)
        reply = self._reply(path, body)
        return AsyncReply(reply.status, reply.headers, self._chunks(reply))

    def send_blocking(self, path: str, body: bytes) -> BlockingReply:
        time.sleep(self._options.delay)
        reply = self._reply(path, body)
        return BlockingReply(reply.status, reply.headers, self._chunks_blocking(reply))

    async def _chunks(self, reply: DemoReply) -> AsyncGenerator[bytes, None]:
        for pause, piece in self._script(reply):
            await asyncio.sleep(pause)
            yield piece

    def _chunks_blocking(self, reply: DemoReply) -> Iterator[bytes]:
        for pause, piece in self._script(reply):
            time.sleep(pause)
            yield piece

    def _reply(self, path: str, body: bytes) -> DemoReply:
        options = self._options
        if options.fail == "connect":
            raise UpstreamError(f"The model {self._name!r} could not be reached: its name asks for this failure.")
        if options.fail == "timeout":
            raise UpstreamTimeoutError(f"The model {self._name!r} did not answer in time: its name asks for this failure.")
        if path.partition("?")[0] != "/chat/completions":
            return error_reply(404, f"{mark(self.model)} There is only /chat/completions, not {path}.")
        if options.status is not None:
            wait = {} if options.retry_after is None else {"retry-after": f"{options.retry_after:g}"}
            message = f"{mark(self.model)} Its name asks for the status {options.status}."
            return error_reply(options.status, message, headers=wait)
        return reply_to(body, self.model, created=int(time.time()), chunks=options.chunks)

    def _script(self, reply: DemoReply) -> Iterator[tuple[float, bytes]]:
        """The pieces of `reply`, each with the seconds to wait before it; breaks off where the name asks for it."""
        pieces = reply.pieces
        broken = self._options.fail == "midstream" and reply.status == 200
        if broken:
            pieces = (pieces[0][: len(pieces[0]) // 2],) if len(pieces) == 1 else pieces[: len(pieces) // 2]
        for number, piece in enumerate(pieces):
            yield (self._options.chunk_delay if number else 0.0), piece
        if broken:
            raise UpstreamBrokeOffError(f"The model {self._name!r} broke off its answer: its name asks for this failure.")


def parse_demo_name(name: str) -> tuple[str, DemoOptions]:
    """Read `demo/NAME?option=value&...`.

    Raises:
        ConfigError: an option is unknown, given twice, or out of range.
    """
    model, question, query = name.removeprefix("demo/").partition("?")
    if not model.strip():
        raise ConfigError(f"The model's name is {name!r}; it must be demo/NAME, such as demo/strong.")
    readers: dict[str, Callable[[str], Any]] = {
        "delay": _seconds,
        "chunk_delay": _seconds,
        "chunks": _positive,
        "status": _error_status,
        "retry_after": _seconds,
        "fail": _failure,
    }
    values: dict[str, Any] = {}
    for option, given in parse_qsl(query, keep_blank_values=True):
        if option not in readers:
            known = [field.name for field in fields(DemoOptions)]
            raise ConfigError(
                f"The model {name!r} has the option {option!r}{did_you_mean(option, known)}. Options: {', '.join(known)}."
            )
        if option in values:
            raise ConfigError(f"The model {name!r} gives the option {option!r} twice.")
        try:
            values[option] = readers[option](given)
        except ValueError as error:
            raise ConfigError(f"The model {name!r}: {option} is {given!r}; it must be {error}.") from None
    if question and not values:
        raise ConfigError(f"The model {name!r} has no option after its '?'; an example is demo/strong?delay=0.2.")
    if "retry_after" in values and "status" not in values:
        raise ConfigError(f"The model {name!r} gives retry_after without a status; add status=429, say.")
    return model, DemoOptions(**values)


def _seconds(given: str) -> float:
    allowed = "a number of seconds, 0 or more"
    try:
        value = float(given)
    except ValueError:
        raise ValueError(allowed) from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(allowed)
    return value


def _positive(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise ValueError("a whole number, 1 or more")
    return int(given)


def _error_status(given: str) -> int:
    if not given.isdecimal() or not 400 <= int(given) <= 599:
        raise ValueError("an HTTP error status from 400 to 599")
    return int(given)


def _failure(given: str) -> str:
    if given not in _FAILURES:
        raise ValueError(f"one of {', '.join(_FAILURES)}{did_you_mean(given, _FAILURES)}")
    return given
