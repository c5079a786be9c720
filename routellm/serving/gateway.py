"""What a configuration makes: routers that decide, rules that settle a decision, and endpoints to send it to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Self

from routellm.costs import PriceList
from routellm.decider import Decider, Ready
from routellm.dispatch.dispatcher import Dispatcher
from routellm.dispatch.models import open_models
from routellm.dispatch.run import Dispatched, SendTo, T
from routellm.dispatch.settings import spares_for
from routellm.errors import ConfigError
from routellm.policies.context import ContextRule, ContextSettings, known_window
from routellm.policies.sticky import Sticky
from routellm.policies.table import ConversationTable
from routellm.serving.apis.base import Api
from routellm.serving.request import ApiRequest
from routellm.serving.scoring import ScorePool
from routellm.serving.settings import GatewaySettings, Settings
from routellm.types import Decision
from routellm.upstream.base import Format, ModelSpec, Upstream
from routellm.upstream.providers import PROVIDERS, provider_of

_MOVABLE = ("threshold", "no-text", "sticky")
"""Reasons for a model that leave the other one of the pair able to take the request as well."""


class Gateway:
    """Decides, and knows where to send. Everything in it is of one configuration.

    Args:
        decider: the loaded routers and the pair.
        models: model name -> its endpoints, for both models of the pair and for spares.
        settings: the section `gateway` of the configuration.
        table: which model each conversation is with.
        prices: what the models' tokens cost.
        windows: the pair's names -> how many tokens each takes; None where that is not known.
    """

    def __init__(
        self,
        decider: Decider,
        models: Mapping[str, list[Upstream]],
        settings: GatewaySettings,
        table: ConversationTable,
        prices: PriceList,
        windows: Mapping[str, int | None],
    ) -> None:
        pair = decider.pair
        self.decider, self.models, self.settings, self.prices = decider, models, settings, prices
        self.dispatcher = Dispatcher(models, settings)
        self.pool = ScorePool(settings.score)
        self._sticky = None if settings.sticky.by is None else Sticky(settings.sticky, table)
        self._context = ContextRule(pair, windows) if any(windows.values()) else None
        self._under_way = 0
        self._idle: asyncio.Event | None = None

    @classmethod
    def load(cls, settings: Settings, environ: Mapping[str, str], table: ConversationTable) -> Gateway:
        """Build the routers and the upstreams. No network access.

        Raises:
            ConfigError: a setting is wrong.
            UnknownNameError: no such router.
            CheckpointError: a router's files can't be read.
        """
        if settings.strong.name == settings.weak.name and settings.strong != settings.weak:
            raise ConfigError(
                f"Both models are named {settings.strong.name!r} but have different endpoints or keys; "
                "a name must mean one endpoint."
            )
        bases = {spec.name: spec for spec in (settings.strong, settings.weak)}
        decider = Decider.load(
            settings.routers,
            settings.pair,
            settings.config,
            weak_modalities=settings.weak.modalities,
            prompt_from=settings.prompt_from,
            default_strong_share=settings.default_strong_share,
        )
        models = open_models(bases, settings.gateway, environ)
        spares = [ModelSpec(name) for name in models if name not in bases]
        prices = PriceList.load([*bases.values(), *spares], settings.gateway.prices)
        windows = {name: _window(spec, settings.gateway.context) for name, spec in bases.items()}
        return cls(decider, models, settings.gateway, table, prices, windows)

    async def decide(
        self,
        api: Api,
        request: ApiRequest,
        headers: Iterable[tuple[bytes, bytes]],
        client: str | None = None,
        *,
        remember: bool = True,
    ) -> Decision:
        """The decision for a request; a score that may be slow is computed in a thread.

        Args:
            headers: the client's, names in lower case.
            client: the id of its key, where keys are in use.
            remember: False leaves no trace in the memory of conversations.

        Raises:
            RequestError: see `Decider.begin_view`.
            OverloadedError: too many prompts wait for the router's score.
        """
        step = self.decider.begin_view(request.model, partial(api.view, request))
        if isinstance(step, Ready):
            return step.decision
        if step.blocking:
            decision = self.decider.settle(step, await self.pool.score(step.router, step.text))
        else:
            decision = self.decider.finish(step)
        if self._sticky is not None:
            key = self._sticky.key(headers, request.fields, step.name, client)
            decision = self._sticky.settle(key, decision, self.decider.pair, remember=remember)
        if self._context is not None:
            decision = self._context.settle(decision, request.body, request.fields)
        return decision

    def dispatch(self, decision: Decision, request: ApiRequest, send: SendTo[T]) -> Awaitable[Dispatched[T]]:
        """Send to the chosen model, or to those that may stand in for it. Raises as `Dispatcher.dispatch` does."""
        return self.dispatcher.dispatch(decision.model, self._spares(decision, request), send)

    def fallen_back(self, decision: Decision, model: str) -> Decision:
        """`decision` after another model has answered."""
        return replace(decision, model=model, reason="fallback")

    def spoken(self, decision: Decision, format: Format) -> Decision | None:
        """For a request that can't be said in words that the chosen model's endpoint knows: the other model of the pair, where
        all its endpoints speak the request's own API; None where that one can't take it either."""
        pair = self.decider.pair
        other = pair.weak if decision.model == pair.strong else pair.strong
        if decision.reason not in _MOVABLE or not all(format in upstream.formats for upstream in self.models[other]):
            return None
        return replace(decision, model=other, reason="api")

    def __enter__(self) -> Self:
        """A request begins."""
        self._under_way += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        if self._idle is not None and not self._under_way:
            self._idle.set()

    async def close_when_idle(self) -> None:
        """Close as soon as no request is under way, or at once where this is cancelled."""
        self._idle = asyncio.Event()
        try:
            if self._under_way:
                await self._idle.wait()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the upstreams' connections and end the threads."""
        await self.dispatcher.aclose()
        self.pool.close()

    def _spares(self, decision: Decision, request: ApiRequest) -> tuple[str, ...]:
        settings = self.settings
        if settings.fallback == "off" and not settings.spares:
            return ()
        movable = decision.reason in _MOVABLE
        spares = spares_for(decision.model, self.decider.pair, settings, pinned=not movable)
        rule = self._context
        return spares if rule is None else tuple(name for name in spares if rule.takes(name, request.body, request.fields))


def _window(spec: ModelSpec, settings: ContextSettings) -> int | None:
    """How many tokens a model takes, where that is known: of an endpoint of one's own nothing is but what one says."""
    if not settings.check:
        return None
    given = settings.windows.get(spec.name)
    listed = given is None and spec.api_base is None and provider_of(spec)[0] in PROVIDERS
    return known_window(spec.name) if listed else given
