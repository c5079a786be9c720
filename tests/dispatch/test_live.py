"""Dispatching to real endpoints over real connections: each way in which one can fail, and that nothing is left open after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from routellm.dispatch.dispatcher import Dispatcher
from routellm.dispatch.models import open_models
from routellm.dispatch.run import Dispatched
from routellm.errors import UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import ModelSpec, Timeouts, Upstream, UpstreamReply
from tests.dispatch.fakes import settings
from tests.dispatch.raw import Act, Exchange, RawServer, head, reply, stream
from tests.live import closed_port_url

GOOD, FALLEN_BACK = b'{"good": 1}', b'{"spare": 1}'
EVENT = b"data: {}\n\n"
SHORT = Timeouts(connect=5.0, first_byte=0.2, idle=0.2, total=0.6)


async def send(upstream: Upstream) -> tuple[UpstreamReply, None]:
    return await upstream.send("/chat/completions", b"{}", {}), None


class Setting:
    """A dispatcher over live endpoints."""

    def __init__(self, servers: list[RawServer], urls: list[str], timeouts: Timeouts, sections: dict[str, Any]) -> None:
        given = settings(
            models={"m": {"deployments": [{"base_url": url} for url in urls]}}, **{"retries": {"count": 0}, **sections}
        )
        bases = {"m": ModelSpec("m", "http://unused/v1", timeouts=timeouts)}
        if len(servers) > len(urls):
            bases["s"] = ModelSpec("s", servers[-1].url, timeouts=timeouts)
        self.spares = tuple(bases)[1:]
        self.dispatcher = Dispatcher(open_models(bases, given, {}), given)

    async def ask(self) -> Dispatched[None]:
        return await self.dispatcher.dispatch("m", self.spares, send)

    async def read(self, into: list[bytes]) -> Dispatched[None]:
        async with await self.ask() as dispatched:
            async for chunk in dispatched.reply.chunks():
                into += [chunk]
            return dispatched

    async def get(self) -> tuple[Dispatched[None], bytes]:
        pieces: list[bytes] = []
        return await self.read(pieces), b"".join(pieces)

    def failures(self) -> int:
        return self.dispatcher.states()[0].failures


def live(
    use: Callable[[Setting, RawServer], Awaitable[None]],
    *deployments: Act | list[Act],
    spare: Act | None = None,
    timeouts: Timeouts = SHORT,
    **sections: Any,
) -> None:
    """Run `use` against a model at these endpoints; `use` gets the first. Afterwards no connection may be in use or open."""

    async def main() -> None:
        servers = [RawServer(*(acts if isinstance(acts, list) else [acts])) for acts in deployments]
        if spare is not None:
            servers.append(RawServer(spare))
        for server in servers:
            await server.__aenter__()
        setting = Setting(servers, [server.url for server in servers[: len(deployments)]], timeouts, sections)
        try:
            await use(setting, servers[0])
            assert [state.outstanding for state in setting.dispatcher.states()] == [0] * len(servers)
        finally:
            await setting.dispatcher.aclose()
            for server in servers:
                await server.all_closed()
                await server.__aexit__()

    asyncio.run(main())


async def cut(exchange: Exchange) -> None:
    await exchange.reset()


async def cut_in_its_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await exchange.reset()


async def garbage(exchange: Exchange) -> None:
    await exchange.send(b"\x16\x03\x01 what is this\r\n\r\n")


async def nothing(exchange: Exchange) -> None:
    await exchange.stall()


async def slow_headers(exchange: Exchange) -> None:
    await exchange.drip(head(content_length="2") + b"{}")


async def bad_chunk(exchange: Exchange) -> None:
    await asyncio.sleep(0.05)  # so that it is read by itself
    await exchange.send(b"nonsense\r\n")
    await exchange.stall()


@pytest.mark.parametrize(
    "act",
    [
        *(cut, cut_in_its_headers, garbage, nothing, slow_headers),
        stream(then=Exchange.stall),  # headers, and not one event
        stream(then=Exchange.reset),
        reply(status="503 Service Unavailable"),
        reply(status="429 Too Many Requests", retry_after="60"),
    ],
    ids="cut cut-in-headers garbage nothing slow-headers no-event cut-before-events 503 429".split(),
)
def test_what_fails_before_its_first_byte_falls_back(act: Act) -> None:
    async def use(setting: Setting, _: RawServer) -> None:
        dispatched, body = await setting.get()
        assert (dispatched.model, dispatched.attempts, dispatched.fell_back, body) == ("s", 2, True, FALLEN_BACK)

    live(use, act, spare=reply(FALLEN_BACK))


def test_nobody_listening_falls_back() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        given = settings(models={"m": {"deployments": [{"base_url": closed_port_url()}, {"base_url": server.url}]}})
        models = open_models({"m": ModelSpec("m")}, given, {"OPENAI_API_KEY": "k"})
        dispatcher = Dispatcher(models, given, random=lambda: 0.0)  # the first one of equals
        async with await dispatcher.dispatch("m", (), send) as dispatched:
            assert (dispatched.reply.status, dispatched.attempts) == (200, 2)
        await dispatcher.aclose()

    live(use, reply(GOOD))


def test_a_kept_connection_that_was_closed_meanwhile_is_tried_again() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        await setting.get()
        dispatched, body = await setting.get()
        assert (dispatched.attempts, body) == (2, GOOD)
        assert (server.requests, server.connections) == (3, 2)

    live(use, [reply(b"{}"), cut, reply(GOOD)], retries={"count": 1, "first_backoff_seconds": 0})


def test_a_new_connection_that_is_cut_is_not() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        with pytest.raises(UpstreamError, match="could not be reached") as caught:
            await setting.get()
        assert not caught.value.repeatable
        assert (server.requests, setting.failures()) == (1, 1)

    live(use, [cut, reply(GOOD)], retries={"count": 1, "first_backoff_seconds": 0})


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        (stream(EVENT, then=Exchange.reset), UpstreamError, "broke off its answer"),
        (stream(EVENT, then=Exchange.stall), UpstreamTimeoutError, "fell silent for 0.2 s"),
        (stream(EVENT, then=lambda exchange: exchange.drip(b"1\r\nx\r\n" * 99)), UpstreamTimeoutError, "within 0.6 s"),
        (stream(EVENT, then=bad_chunk), UpstreamError, "broke off its answer"),
    ],
    ids="cut silent never-ends bad-chunk".split(),
)
def test_what_fails_after_its_first_byte_is_not_tried_again_and_counts(act: Act, error: type[Exception], told: str) -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        got: list[bytes] = []
        with pytest.raises(error, match=told):
            await setting.read(got)
        assert b"".join(got).startswith(EVENT)
        assert (server.requests, setting.failures()) == (1, 1)

    live(use, act, spare=reply(FALLEN_BACK), retries={"count": 3})


def test_a_body_shorter_than_it_says_breaks_off() -> None:
    async def too_short(exchange: Exchange) -> None:
        await exchange.send(head(content_length="99") + b"{}")
        await exchange.reset()

    async def use(setting: Setting, _: RawServer) -> None:
        with pytest.raises(UpstreamError, match="broke off its answer"):
            await setting.get()
        assert setting.failures() == 1

    live(use, too_short)


def test_a_body_longer_than_it_says_does_not_reach_the_next_request() -> None:
    async def too_long(exchange: Exchange) -> None:
        await exchange.send(head(content_length="2") + b"{}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    async def use(setting: Setting, server: RawServer) -> None:
        assert (await setting.get())[1] == b"{}"
        assert (await setting.get())[1] == GOOD
        assert server.connections == 2

    live(use, [too_long, reply(GOOD)])


def test_a_slow_reader_is_no_silence_of_the_upstreams() -> None:
    async def use(setting: Setting, _: RawServer) -> None:
        async with await setting.ask() as dispatched:
            async for _chunk in dispatched.reply.chunks():
                await asyncio.sleep(0.3)  # longer than `idle`
        assert setting.failures() == 0

    async def in_two(exchange: Exchange) -> None:
        await asyncio.sleep(0.1)
        await exchange.send(b"1\r\nx\r\n0\r\n\r\n")

    live(use, stream(EVENT, then=in_two), timeouts=Timeouts(idle=0.2))


def test_a_steady_stream_may_last_longer_than_the_other_limits() -> None:
    async def use(setting: Setting, _: RawServer) -> None:
        assert (await setting.get())[1] == EVENT + b"x" * 9

    async def steadily(exchange: Exchange) -> None:
        await exchange.drip(b"1\r\nx\r\n" * 9)
        await exchange.send(b"0\r\n\r\n")

    live(use, stream(EVENT, then=steadily), timeouts=Timeouts(first_byte=0.3, idle=0.3))


def test_retry_after_over_the_wire() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        dispatched, body = await setting.get()
        assert (dispatched.attempts, body, server.requests) == (2, GOOD, 2)

    limited = reply(status="429 Too Many Requests", retry_after_ms="20", retry_after="9999")
    live(use, [limited, reply(GOOD)], retries={"count": 1, "first_backoff_seconds": 0})


def test_the_last_error_reply_arrives_whole_though_it_waited() -> None:
    async def use(setting: Setting, _: RawServer) -> None:
        dispatched, body = await setting.get()
        assert (dispatched.reply.status, body, dispatched.attempts) == (429, b"slow down", 2)
        assert dispatched.reply.headers["retry-after-ms"] == "20"

    limited = reply(b"slow down", "429 Too Many Requests", retry_after_ms="20")
    live(use, [limited, cut], retries={"count": 1, "first_backoff_seconds": 0})


def test_a_storm_of_429_is_at_most_doubled_and_leaves_nothing_open() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        answers = await asyncio.gather(*(setting.get() for _ in range(60)))
        assert {(dispatched.reply.status, body) for dispatched, body in answers} == {(429, b"slow down")}
        assert sum(dispatched.attempts for dispatched, _ in answers) <= 120

    limited = reply(b"slow down", "429 Too Many Requests", retry_after_ms="30")
    live(use, limited, retries={"count": 1, "first_backoff_seconds": 0.02})


def test_all_endpoints_down_are_soon_left_alone() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        for _ in range(12):
            with pytest.raises(UpstreamError):
                await setting.get()
        assert server.requests == 5
        assert [state.breaker for state in setting.dispatcher.states()] == ["open", "open"]

    live(use, cut, cut)


def test_a_client_that_leaves_frees_the_connection() -> None:
    async def use(setting: Setting, server: RawServer) -> None:
        async def read() -> None:
            async with await setting.ask() as dispatched:
                async for _ in dispatched.reply.chunks():
                    pass

        reading = asyncio.create_task(read())
        while not server.requests:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await server.all_closed()
        assert setting.failures() == 0

    live(use, stream(EVENT, then=Exchange.stall), timeouts=Timeouts())
