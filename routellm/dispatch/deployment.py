"""One endpoint of a model with what is known of its health, and the choice among several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf

from routellm.dispatch.breaker import Breaker, BreakerState
from routellm.dispatch.settings import BreakerSettings
from routellm.upstream.base import Upstream

logger = logging.getLogger("routellm.dispatch")


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """What metrics and people see of a deployment.

    Attributes:
        model: the model's full name.
        endpoint: its base URL, with a number where several deployments of the model have the same. Holds no key.
        breaker: the state of its circuit breaker.
        outstanding: calls under way.
        failures: failures in a row.
        seconds_left: how long it is left out from now on, by its breaker or by its own `Retry-After`.
    """

    model: str
    endpoint: str
    breaker: BreakerState
    outstanding: int
    failures: int
    seconds_left: float


class Deployment:
    """An upstream, the calls under way to it, and what came of the last ones.

    Each call is `begin` and then `end` with what `begin` returned, `replied` in between where a good reply begins.
    """

    __slots__ = ("_avoid_until", "_breaker", "_clock", "endpoint", "model", "outstanding", "told_until", "upstream", "weight")

    def __init__(
        self,
        model: str,
        endpoint: str,
        upstream: Upstream,
        weight: float,
        settings: BreakerSettings,
        clock: Callable[[], float],
    ) -> None:
        self.model = model
        self.endpoint = endpoint
        self.upstream = upstream
        self.weight = weight
        self.outstanding = 0
        self.told_until = 0.0
        """The clock's time until which the endpoint has asked to be left alone."""
        self._avoid_until = 0.0
        self._breaker = Breaker(settings, clock)
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether its breaker lets no call pass."""
        return not self._breaker.admits()

    @property
    def is_ready(self) -> bool:
        """Whether nothing speaks against a call."""
        return self._breaker.admits() and (not self._avoid_until or self._clock() >= self._avoid_until)

    def seconds_left(self) -> float:
        """How long it is left out from now on."""
        return max(self._breaker.seconds_left(), self._avoid_until - self._clock(), 0.0)

    def begin(self) -> int:
        """A call begins."""
        self.outstanding += 1
        return self._breaker.enter()

    def replied(self, token: int) -> None:
        """A good reply has begun, and takes its time."""
        if self._breaker.replied(token):
            logger.warning("%s at %s answers again", self.model, self.endpoint)

    def succeeded(self, token: int) -> None:
        """The reply came whole."""
        self.outstanding -= 1
        self._breaker.succeeded(token)

    def failed(self, token: int, why: str) -> None:
        """The call failed, or its reply broke off."""
        self.outstanding -= 1
        was_closed = self._breaker.state == "closed"
        if self._breaker.failed(token) and was_closed:
            logger.warning(
                "%s at %s has failed %d times in a row and is left alone for %.3g s: %s",
                *(self.model, self.endpoint, self._breaker.failures, self._breaker.seconds_left(), why),
            )

    def left(self, token: int) -> None:
        """The call ended without telling anything of the endpoint."""
        self.outstanding -= 1
        self._breaker.left(token)

    def avoid(self, seconds: float, *, told: bool) -> None:
        """Come after the others for so long; `told` where the endpoint itself has asked for it."""
        until = self._clock() + seconds
        self._avoid_until = max(self._avoid_until, until)
        if told:
            self.told_until = max(self.told_until, until)

    def state(self) -> DeploymentState:
        """A snapshot."""
        breaker = self._breaker
        return DeploymentState(
            self.model, self.endpoint, breaker.state, self.outstanding, breaker.failures, self.seconds_left()
        )


def least_loaded(
    deployments: Sequence[Deployment], tried: Collection[Deployment], random: Callable[[], float]
) -> Deployment | None:
    """The one with the fewest calls under way by its weight, of those that are ready and not in `tried`.

    Among equals each is as likely as its weight says, so that weights also count where there is little to do.
    """
    if len(deployments) == 1:
        only = deployments[0]
        return only if only.is_ready and only not in tried else None
    best: list[Deployment] = []
    least = inf
    for deployment in deployments:
        if deployment.is_ready and deployment not in tried:
            load = deployment.outstanding / deployment.weight
            if load < least:
                best, least = [deployment], load
            elif load == least:
                best.append(deployment)
    if len(best) < 2:
        return best[0] if best else None
    mark = random() * sum(deployment.weight for deployment in best)
    for deployment in best[:-1]:
        mark -= deployment.weight
        if mark < 0:
            return deployment
    return best[-1]
