"""OpenAI's chat completions: what every upstream speaks, and so never translated."""

from __future__ import annotations

from routellm.errors import RequestError
from routellm.messages import PromptFrom, PromptView, read_prompt
from routellm.serving.apis.base import Api, Translator
from routellm.serving.request import ApiRequest, parse_request
from routellm.upstream.base import Format


class ChatApi(Api):
    """`POST /v1/chat/completions`."""

    format: Format = "chat"
    path = "/v1/chat/completions"
    upstream_path = "/chat/completions"

    def parse(self, body: bytes) -> ApiRequest:
        return parse_request(body, ("messages",))

    def view(self, request: ApiRequest, prompt_from: PromptFrom) -> PromptView:
        return read_prompt(request.fields["messages"], prompt_from)

    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> Translator:
        raise RequestError(
            f"The chosen model takes {', '.join(sorted(formats))} requests only, and chat completions are not translated to "
            f"these; send the request in such a form, or say in the model's settings that its endpoint takes chats too.",
            code="unsupported_api",
        )
