"""What the configuration file says of endpoints that fail: how long to wait, how often to try, where else to go.

::

    gateway:
      models:
        gpt-4o:
          timeouts: {first_byte_seconds: 60}
          deployments:
            - {api_key_env: OPENAI_API_KEY}
            - {base_url: "https://eu.example.com/v1", api_key_env: EU_KEY, model: openai/gpt-4o-eu, weight: 2}
      spares: {gpt-4o: [anthropic/claude-sonnet-4]}
      fallback: strong-to-weak
"""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec

from routellm.types import ModelPair
from routellm.upstream.base import Format

MAX_RETRIES = 10


def _check_range(name: str, number: float, over: float | None = None) -> None:
    if over is None and not 0 <= number < inf:
        raise ValueError(f"{name} is {number!r}; it must be a finite number from 0")
    if over is not None and not over < number < inf:
        raise ValueError(f"{name} is {number!r}; it must be a finite number over {over:g}")


class TimeoutSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `routellm.upstream.base.Timeouts`. None leaves what the command line says."""

    connect_seconds: float | None = None
    first_byte_seconds: float | None = None
    idle_seconds: float | None = None
    total_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            seconds = getattr(self, name)
            if seconds is not None:
                _check_range(name, seconds, over=0)


class DeploymentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One endpoint of a model, of several.

    Attributes:
        base_url: where it is. None: the model's own endpoint, or with `model` its provider's.
        model: the model's full name there ("openai/gpt-4o-eu"). None: the model's own name.
        api_key_env: the environment variable that holds the key.
        api_key: the key itself, in no repr. Without either, the model's own key goes to the model's own endpoint, and nowhere
            else.
        weight: how many requests it takes at a time, beside the other deployments.
    """

    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    api_key: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_range("weight", self.weight, over=0)
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("api_key and api_key_env are both given; give one of them")

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "api_key"}
        return f"DeploymentSettings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model is reached.

    Attributes:
        deployments: its endpoints, each as good as the other. Without any, the one that the command line names.
        formats: the APIs that its endpoints speak. None: as the provider's entry says.
    """

    deployments: tuple[DeploymentSettings, ...] = ()
    timeouts: TimeoutSettings = TimeoutSettings()
    formats: tuple[Format, ...] | None = None


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a request is sent to an endpoint that has just failed on it once more; see docs/resilience.md for what is not.

    Attributes:
        count: how often one request waits for an endpoint to try it, again or at all, for each model.
        budget_seconds: no such wait ends later than so long after the request was first sent.
        first_backoff_seconds, longest_backoff_seconds: where the endpoint did not say how long to wait: a random time from 0
            to the first, which doubles with each retry, up to the second.
        without_retry_after: whether a 408, 429 or 5xx is tried again where the endpoint did not say how long to wait.
        after_timeout: whether a model is asked at another of its endpoints after one did not answer in time.
    """

    count: int = 1
    budget_seconds: float = 5.0
    first_backoff_seconds: float = 0.25
    longest_backoff_seconds: float = 2.0
    without_retry_after: bool = False
    after_timeout: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MAX_RETRIES:
            raise ValueError(f"count is {self.count}; it must lie from 0 to {MAX_RETRIES}")
        for name in ("budget_seconds", "first_backoff_seconds", "longest_backoff_seconds"):
            _check_range(name, getattr(self, name))


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an endpoint is left alone.

    Attributes:
        failures: failures in a row after which no request is sent to an endpoint; 0 for never.
        open_seconds, longest_open_seconds: for how long; it doubles each time that the one request that is let through then
            fails as well, up to the second.
        longest_cooldown_seconds: an endpoint's `Retry-After` is believed up to so long.
        rate_limited_seconds: for how long an endpoint that answered 429 without `Retry-After` comes after the others.
    """

    failures: int = 5
    open_seconds: float = 5.0
    longest_open_seconds: float = 60.0
    longest_cooldown_seconds: float = 60.0
    rate_limited_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.failures < 0:
            raise ValueError(f"failures is {self.failures}; it must be 0 (never open) or more")
        _check_range("open_seconds", self.open_seconds, over=0)
        for name in ("longest_open_seconds", "longest_cooldown_seconds", "rate_limited_seconds"):
            _check_range(name, getattr(self, name))
        if self.longest_open_seconds < self.open_seconds:
            raise ValueError(
                f"longest_open_seconds is {self.longest_open_seconds:g}; it must not lie below open_seconds, "
                f"{self.open_seconds:g}"
            )


class DispatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that this room reads; the keys stand directly under `gateway`.

    Attributes:
        models: by full name, as on the command line or in `spares`.
        fallback: whether the other model of the pair answers where the one that was decided for can't.
        spares: model -> further models, tried in this order before `fallback`.
    """

    models: dict[str, ModelSettings] = {}
    retries: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    fallback: Literal["off", "strong-to-weak", "weak-to-strong", "both"] | bool = "off"  # YAML reads a bare off as False
    spares: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        if self.fallback is True:
            raise ValueError("fallback is true; it must be off, strong-to-weak, weak-to-strong, or both")
        if self.fallback is False:
            msgspec.structs.force_setattr(self, "fallback", "off")
        for model, names in self.spares.items():
            if model in names:
                raise ValueError(f"spares names {model!r} as its own spare")


def spares_for(model: str, pair: ModelPair, settings: DispatchSettings, pinned: bool) -> tuple[str, ...]:
    """The models that are tried after `model`, in order: its listed spares, then by `fallback` the other of the pair.

    Args:
        pinned: the other of the pair is out of the question, since the client named its model itself or since the other can't
            take the request.
    """
    names = settings.spares.get(model, ())
    if pinned or settings.fallback == "off":
        return names
    other = None
    if model == pair.strong and settings.fallback != "weak-to-strong":
        other = pair.weak
    elif model == pair.weak and settings.fallback != "strong-to-weak":
        other = pair.strong
    return names if other is None or other == model or other in names else (*names, other)
