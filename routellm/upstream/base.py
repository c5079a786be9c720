"""What an upstream is: one model behind one endpoint, reached by the server (bytes) and by the controllers (objects).

The server passes bytes through untouched and must cost next to nothing, so it has `send`. A controller hands its caller what
the official OpenAI client returns and raises, so it uses that client, which an upstream sets up with `client` and
`async_client`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from routellm.registry import Registry

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

NO_BODY = (204, 304)
"""Statuses whose replies end with the head, whatever its fields say of a body."""

ALL_MODALITIES = frozenset({"image", "audio", "video", "file"})

Format: TypeAlias = Literal["chat", "completions", "embeddings", "messages", "responses"]
"""An API that clients and endpoints speak: OpenAI's chat completions, completions, embeddings and responses, and Anthropic's
messages."""

FORMATS: frozenset[Format] = frozenset(get_args(Format))

OPENAI_COMPATIBLE: frozenset[Format] = frozenset({"chat", "completions", "embeddings"})
"""What any endpoint that calls itself compatible with OpenAI's speaks."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None stands for `read`.

    Attributes:
        connect: to open a connection.
        read: what `first_byte` and `idle` are where they are not given.
        first_byte: from the sending of a request, connecting included, to its reply's headers, and where the reply is an event
            stream, to the first piece of that.
        idle: between two pieces of an answer.
        total: from the sending of a request to the last byte of its reply, however steadily that comes.
    """

    connect: float = 10.0
    read: float = 600.0
    first_byte: float | None = None
    idle: float | None = None
    total: float = 3600.0

    @property
    def until_first_byte(self) -> float:
        """`first_byte`, or what stands for it; no longer than `total`."""
        return min(self.read if self.first_byte is None else self.first_byte, self.total)

    @property
    def between_pieces(self) -> float:
        """`idle`, or what stands for it."""
        return self.read if self.idle is None else self.idle


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as a user names it, with what it takes to reach it.

    Attributes:
        name: the full name, `provider/model` or a bare model name ("gpt-4o").
        api_base: overrides the provider's base URL.
        api_key: overrides the key that the provider's environment variable holds. Never shown in a repr.
        modalities: the kinds of content other than text that the model takes.
        timeouts: see `Timeouts`.
        formats: overrides the APIs that the endpoint is taken to speak, for a server such as vLLM or llama.cpp that speaks
            more than its provider's entry says. Looked at for HTTP endpoints only.
    """

    name: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    modalities: frozenset[str] = frozenset()
    timeouts: Timeouts = Timeouts()
    formats: frozenset[Format] | None = None


def joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """One value a name: those of a name that is given several times become a list, as HTTP lets them."""
    fields = dict(headers)
    if len(fields) == len(headers):
        return fields
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(several) for name, several in values.items()}


class UpstreamReply(ABC):
    """An upstream's answer, its body not yet read."""

    status: int
    headers: Mapping[str, str]
    """End-to-end headers, names in lower case; hop-by-hop headers are left out."""

    @property
    def content_type(self) -> str:
        """Empty where the reply tells none."""
        return self.headers.get("content-type", "")

    @property
    def content_encoding(self) -> str:
        """Empty where the reply tells none."""
        return self.headers.get("content-encoding", "")

    def fields(self) -> dict[bytes, bytes]:
        """`headers` as they go over a connection, in a mapping of the caller's own."""
        return {name.encode("latin-1"): value.encode(errors="surrogateescape") for name, value in self.headers.items()}

    def whole(self) -> bytes | None:
        """The body, where all of it has come in already and need not be waited for; else None. Instead of `chunks`."""
        return None

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come in.

        Raises:
            UpstreamError: the upstream broke off before the end.
            UpstreamTimeoutError: it fell silent for too long, or took too long in all; see `Timeouts`.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection; where the body was not read to its end, the upstream's call is cancelled."""


class Upstream(ABC):
    """One model behind one endpoint.

    Constructed from a `ModelSpec` and an environment mapping, without any network access. `model` is the name by which the
    endpoint knows the model, `formats` are the APIs that `send` takes bodies of, and `endpoint` is its base URL for people and
    metrics, or what stands for it.
    """

    model: str
    endpoint: str = ""
    formats: frozenset[Format] = OPENAI_COMPATIBLE

    @abstractmethod
    def check(self) -> None:
        """Raise MissingKeyError or MissingExtraError where a call can't succeed for want of a key or a package."""

    @abstractmethod
    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        """POST `body`, in which `model` is already this upstream's, to `path` ("/chat/completions") below the base URL.

        `path` may end in the client's query string ("/messages?beta=true").

        `headers` are the caller's end-to-end headers, names in lower case; credentials are added here. An error status is a
        reply, not an exception.

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
