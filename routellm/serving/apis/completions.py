"""OpenAI's completions: a prompt instead of a conversation. Passed on as they came, and never translated."""

from __future__ import annotations

import msgspec

from routellm.errors import RequestError
from routellm.messages import PromptFrom, PromptView, decode_json
from routellm.serving.apis.base import Api, Translator
from routellm.serving.request import ApiRequest, parse_request
from routellm.upstream.base import Format

_decode_prompt = msgspec.json.Decoder(str | list[str | int | list[int]] | None).decode


class CompletionsApi(Api):
    """`POST /v1/completions`."""

    format: Format = "completions"
    path = "/v1/completions"
    upstream_path = "/completions"

    def parse(self, body: bytes) -> ApiRequest:
        return parse_request(body, ("prompt",))

    def view(self, request: ApiRequest, prompt_from: PromptFrom) -> PromptView:
        """The prompt. Several are decided together, as one text, since one model answers them all; tokens are no text."""
        what = "`prompt` must be a string, a list of strings, or tokens"
        prompt = decode_json(_decode_prompt, request.fields["prompt"], what, "prompt")
        prompts = prompt if isinstance(prompt, list) else [prompt]
        texts = [text for text in prompts if isinstance(text, str) and text.strip()]
        return PromptView("\n\n".join(texts) or None)

    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> Translator:
        raise RequestError(
            f"The chosen model takes {', '.join(sorted(formats))} requests only, not completions.", code="unsupported_api"
        )
