"""What a server process holds while it runs: the decider, a model's endpoint for each name, and threads for slow scores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from routellm.decider import Decider, Ready
from routellm.errors import ConfigError
from routellm.messages import PromptFrom, PromptView
from routellm.serving.settings import Settings
from routellm.types import Decision
from routellm.upstream.base import Upstream
from routellm.upstream.providers import open_upstream

_THREADS = 8


class Gateway:
    """Decides, and knows where to send.

    Args:
        decider: the loaded routers and the pair.
        upstreams: model name -> its endpoint, for both models of the pair.
    """

    def __init__(self, decider: Decider, upstreams: Mapping[str, Upstream]) -> None:
        self.decider = decider
        self.upstreams = dict(upstreams)
        self._under_way = 0
        self._idle: asyncio.Event | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="routellm-score")

    @classmethod
    def load(cls, settings: Settings, environ: Mapping[str, str]) -> Gateway:
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
        upstreams = {spec.name: open_upstream(spec, environ) for spec in (settings.strong, settings.weak)}
        decider = Decider.load(
            settings.routers,
            settings.pair,
            settings.config,
            weak_modalities=settings.weak.modalities,
            prompt_from=settings.prompt_from,
            default_strong_share=settings.default_strong_share,
        )
        return cls(decider, upstreams)

    async def decide(self, model: str, view_of: Callable[[PromptFrom], PromptView]) -> Decision:
        """The decision for a request; a score that may be slow is computed in a thread.

        Raises:
            RequestError: see `Decider.begin_view`, which has the arguments too.
        """
        step = self.decider.begin_view(model, view_of)
        if isinstance(step, Ready):
            return step.decision
        if step.blocking:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.decider.finish, step)
        return self.decider.finish(step)

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
        for upstream in self.upstreams.values():
            await upstream.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
