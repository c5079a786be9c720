"""From the settings to the open endpoints of every model that a request may be sent to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from routellm.dispatch.settings import DeploymentSettings, DispatchSettings, TimeoutSettings
from routellm.errors import ConfigError
from routellm.upstream.base import ModelSpec, Timeouts, Upstream
from routellm.upstream.providers import open_upstream

_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
"""What a variable is usually called; anything else may be a key that stands in its place, and is shown nowhere."""


def open_models(
    bases: Mapping[str, ModelSpec], settings: DispatchSettings, environ: Mapping[str, str]
) -> dict[str, list[Upstream]]:
    """Every deployment of the models in `bases`, and of the spares. No network access.

    Args:
        bases: the models that the command line names. A spare that is not among them is reached as its name says.
        environ: the environment, for keys and base URLs.

    Raises:
        ConfigError: the settings name a model that no request can go to, or a model can't be opened.
    """
    patience = next(iter(bases.values())).timeouts if bases else Timeouts()
    specs = dict(bases)
    for names in settings.spares.values():
        for name in names:
            specs.setdefault(name, ModelSpec(name, timeouts=patience))
    for place in ("models", "spares"):
        unknown = [name for name in getattr(settings, place) if name not in specs]
        if unknown:
            raise ConfigError(
                f"gateway.{place} names {unknown[0]!r}, which no request is sent to. Requests are sent to: {', '.join(specs)}."
            )
    return {
        name: [open_upstream(spec, environ) for spec in specs_for(name, base, settings, environ)]
        for name, base in specs.items()
    }


def specs_for(name: str, base: ModelSpec, settings: DispatchSettings, environ: Mapping[str, str]) -> list[ModelSpec]:
    """The deployments of the model `name`, of which the command line says `base`: at least one.

    Raises:
        ConfigError: a variable that is to hold a key is not set.
    """
    model = settings.models.get(name)
    if model is None:
        return [base]
    base = replace(
        base,
        timeouts=_timeouts(base.timeouts, model.timeouts),
        formats=base.formats if model.formats is None else frozenset(model.formats),
    )
    return [
        _spec(base, deployment, environ, f"gateway.models.{name}.deployments[{number}]")
        for number, deployment in enumerate(model.deployments)
    ] or [base]


def _timeouts(base: Timeouts, given: TimeoutSettings) -> Timeouts:
    changes = {
        "connect": given.connect_seconds,
        "first_byte": given.first_byte_seconds,
        "idle": given.idle_seconds,
        "total": given.total_seconds,
    }
    return replace(base, **{name: seconds for name, seconds in changes.items() if seconds is not None})


def _spec(base: ModelSpec, deployment: DeploymentSettings, environ: Mapping[str, str], where: str) -> ModelSpec:
    key = deployment.api_key
    if deployment.api_key_env is not None:
        key = environ.get(deployment.api_key_env)
        if not key:
            usual = _VARIABLE.fullmatch(deployment.api_key_env)
            shown = deployment.api_key_env if usual else "a variable (not shown here, since it may be a key)"
            raise ConfigError(f"{where}.api_key_env names {shown}, which is not set in the environment.")
    if deployment.base_url is None and deployment.model is None:
        return replace(base, api_key=key or base.api_key)
    # Another endpoint: neither the model's own base URL nor its key has any business there.
    return replace(base, name=deployment.model or base.name, api_base=deployment.base_url, api_key=key)
