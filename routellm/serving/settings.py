"""What a server process has to know, as one value that can be sent to a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from routellm.config import GATEWAY, RouterConfig
from routellm.errors import ConfigError
from routellm.messages import PromptFrom
from routellm.types import ModelPair
from routellm.upstream.base import ModelSpec

MAX_BODY_BYTES = 32 * 1024 * 1024


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration file says under `gateway`. A server without it behaves as these defaults say."""


def read_gateway_settings(section: Mapping[str, Any], where: str) -> GatewaySettings:
    """The settings that the section `gateway` of the file `where` makes.

    Raises:
        ConfigError: a name is not known, or a value not allowed; the message says which and where.
    """
    try:
        return msgspec.convert(section, GatewaySettings)
    except msgspec.ValidationError as error:
        text = str(error).replace("`$", f"`{GATEWAY}")
        if f"at `{GATEWAY}" not in text:
            text += f" - at `{GATEWAY}`; allowed there: {', '.join(GatewaySettings.__struct_fields__)}"
        raise ConfigError(f"{where}: {text}.") from None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the command line and the configuration file decide. Picklable; a repr shows no key.

    Attributes:
        routers: names of the routers to load.
        strong, weak: the pair, each with its endpoint and key. The weak model's modalities decide which requests it can take.
        config: router name -> keyword arguments. Not in a repr, since an embedder's key may be among them.
        gateway: what the configuration file says of the server itself.
        config_path: that file, to be read again when it changes.
        prompt_from: which user turns make the prompt that decides.
        default_strong_share: the share of strong calls that `router-<name>` without a threshold aims at.
        max_body_bytes: a larger request body is refused with 413.
        verbose: log one line a request.
    """

    routers: tuple[str, ...]
    strong: ModelSpec
    weak: ModelSpec
    config: RouterConfig = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    gateway: GatewaySettings = field(default_factory=GatewaySettings, repr=False)
    config_path: str | None = None
    prompt_from: PromptFrom = "last"
    default_strong_share: float = 0.5
    max_body_bytes: int = MAX_BODY_BYTES
    host: str = "127.0.0.1"
    port: int = 6060
    workers: int = 1
    verbose: bool = False

    @property
    def pair(self) -> ModelPair:
        """The two models' full names."""
        return ModelPair(self.strong.name, self.weak.name)
