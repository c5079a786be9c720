"""Which of several deployments is chosen."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from routellm.dispatch.run import Dispatched
from routellm.upstream.base import Upstream
from tests.dispatch.fakes import FakeUpstream, World, settings


def world_of(*weights: float) -> tuple[World, list[FakeUpstream]]:
    upstreams = [FakeUpstream(f"m{number}") for number in range(len(weights))]
    given = settings(models={"m": {"deployments": [{"weight": weight} for weight in weights]}})
    world = World({"m": upstreams}, given)
    random = Random(7)
    world.dispatcher._random = random.random
    return world, upstreams


async def open_many(world: World, count: int) -> list[Dispatched[Upstream]]:
    return [await world.ask() for _ in range(count)]


def test_the_least_busy_one_is_chosen() -> None:
    world, upstreams = world_of(1, 1, 1)

    async def main() -> None:
        held = await open_many(world, 7)
        assert sorted(state.outstanding for state in world.dispatcher.states()) == [2, 2, 3]
        for dispatched in [each for each in held if each.extra is upstreams[1]]:
            await dispatched.aclose()
        assert (await world.ask()).extra is upstreams[1]

    asyncio.run(main())


def test_weights_are_shares_of_what_is_under_way() -> None:
    world, _ = world_of(3, 1)

    async def main() -> None:
        await open_many(world, 40)
        assert [state.outstanding for state in world.dispatcher.states()] == [30, 10]

    asyncio.run(main())


def test_weights_also_count_where_one_request_comes_after_another() -> None:
    world, _ = world_of(3, 1)

    async def main() -> Counter[str]:
        return Counter([(await world.get()).extra.model for _ in range(2000)])

    counts = asyncio.run(main())
    assert counts["m0"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert sum(counts.values()) == 2000


def test_equals_share_alike() -> None:
    world, upstreams = world_of(1, 1, 1, 1)

    async def main() -> None:
        for _ in range(2000):
            await world.get()

    asyncio.run(main())
    assert min(upstream.calls for upstream in upstreams) > 400


def test_states_tell_deployments_apart_that_share_an_endpoint() -> None:
    world, upstreams = world_of(1, 1, 1)
    upstreams[2].endpoint = "http://elsewhere"
    for upstream in upstreams[:2]:
        upstream.endpoint = "http://same"
    world = World({"m": upstreams}, settings(models={"m": {"deployments": [{}, {}, {}]}}))
    assert [state.endpoint for state in world.dispatcher.states()] == ["http://same #1", "http://same #2", "http://elsewhere"]
