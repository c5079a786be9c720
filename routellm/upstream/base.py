"""What an upstream is: one model behind one endpoint, reached by the server (bytes) and by the controllers (objects).

The server passes bytes through untouched and must cost next to nothing, so it has `send`. A controller hands its caller what
the official OpenAI client returns and raises, so it uses that client, which an upstream sets up with `client` and
`async_client`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from routellm.registry import Registry

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

ALL_MODALITIES = frozenset({"image", "audio", "video", "file"})

Format: TypeAlias = Literal["chat", "completions", "embeddings", "messages", "responses"]
"""An API that clients and endpoints speak: OpenAI's chat completions, completions, embeddings and responses, and Anthropic's
messages."""

OPENAI_COMPATIBLE: frozenset[Format] = frozenset({"chat", "completions", "embeddings"})
"""What any endpoint that calls itself compatible with OpenAI's speaks."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `connect`: to open a connection. `read`: between two pieces of an answer, the first included."""

    connect: float = 10.0
    read: float = 600.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as a user names it, with what it takes to reach it.

    Attributes:
        name: the full name, `provider/model` or a bare model name ("gpt-4o").
        api_base: overrides the provider's base URL.
        api_key: overrides the key that the provider's environment variable holds. Never shown in a repr.
        modalities: the kinds of content other than text that the model takes.
        timeouts: see `Timeouts`.
    """

    name: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    modalities: frozenset[str] = frozenset()
    timeouts: Timeouts = Timeouts()


class UpstreamReply(ABC):
    """An upstream's answer, its body not yet read."""

    status: int
    headers: Mapping[str, str]
    """End-to-end headers, names in lower case; hop-by-hop headers are left out."""

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come in.

        Raises:
            UpstreamError: the upstream broke off before the end.
            UpstreamTimeoutError: it fell silent for longer than the read timeout.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection; where the body was not read to its end, the upstream's call is cancelled."""


class Upstream(ABC):
    """One model behind one endpoint.

    Constructed from a `ModelSpec` and an environment mapping, without any network access. `model` is the name by which the
    endpoint knows the model, `formats` are the APIs that `send` takes bodies of.
    """

    model: str
    formats: frozenset[Format] = OPENAI_COMPATIBLE

    @abstractmethod
    def check(self) -> None:
        """Raise MissingKeyError or MissingExtraError where a call can't succeed for want of a key or a package."""

    @abstractmethod
    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        """POST `body`, in which `model` is already this upstream's, to `path` ("/chat/completions") below the base URL.

        `headers` are the caller's end-to-end headers; credentials are added here. An error status is a reply, not an
        exception.

        Raises:
            MissingKeyError: see `check`.
            UpstreamError: the endpoint can't be reached.
            UpstreamTimeoutError: it did not answer in time.
        """

    @abstractmethod
    def client(self) -> OpenAI:
        """An official client whose `chat.completions.create(model=self.model, ...)` reaches this model."""

    @abstractmethod
    def async_client(self) -> AsyncOpenAI:
        """The same, asynchronous."""

    def close(self) -> None:
        """Close the connections of `client`."""

    async def aclose(self) -> None:
        """Close every connection that `client` and, on the running event loop, `send` and `async_client` have opened."""


UPSTREAMS: Registry[Upstream] = Registry(
    "upstream",
    "routellm.upstreams",
    {
        "demo": "routellm.upstream.demo:DemoUpstream",
        "http": "routellm.upstream.http:HttpUpstream",
        "litellm": "routellm.upstream.litellm:LiteLLMUpstream",
    },
)
