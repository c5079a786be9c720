"""What a server process has to know, as one value that can be sent to a worker process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from routellm.config import GATEWAY, RouterConfig, load_server_config
from routellm.costs import PriceSettings
from routellm.dispatch.settings import DispatchSettings
from routellm.errors import ConfigError
from routellm.keys.settings import KeysSettings
from routellm.ledger.settings import LedgerSettings
from routellm.messages import PromptFrom
from routellm.policies.context import ContextSettings
from routellm.policies.sticky import StickySettings
from routellm.routers.routers import ROUTER_CLS
from routellm.serving.admission import AdmissionSettings
from routellm.serving.scoring import ScoreSettings
from routellm.telemetry.logs import LogFormat
from routellm.telemetry.settings import TelemetrySettings
from routellm.types import ModelPair
from routellm.upstream.base import ModelSpec

MAX_BODY_BYTES = 32 * 1024 * 1024


class GatewaySettings(DispatchSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration file says under `gateway`. A server without this section behaves as these defaults say.

    Attributes:
        models: how each model is reached, by its full name.
        fallback: whether the other model of the pair answers where the one that was decided for can't.
        spares: model -> further models, tried in this order before `fallback`.
        retries: when a request is sent again.
        breaker: when an endpoint is left alone.
        sticky: whether conversations stay with their model.
        context: how long a request each model takes.
        score: how routers that take milliseconds are run.
        admission: how many requests are taken on at once.
        prices: model name -> what its tokens cost, in place of the bundled list's price.
        ledger: where finished requests are kept; None keeps none.
        keys: who may send requests, and how much they may spend; None asks nobody for a key.
        telemetry: metrics and traces.
    """

    sticky: StickySettings = StickySettings()
    context: ContextSettings = ContextSettings()
    score: ScoreSettings = ScoreSettings()
    admission: AdmissionSettings = AdmissionSettings()
    prices: dict[str, PriceSettings] = msgspec.field(default_factory=dict[str, PriceSettings])
    ledger: LedgerSettings | None = None
    keys: KeysSettings | None = None
    telemetry: TelemetrySettings = TelemetrySettings()


def read_gateway_settings(section: Mapping[str, Any], flags: Mapping[str, Any], where: str) -> GatewaySettings:
    """The settings that the section `gateway` of the file `where` makes.

    Args:
        flags: what the command line says in the section's place; of a mapping, its keys only.

    Raises:
        ConfigError: a name is not known, or a value not allowed; the message says which and where.
    """
    for name in ("ledger", "keys"):
        if section.get(name, {}) is None:  # what was meant to be switched on would stay off, without a word
            raise ConfigError(
                f"{where}: {name}: has nothing below it - at `{GATEWAY}`; write {name}: {{}} for the defaults, or nothing."
            )
    merged = dict(section)
    for name, value in flags.items():
        given = merged.get(name)
        merged[name] = {**(given if isinstance(given, Mapping) else {}), **value} if isinstance(value, Mapping) else value
    try:
        return msgspec.convert(merged, GatewaySettings)
    except msgspec.ValidationError as error:
        text, path = str(error), re.search(r"`\$([^`]*)`$", str(error))
        steps = path[1] if path is not None else ""
        text = text.replace("`$", f"`{GATEWAY}") if path is not None else f"{text} - at `{GATEWAY}`"
        if "unknown field" in text:
            text += f"; allowed there: {', '.join(_allowed(steps))}"
        raise ConfigError(f"{where}: {text}.") from None


def _allowed(path: str) -> list[str]:
    """The settings that there are at a path below the section, such as `.models[...].deployments[...]`."""
    from msgspec import inspect  # takes milliseconds, which a start without an error need not pay

    found: Any = inspect.type_info(GatewaySettings)
    for name, _ in re.findall(r"\.(\w+)|(\[)", path):
        if isinstance(found, inspect.UnionType):
            found = next(one for one in found.types if not isinstance(one, inspect.NoneType))
        if isinstance(found, inspect.StructType):
            found = next(field.type for field in found.fields if field.encode_name == name)
        else:
            found = found.value_type if isinstance(found, inspect.DictType) else found.item_type
    if isinstance(found, inspect.UnionType):
        found = next(one for one in found.types if isinstance(one, inspect.StructType))
    return [field.encode_name for field in found.fields]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the command line and the configuration file decide. Picklable; a repr shows no key.

    Attributes:
        routers: names of the routers to load.
        strong, weak: the pair, each with its endpoint and key. The weak model's modalities decide which requests it can take.
        config: router name -> keyword arguments. Not in a repr, since an embedder's key may be among them.
        gateway: what the configuration file says of the server itself.
        config_path, config_stamp: that file, to be read again when it changes, and its `stamp_of` before it was read.
        flags: what the command line says in place of the section `gateway`, then too.
        prompt_from: which user turns make the prompt that decides.
        default_strong_share: the share of strong calls that `router-<name>` without a threshold aims at.
        max_body_bytes: a larger request body is refused with 413.
        verbose: log one line a request.
        log_format: text for people or JSON for machines.
    """

    routers: tuple[str, ...]
    strong: ModelSpec
    weak: ModelSpec
    config: RouterConfig = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    gateway: GatewaySettings = field(default_factory=GatewaySettings, repr=False)
    config_path: str | None = None
    config_stamp: tuple[int, int, int] | None = None
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    prompt_from: PromptFrom = "last"
    default_strong_share: float = 0.5
    max_body_bytes: int = MAX_BODY_BYTES
    host: str = "127.0.0.1"
    port: int = 6060
    workers: int = 1
    verbose: bool = False
    log_format: LogFormat = "text"

    @property
    def pair(self) -> ModelPair:
        """The two models' full names."""
        return ModelPair(self.strong.name, self.weak.name)


def reread(settings: Settings) -> Settings:
    """`settings` with what their configuration file says by now.

    Raises:
        ConfigError: the file can't be read or used.
    """
    path = settings.config_path
    if path is None:
        return settings
    routers, section = load_server_config(path, ROUTER_CLS)
    return replace(settings, config=routers, gateway=read_gateway_settings(section, settings.flags, path))
