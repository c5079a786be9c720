"""OpenAI's responses: as they came where the upstream speaks them, translated to chat completions and back where not."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from routellm.errors import RequestError
from routellm.messages import PromptFrom, PromptView
from routellm.serving.apis.base import Api, Translator
from routellm.serving.apis.responses.reply import whole_response
from routellm.serving.apis.responses.request import HELD_ELSEWHERE, translate_request
from routellm.serving.apis.responses.stream import ResponseStream
from routellm.serving.apis.responses.view import read_input
from routellm.serving.errors import error_body
from routellm.serving.request import ApiRequest, parse_request
from routellm.upstream.base import Format

_decode_error = msgspec.json.Decoder(dict[str, Any]).decode


class ResponsesApi(Api):
    """`POST /v1/responses`."""

    format: Format = "responses"
    path = "/v1/responses"
    upstream_path = "/responses"

    def parse(self, body: bytes) -> ApiRequest:
        request = parse_request(body, ())
        if "input" not in request.fields and request.fields.keys().isdisjoint(HELD_ELSEWHERE):
            raise RequestError("The request has no `input`.", param="input", code="missing_required_parameter")
        return request

    def view(self, request: ApiRequest, prompt_from: PromptFrom) -> PromptView:
        value = request.fields.get("input")
        return PromptView(None) if value is None else read_input(value, prompt_from)

    def translator(self, request: ApiRequest, formats: frozenset[Format]) -> Translator:
        if "chat" not in formats:
            raise RequestError(
                f"The chosen model takes {', '.join(sorted(formats))} requests only, not responses.", code="unsupported_api"
            )
        return _ToChat(request)

    def error_event(self, error: bytes) -> bytes:
        told = _decode_error(error)["error"]
        event = {"type": "error", **{name: told[name] for name in ("code", "message", "param")}, "error": told}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


class _ToChat(Translator):
    path = "/chat/completions"

    def __init__(self, request: ApiRequest) -> None:
        self._asked = translate_request(request.fields)
        self._model = request.model

    @cached_property
    def _stream(self) -> ResponseStream:
        return ResponseStream(self._asked, self._model)

    def body_for(self, model: str) -> bytes:
        self._model = model
        try:
            return msgspec.json.encode({"model": model, **self._asked.chat})
        except RecursionError:
            raise RequestError("The request is nested too deeply.") from None

    def reply(self, body: bytes) -> bytes:
        return msgspec.json.encode(whole_response(body, self._asked, self._model))

    def error(self, status: int, body: bytes) -> bytes:
        try:
            if isinstance(_decode_error(body).get("error"), dict):
                return body  # the two APIs have one form for errors
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        said = body.decode("utf-8", "replace").strip() or "nothing more"
        return error_body(f"The model answered with the status {status}: {said}", "upstream_error", None, None)

    def feed(self, chunk: bytes) -> bytes:
        return self._stream.feed(chunk)

    def end(self) -> bytes:
        return self._stream.end()

    def error_event(self, error: bytes) -> bytes:
        return self._stream.failed(_decode_error(error)["error"])
