"""Sends a request to one of a model's deployments, and to others where that fails: retries, fallback, circuit breakers.

What is done in which case, and why, is told in docs/resilience.md. All of it happens before a reply is handed on: from then on
a failure is the caller's to tell its client.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import random as system_random
from typing import TypeVar

from routellm.dispatch.deployment import Deployment, DeploymentState, least_loaded
from routellm.dispatch.run import Dispatched, Failure, Run, SendTo
from routellm.dispatch.settings import DispatchSettings
from routellm.dispatch.waits import backoff, retry_after
from routellm.errors import ConfigError, MissingKeyError, UpstreamError, UpstreamTimeoutError
from routellm.upstream.base import Upstream, UpstreamReply

T = TypeVar("T")

_NOT_WORTH_REPEATING = frozenset({501, 505})
"""Not implemented, and HTTP version not supported: no matter of the moment, nor of the endpoint's health."""


def is_failure(status: int) -> bool:
    """Whether a reply of this status is worth a try elsewhere: the endpoint is overloaded, limits the rate, or is broken."""
    return status in (408, 429) or (status >= 500 and status not in _NOT_WORTH_REPEATING)


class Dispatcher:
    """Holds every model's deployments. One for a process, used on one event loop at a time; opens nothing itself.

    Args:
        models: model -> its deployments, at least one; see `open_models`.
        settings: weights are taken by position from `settings.models`.
        clock: monotonic seconds.
        sleep: waits for so many seconds.
        random: a number in [0, 1).

    Raises:
        ConfigError: a model has no deployment, or another number of them than its settings.
    """

    def __init__(
        self,
        models: Mapping[str, Sequence[Upstream]],
        settings: DispatchSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = system_random,
    ) -> None:
        self._retries = settings.retries
        self._breaker = settings.breaker
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._deployments = {name: self._deploy(name, upstreams, settings) for name, upstreams in models.items()}

    def _deploy(self, model: str, upstreams: Sequence[Upstream], settings: DispatchSettings) -> list[Deployment]:
        given = settings.models[model].deployments if model in settings.models else ()
        weights = [deployment.weight for deployment in given] or [1.0]
        if len(weights) != len(upstreams):
            raise ConfigError(f"The model {model!r} has {len(upstreams)} upstreams for {len(weights)} deployments.")
        endpoints = [upstream.endpoint or upstream.model for upstream in upstreams]
        count = Counter(endpoints)
        return [
            Deployment(
                model,
                endpoint if count[endpoint] == 1 else f"{endpoint} #{number}",
                *(upstream, weight, settings.breaker, self._clock),
            )
            for number, (endpoint, upstream, weight) in enumerate(zip(endpoints, upstreams, weights, strict=True), start=1)
        ]

    async def dispatch(self, model: str, spares: Sequence[str], send: SendTo[T]) -> Dispatched[T]:
        """Send a request until a reply can be handed on.

        Args:
            model: the model that was decided for.
            spares: models that may answer in its place, tried in this order; see `spares_for`.
            send: sends the request to the upstream that it is given; called once for each attempt, which it must not catch.

        Returns:
            The first good reply. Where there is none, the last error reply of an upstream, unchanged.

        Raises:
            UpstreamError: no upstream gave any reply; its `attempts` says how many were asked.
            UpstreamUnavailableError: none was asked, since all have failed too often just before.
            MissingKeyError: none that was left could be asked for want of a key.
            RequestError: `send` can't make a request for an upstream of it.
        """
        run = Run(send, model, self._clock() + self._retries.budget_seconds)
        names = (model, *spares)
        try:
            for name in names:
                dispatched = await self._try_model(name, run)
                if dispatched is not None:
                    return await run.hand_on(dispatched)
            if run.held is None:
                dispatched = await self._ask_anyway(names, run)
                if dispatched is not None:
                    return dispatched
        except BaseException:
            await run.let_go()
            raise
        return run.give_up(self._open_for(names))

    def states(self) -> list[DeploymentState]:
        """A snapshot of every deployment."""
        return [deployment.state() for deployments in self._deployments.values() for deployment in deployments]

    async def aclose(self) -> None:
        """Close the connections of every upstream."""
        for deployments in self._deployments.values():
            for deployment in deployments:
                await deployment.upstream.aclose()

    async def _try_model(self, name: str, run: Run[T]) -> Dispatched[T] | None:
        deployments = self._deployments[name]
        retries = 0
        while True:
            deployment = least_loaded(deployments, run.tried, self._random)
            if deployment is None and retries < self._retries.count:
                deployment = await self._wait_for_one(deployments, retries, run)
                retries += 1
            if deployment is None:
                return None
            outcome = await self._attempt(deployment, run)
            if isinstance(outcome, Dispatched):
                return outcome
            run.tried[deployment] = outcome
            if outcome.ends_model:
                run.tried.update(dict.fromkeys(deployments, outcome))
                return None

    async def _wait_for_one(self, deployments: Sequence[Deployment], retry: int, run: Run[T]) -> Deployment | None:
        """Wait for the deployment that may be asked soonest, where that is soon enough."""
        now = self._clock()
        delays: list[tuple[float, Deployment]] = []
        for deployment in deployments:
            failure = run.tried.get(deployment)
            if deployment.is_open or (failure is not None and not failure.repeatable):
                continue
            told = deployment.told_until - now
            if told > 0 or failure is not None:
                delays.append((max(told, 0.0), deployment))
        if not delays:
            return None
        delay, deployment = min(delays, key=lambda pair: pair[0])
        delay += backoff(retry, self._retries, self._random)  # also where it was told, lest all come back at once
        if now + delay > run.deadline:
            return None
        await self._sleep(delay)
        return None if deployment.is_open else deployment

    async def _ask_anyway(self, names: Sequence[str], run: Run[T]) -> Dispatched[T] | None:
        """Ask a deployment that wanted to be left alone for a while, since no other replies: it may have room for this one."""
        for name in names:
            left = [each for each in self._deployments[name] if not each.is_open and each not in run.tried]
            if left:
                outcome = await self._attempt(min(left, key=Deployment.seconds_left), run)
                return outcome if isinstance(outcome, Dispatched) else None
        return None

    async def _attempt(self, deployment: Deployment, run: Run[T]) -> Dispatched[T] | Failure:
        token = deployment.begin()
        try:
            reply, extra = await run.send(deployment.upstream)
        except UpstreamError as error:
            run.attempts += 1
            run.error = error
            deployment.failed(token, str(error))
            timed_out = isinstance(error, UpstreamTimeoutError) and not error.repeatable
            return Failure(error.repeatable, timed_out and not self._retries.after_timeout)
        except MissingKeyError as error:
            run.missing_key = error
            deployment.left(token)
            return Failure(False, False)
        except BaseException:
            deployment.left(token)
            raise
        run.attempts += 1
        if not is_failure(reply.status):
            deployment.replied(token)
            return Dispatched(reply, extra, deployment.model, deployment, token, run)
        failure = self._judge(deployment, token, reply)
        await run.hold(Dispatched(reply, extra, deployment.model, None, token, run))
        return failure

    def _judge(self, deployment: Deployment, token: int, reply: UpstreamReply) -> Failure:
        """What an error reply says of the deployment, and whether it may be asked again."""
        asked_to_wait = retry_after(reply.headers, time.time)
        if reply.status == 429:  # alive, and not to be cut off: its limits let others pass
            deployment.left(token)
        else:
            deployment.failed(token, f"status {reply.status}")
        if asked_to_wait is not None:
            deployment.avoid(min(asked_to_wait, self._breaker.longest_cooldown_seconds), told=True)
        elif reply.status == 429:
            deployment.avoid(self._breaker.rate_limited_seconds, told=False)
        refused = reply.headers.get("x-should-retry") == "false"
        return Failure(not refused and (asked_to_wait is not None or self._retries.without_retry_after), False)

    def _open_for(self, names: Sequence[str]) -> float | None:
        """Seconds until a deployment of the models lets a request pass, of those whose breakers let none; None without any."""
        waits = [each.seconds_left() for name in names for each in self._deployments[name] if each.is_open]
        return min(waits, default=None)
