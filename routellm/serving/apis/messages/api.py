"""Anthropic's messages: passed through where the upstream speaks them, and translated where it speaks chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import msgspec

from routellm.errors import RequestError
from routellm.messages import PromptFrom, PromptView, read_prompt
from routellm.serving.apis.base import Api, Translator
from routellm.serving.apis.messages.errors import error_event, own_error, upstream_error
from routellm.serving.apis.messages.reply import to_message
from routellm.serving.apis.messages.request import to_chat
from routellm.serving.apis.messages.stream import MessageStream
from routellm.serving.apis.messages.types import read_request
from routellm.serving.errors import ErrorReply
from routellm.serving.request import ApiRequest, parse_request
from routellm.upstream.base import Format


class MessagesTranslator(Translator):
    """One request of the messages API to an upstream that speaks chat completions.

    Raises:
        RequestError: a chat has no words for something; the field is named.
    """

    path = "/chat/completions"

    def __init__(self, request: ApiRequest, formats: frozenset[Format]) -> None:
        asked = read_request(request.fields)
        self._chat = to_chat(asked, formats)
        self._stop_sequences = frozenset(asked.stop_sequences or ())
        self._stream = MessageStream(self._stop_sequences)

    def body_for(self, model: str) -> bytes:
        return msgspec.json.encode({"model": model, **self._chat})

    def reply(self, body: bytes) -> bytes:
        return to_message(body, self._stop_sequences)

    def error(self, status: int, body: bytes) -> bytes:
        return upstream_error(status, body)

    def feed(self, chunk: bytes) -> bytes:
        return self._stream.feed(chunk)

    def end(self) -> bytes:
        return self._stream.end()


class MessagesApi(Api):
    """`POST /v1/messages`."""

    format: Format = "messages"
    path = "/v1/messages"
    upstream_path = "/messages"

    def parse(self, body: bytes) -> ApiRequest:
        return parse_request(body, ("max_tokens", "messages"))

    def view(self, request: ApiRequest, prompt_from: PromptFrom) -> PromptView:
        return read_prompt(request.fields["messages"], prompt_from)

    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> Translator:
        if "chat" not in formats:
            raise RequestError(
                f"The chosen model takes {', '.join(sorted(formats))} requests only, and messages are translated to chat "
                f"completions only.",
                code="unsupported_api",
            )
        return MessagesTranslator(request, formats)

    def headers_for(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Without `anthropic-version` and its like.

        A beta that `anthropic-beta` asks for only allows further fields, and these are refused by their names where a request
        uses them.
        """
        return {name: value for name, value in headers.items() if not name.startswith("anthropic-")}

    def error_reply(self, reply: ErrorReply, request_id: str) -> ErrorReply:
        return own_error(reply, request_id)

    def error_event(self, error: bytes) -> bytes:
        return error_event(error)


class CallNotOfferedError(RequestError):
    """The chosen model's endpoint has no such call, and no other that could stand in for it."""

    status = 404


class CountTokensApi(MessagesApi):
    """`POST /v1/messages/count_tokens`: decided as the request that is to be counted, and passed through.

    An upstream that speaks chat completions only has no such call, and gets none: the error says so. An estimate would be
    taken for a count by clients that budget by it, and a chat request for a single token, whose usage tells the prompt's,
    would cost what this call is there to avoid.
    """

    path = "/v1/messages/count_tokens"
    upstream_path = "/messages/count_tokens"
    takes_tokens = False

    def parse(self, body: bytes) -> ApiRequest:
        return parse_request(body, ("messages",))

    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> NoReturn:
        raise CallNotOfferedError(
            "Tokens can't be counted for the model that this request was routed to: its endpoint does not speak Anthropic's "
            "messages API, and no other has such a call. Name a model whose endpoint does, or count on the client's side.",
            code="unsupported_api",
        )
