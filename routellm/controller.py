"""The Python clients: decide which model answers, send the request to it, keep count.

`Controller` and `AsyncController` stand in for the official OpenAI client: `chat.completions.create` takes the same arguments
and returns and raises the same objects, since the official client does the sending. Only `model` means something else: it
names a router and a threshold (`router-mf-0.11593`), or pins one of the pair's models.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from routellm.config import RouterConfig, read_environment
from routellm.decider import Decider, Pending, Ready
from routellm.errors import ConfigError, RequestError, did_you_mean
from routellm.messages import PromptFrom, encode_messages
from routellm.types import Decision, ModelPair, check_threshold
from routellm.upstream.base import ModelSpec, Timeouts, Upstream
from routellm.upstream.providers import open_upstream

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

C = TypeVar("C")

_SCORE_CHUNK = 1024
"""Prompts scored between two steps of the progress bar."""


class _ControllerBase:
    """What both controllers share: everything but the sending.

    Args:
        routers: names of the routers to load, such as ["mf"].
        strong_model, weak_model: the pair, by LiteLLM-style names ("gpt-4o", "groq/llama-3.1-8b-instant", "openai/NAME" with
            `api_base` for any OpenAI-compatible endpoint, "ollama/llama3", "demo/strong" for an offline stand-in).
        config: router name -> keyword arguments of its constructor, as in a configuration file.
        api_base, api_key: for both models, or a mapping by model name or by "strong" and "weak". Without a key, the
            provider's environment variable is read, here and not at import.
        progress_bar: show one while many prompts are scored.
        weak_modalities: content other than text that the weak model takes ("image", "audio", "video", "file"); a request
            with any other goes to the strong model.
        prompt_from: which user turns decide: "last", "first", or a number of last turns.
        default_strong_share: the share of strong calls that `router-<name>` without a threshold aims at.
        timeout, connect_timeout: seconds to wait for the next piece of an answer, and for a connection.

    Raises:
        UnknownNameError, ConfigError, CheckpointError: a router can't be loaded, or a model's name can't be read.
    """

    def __init__(
        self,
        routers: Sequence[str],
        strong_model: str,
        weak_model: str,
        config: RouterConfig | None = None,
        api_base: str | Mapping[str, str] | None = None,
        api_key: str | Mapping[str, str] | None = None,
        progress_bar: bool = False,
        *,
        weak_modalities: Sequence[str] = (),
        prompt_from: PromptFrom = "last",
        default_strong_share: float = 0.5,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self.model_pair = ModelPair(strong_model, weak_model)
        self.progress_bar = progress_bar
        self.model_counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Completions asked for so far: router name (or "pinned") -> model -> count."""
        self._counting = Lock()
        self._decider = Decider.load(
            routers,
            self.model_pair,
            config,
            weak_modalities=frozenset(weak_modalities),
            prompt_from=prompt_from,
            default_strong_share=default_strong_share,
        )
        environ = read_environment()
        self._upstreams: dict[str, Upstream] = {}
        for role, name in (("strong", strong_model), ("weak", weak_model)):
            spec = ModelSpec(
                name,
                _for_model(api_base, "api_base", role, self.model_pair),
                _for_model(api_key, "api_key", role, self.model_pair),
                timeouts=Timeouts(connect_timeout, timeout),
            )
            self._upstreams[name] = open_upstream(spec, environ)

    @property
    def routers(self) -> list[str]:
        """Names of the loaded routers."""
        return list(self._decider.routers)

    def route(self, prompt: str, router: str, threshold: float) -> str:
        """The name of the model that would answer `prompt`; calls no model.

        Raises:
            RequestError: the router is not loaded, the prompt is no string, or the threshold is not a number in [0, 1].
        """
        return self.decide(prompt, router, check_threshold(threshold)).model

    def decide(self, prompt: str, router: str, threshold: float | None = None) -> Decision:
        """As `route`, with the win rate and the reason; no threshold means the router's default one."""
        if not isinstance(prompt, str):
            raise RequestError(f"The prompt must be a string, not {type(prompt).__name__}.", param="prompt")
        return self._decider.decide_prompt(prompt, router, threshold)

    def batch_calculate_win_rate(self, prompts: Sequence[str], router: str) -> NDArray[np.float64]:
        """The strong model's win rate for each prompt.

        Returns:
            float64, shape (len(prompts),). A pandas Series gives a Series with the same index.

        Raises:
            RequestError: the router is not loaded, or a prompt is no string.
        """
        scorer = self._decider.routers[self._decider.check_router(router)]
        values = list(prompts)
        for position, prompt in enumerate(values):
            if not isinstance(prompt, str):
                raise RequestError(f"prompts[{position}] must be a string, not {type(prompt).__name__}.", param="prompts")
        scores = np.empty(len(values), dtype=np.float64)
        for start in self._track(range(0, len(values), _SCORE_CHUNK)):
            scores[start : start + _SCORE_CHUNK] = scorer.calculate_strong_win_rates(values[start : start + _SCORE_CHUNK])
        if hasattr(prompts, "index") and hasattr(prompts, "to_frame"):  # a pandas Series, without importing pandas
            series_class: Any = type(prompts)
            scores = series_class(scores, index=prompts.index)
        return scores

    def _track(self, chunks: range) -> Any:
        if not self.progress_bar:
            return chunks
        from rich.console import Console
        from rich.progress import track

        return track(chunks, description="Scoring prompts", console=Console(stderr=True))

    def _begin(
        self, model: str | None, router: str | None, threshold: float | None, arguments: Mapping[str, Any]
    ) -> Ready | Pending:
        messages = arguments.get("messages")
        if messages is None or isinstance(messages, str | bytes | Mapping):
            raise RequestError("`messages` must be a list of messages, each with `role` and `content`.", param="messages")
        if (model is None) == (router is None):
            raise RequestError(
                "Give either `model`, such as 'router-mf-0.5', or `router` (with a `threshold`), not both.", param="model"
            )
        if router is not None:
            name = self._decider.check_router(router)
            model = f"router-{name}" if threshold is None else f"router-{name}-{check_threshold(threshold)!r}"
        elif threshold is not None:
            raise RequestError(
                "`threshold` goes with `router`; `model` has its own, as in 'router-mf-0.5'.", param="threshold"
            )
        if not isinstance(model, str):
            raise RequestError(f"`model` must be a string such as 'router-mf-0.5', not {model!r}.", param="model")
        return self._decider.begin(model, encode_messages(messages))

    def _account(self, decision: Decision) -> Upstream:
        upstream = self._upstreams[decision.model]
        upstream.check()
        with self._counting:
            self.model_counts[decision.router or "pinned"][decision.model] += 1
        return upstream

    async def _decide_async(
        self, model: str | None, router: str | None, threshold: float | None, arguments: Mapping[str, Any]
    ) -> Decision:
        step = self._begin(model, router, threshold, arguments)
        if isinstance(step, Ready):
            return step.decision
        if step.blocking:
            return await asyncio.to_thread(self._decider.finish, step)
        return self._decider.finish(step)

    async def _acreate(
        self, model: str | None, router: str | None, threshold: float | None, arguments: dict[str, Any]
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        decision = await self._decide_async(model, router, threshold, arguments)
        upstream = self._account(decision)
        client: AsyncOpenAI = upstream.async_client()
        reply: ChatCompletion | AsyncStream[ChatCompletionChunk]
        reply = await client.chat.completions.create(model=upstream.model, **arguments)
        _attach(reply, decision)
        return reply


class Controller(_ControllerBase):
    """Routes and sends, blocking; `acreate` and `acompletion` do the same on an event loop.

    >>> client = Controller(routers=["mf"], strong_model="demo/strong", weak_model="demo/weak")
    >>> reply = client.chat.completions.create(
    ...     model="router-mf-0.5", messages=[{"role": "user", "content": "What is 2 + 2?"}]
    ... )
    >>> reply.model in ("strong", "weak"), reply.decision.reason
    (True, 'threshold')
    """

    @cached_property
    def chat(self) -> Chat[Completions]:
        """`client.chat.completions.create(...)`, as in the official client."""
        return Chat(Completions(self))

    def completion(
        self, *, model: str | None = None, router: str | None = None, threshold: float | None = None, **arguments: Any
    ) -> ChatCompletion | Stream[ChatCompletionChunk]:
        """Route and send one chat request.

        Args:
            model: `router-<name>-<threshold>`, `router-<name>`, or one of the pair's own names.
            router, threshold: in place of `model`.
            arguments: every other argument of OpenAI's `chat.completions.create`, passed on as given.

        Returns:
            The official client's ChatCompletion, or its Stream with `stream=True`; `.decision` on either is a `Decision`.

        Raises:
            RequestError, ModelNotFoundError: the request can't be routed.
            MissingKeyError: no key is known for the chosen model.
            openai.OpenAIError: whatever the official client raises.
        """
        step = self._begin(model, router, threshold, arguments)
        decision = step.decision if isinstance(step, Ready) else self._decider.finish(step)
        upstream = self._account(decision)
        client: OpenAI = upstream.client()
        reply: ChatCompletion | Stream[ChatCompletionChunk]
        reply = client.chat.completions.create(model=upstream.model, **arguments)
        _attach(reply, decision)
        return reply

    async def acompletion(
        self, *, model: str | None = None, router: str | None = None, threshold: float | None = None, **arguments: Any
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        """As `completion`, on an event loop."""
        return await self._acreate(model, router, threshold, arguments)

    def close(self) -> None:
        """Close the connections that blocking calls opened."""
        for upstream in self._upstreams.values():
            upstream.close()

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncController(_ControllerBase):
    """As `Controller`, with coroutines: `await client.chat.completions.create(...)`."""

    @cached_property
    def chat(self) -> Chat[AsyncCompletions]:
        """`await client.chat.completions.create(...)`, as in the official client."""
        return Chat(AsyncCompletions(self))

    async def completion(
        self, *, model: str | None = None, router: str | None = None, threshold: float | None = None, **arguments: Any
    ) -> ChatCompletion | AsyncStream[ChatCompletionChunk]:
        """See `Controller.completion`."""
        return await self._acreate(model, router, threshold, arguments)

    async def aclose(self) -> None:
        """Close the connections."""
        for upstream in self._upstreams.values():
            await upstream.aclose()

    async def __aenter__(self) -> AsyncController:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Completions:
    """`client.chat.completions` of a `Controller`."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def create(self, *, model: str | None = None, **arguments: Any) -> Any:
        """See `Controller.completion`."""
        return self._controller.completion(model=model, **arguments)

    async def acreate(self, *, model: str | None = None, **arguments: Any) -> Any:
        """See `Controller.acompletion`."""
        return await self._controller.acompletion(model=model, **arguments)


class AsyncCompletions:
    """`client.chat.completions` of an `AsyncController`."""

    def __init__(self, controller: AsyncController) -> None:
        self._controller = controller

    async def create(self, *, model: str | None = None, **arguments: Any) -> Any:
        """See `Controller.completion`."""
        return await self._controller.completion(model=model, **arguments)

    acreate = create


class Chat(Generic[C]):
    """`client.chat` of a controller."""

    def __init__(self, completions: C) -> None:
        self.completions = completions


def _attach(reply: Any, decision: Decision) -> None:
    reply.decision = decision  # the official client's objects take further attributes


def _for_model(value: str | Mapping[str, str] | None, what: str, role: str, pair: ModelPair) -> str | None:
    if value is None or isinstance(value, str):
        return value
    known = ("strong", "weak", pair.strong, pair.weak)
    for key in value:
        if key not in known:
            raise ConfigError(f"{what} has the key {key!r}{did_you_mean(key, known)}; allowed are: {', '.join(known)}.")
    return value.get(role, value.get(getattr(pair, role)))
