"""OpenAI's embeddings: passed on to the model that a request names, and never routed."""

from __future__ import annotations

from routellm.errors import RequestError
from routellm.messages import PromptFrom, PromptView
from routellm.serving.apis.base import Api, Translator
from routellm.serving.request import ApiRequest, parse_request
from routellm.upstream.base import Format


class EmbeddingsApi(Api):
    """`POST /v1/embeddings`."""

    format: Format = "embeddings"
    path = "/v1/embeddings"
    upstream_path = "/embeddings"

    def parse(self, body: bytes) -> ApiRequest:
        return parse_request(body, ("input",))

    def view(self, request: ApiRequest, prompt_from: PromptFrom) -> PromptView:
        """Asked for only where a router is to choose: then there is nothing to choose by."""
        raise RequestError(
            f"Embeddings are not routed, and {request.model!r} asks for a router: two models' vectors can't be compared with "
            "each other, so all must come from one. Name one of the models themselves.",
            param="model",
            code="not_routed",
        )

    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> Translator:
        raise RequestError(
            f"The model {request.model!r} takes {', '.join(sorted(formats))} requests only, not embeddings.",
            code="unsupported_api",
        )
