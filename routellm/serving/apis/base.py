"""What the gateway asks of an API that clients speak, so that one way through it serves them all.

A request is looked at as little as possible: `Api.parse` finds its model's name and leaves every other field as bytes, and
`Api.view` finds the prompt that decides. Where the chosen upstream speaks the client's API, the body goes up as it came, with
another `model`, and the reply comes back byte for byte. Where it doesn't, a `Translator` of that one request turns the body
into what the upstream speaks, and the reply back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from routellm.messages import PromptFrom, PromptView
from routellm.serving.errors import ErrorReply
from routellm.serving.request import ApiRequest
from routellm.upstream.base import Format


class Translator(ABC):
    """One request on its way to an upstream of another API, and its reply on the way back. Holds state: one a request sent.

    Attributes:
        path: where the upstream takes the translated body, below its base URL ("/chat/completions").
    """

    path: str

    @abstractmethod
    def body_for(self, model: str) -> bytes:
        """The translated body that asks for `model`."""

    @abstractmethod
    def reply(self, body: bytes) -> bytes:
        """A whole reply with a 2xx status in the client's format.

        Raises:
            UpstreamReplyError: `body` is not what the upstream's API promises.
        """

    @abstractmethod
    def error(self, status: int, body: bytes) -> bytes:
        """A whole reply with an error status in the client's format; a body of any form keeps what can be told of it."""

    @abstractmethod
    def feed(self, chunk: bytes) -> bytes:
        """The events that the upstream's stream has completed with `chunk`, in the client's format; may be empty.

        Raises:
            UpstreamReplyError: an event is not what the upstream's API promises.
        """

    @abstractmethod
    def end(self) -> bytes:
        """The last events, once the upstream's stream has ended.

        Raises:
            UpstreamReplyError: the stream ended before its answer did.
        """

    def error_event(self, error: bytes) -> bytes | None:
        """The events that end a stream that broke off, where they depend on the ones before; else None, for `Api.error_event`.

        `error` is OpenAI's error object as JSON.
        """
        return None


class Api(ABC):
    """An API that clients speak. Stateless; one instance serves all requests.

    Attributes:
        format: its name; an upstream that speaks it takes the body as it came.
        path: where clients send their requests ("/v1/chat/completions").
        upstream_path: where an upstream that speaks it takes them, below its base URL ("/chat/completions").
        takes_tokens: whether an answer is paid for by its tokens.
    """

    format: Format
    path: str
    upstream_path: str
    takes_tokens = True

    @abstractmethod
    def parse(self, body: bytes) -> ApiRequest:
        """Look at what routing needs; leave every other field as bytes.

        Raises:
            RequestError: the body is not a JSON object, or lacks a field without which no upstream could answer it.
        """

    @abstractmethod
    def view(self, request: ApiRequest, prompt_from: PromptFrom) -> PromptView:
        """The prompt that decides.

        Raises:
            RequestError: the field that holds the conversation can't be read.
        """

    @abstractmethod
    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> Translator:
        """For an upstream that speaks `formats`, among which this API's own is not.

        Raises:
            RequestError: the request asks for what none of `formats` can say; it names the field. Nothing is ever dropped.
        """

    def headers_for(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The client's end-to-end headers as they go up with a *translated* body: those of this API alone are left out."""
        return headers

    def error_reply(self, reply: ErrorReply, request_id: str) -> ErrorReply:
        """An error of this server, given in OpenAI's form, in this API's own."""
        return reply

    def error_event(self, error: bytes) -> bytes:
        """The event that ends a stream that broke off; `error` is OpenAI's error object as JSON."""
        return b"data: " + error + b"\n\n"
