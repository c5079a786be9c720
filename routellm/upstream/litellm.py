"""Providers that do not speak OpenAI's protocol, through LiteLLM (extra `providers`), which is imported at the first call.

Slower than the fast path by far, and only `/chat/completions` is served. A request's fields are OpenAI's, and a few that
several providers share: LiteLLM takes its own settings, such as another base URL for the same key, from the same place as
a request's fields, so nothing else that a client sends may reach it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from functools import cache
from importlib import metadata
from typing import Any

import msgspec

from routellm.errors import (
    ConfigError,
    MissingExtraError,
    RequestError,
    UpstreamBrokeOffError,
    UpstreamError,
    UpstreamTimeoutError,
    did_you_mean,
)
from routellm.messages import decode_json
from routellm.upstream.base import ModelSpec, UpstreamReply
from routellm.upstream.local import AsyncReply, BlockingReply, LocalUpstream, once
from routellm.upstream.providers import LITELLM_PROVIDERS, PROVIDERS

COMPROMISED = frozenset({"1.82.7", "1.82.8", "1.107.0"})
"""Uploads of LiteLLM that were tampered with to steal credentials (1.107.0: by report). The registry has withdrawn them all;
a mirror or a cache may still hold them."""

_SHARED_FIELDS = frozenset({"stream", "thinking", "top_k"})
_decode_request = msgspec.json.Decoder(dict[str, Any]).decode
_JSON = {"content-type": "application/json"}
_SSE = {"content-type": "text/event-stream; charset=utf-8"}


class LiteLLMUpstream(LocalUpstream):
    """A model that LiteLLM reaches: `azure/NAME`, `bedrock/NAME`, `litellm/any/NAME`, ....

    Credentials other than the spec's key are LiteLLM's own business: it looks for each provider's in the environment.
    """

    def __init__(self, spec: ModelSpec, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._name = spec.name
        self.model = spec.name.removeprefix("litellm/")
        self._secret = spec.api_key
        self._settings = {
            "model": self.model,
            "api_base": spec.api_base,
            "api_key": spec.api_key,
            "timeout": spec.timeouts.until_first_byte,
            "num_retries": 0,
            "max_retries": 0,
        }

    def check(self) -> None:
        """Raise MissingExtraError without LiteLLM, and ConfigError where LiteLLM knows no such provider."""
        library = load_litellm(self._name)
        try:
            library.get_llm_provider(model=self.model, api_base=self._settings["api_base"])
        except library.exceptions.BadRequestError as error:
            prefix = self.model.partition("/")[0]
            raise ConfigError(
                f"The model {self._name!r} names the provider {prefix!r}, which neither routellm nor LiteLLM knows"
                f"{did_you_mean(prefix, [*PROVIDERS, *LITELLM_PROVIDERS])}."
            ) from error

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        library = await asyncio.to_thread(load_litellm, self._name)  # the first import takes seconds
        try:
            arguments = self._arguments(path, body)
            result = await library.acompletion(**arguments)
        except Exception as error:  # noqa: BLE001  -- what is no error of LiteLLM's is raised again in there
            status, kind, text = self._failed(error)
            return AsyncReply(status, kind, once(text))
        if arguments.get("stream"):
            return AsyncReply(200, _SSE, self._events(result), getattr(result, "aclose", None))
        return AsyncReply(200, _JSON, once(_dump(result)))

    def send_blocking(self, path: str, body: bytes) -> BlockingReply:
        library = load_litellm(self._name)
        try:
            arguments = self._arguments(path, body)
            result = library.completion(**arguments)
        except Exception as error:  # noqa: BLE001  -- what is no error of LiteLLM's is raised again in there
            status, kind, text = self._failed(error)
            return BlockingReply(status, kind, iter((text,)))
        if arguments.get("stream"):
            return BlockingReply(200, _SSE, self._events_blocking(result))
        return BlockingReply(200, _JSON, iter((_dump(result),)))

    def _arguments(self, path: str, body: bytes) -> dict[str, Any]:
        if path.partition("?")[0] != "/chat/completions":
            raise RequestError(f"Models of this provider are served at /chat/completions only, not {path}.", code="not_found")
        request = decode_json(_decode_request, body, "The request's body must be a JSON object", None)
        known = _known_fields()
        for name in request:
            if name not in known:
                raise RequestError(
                    f"The field {name!r} is not passed on to {self._name!r}{did_you_mean(name, known)}: it is no chat field "
                    f"of OpenAI's, and LiteLLM, through which this model is reached, would take it for a setting of its own.",
                    param=name,
                )
        return {**request, **self._settings}

    async def _events(self, stream: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in stream:
                yield b"data: " + _dump(chunk) + b"\n\n"
        except Exception as error:
            raise self._broken_off(error) from error
        yield b"data: [DONE]\n\n"

    def _events_blocking(self, stream: Iterator[Any]) -> Iterator[bytes]:
        try:
            for chunk in stream:
                yield b"data: " + _dump(chunk) + b"\n\n"
        except Exception as error:
            raise self._broken_off(error) from error
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
        yield b"data: [DONE]\n\n"

    def _failed(self, error: Exception) -> tuple[int, Mapping[str, str], bytes]:
        """An error of LiteLLM's, or of the request, as a reply.

        Raises:
            UpstreamError, UpstreamTimeoutError: it was no answer of the provider, but the want of one.
        """
        if isinstance(error, RequestError):
            return (
                (404 if error.code == "not_found" else error.status),
                _JSON,
                _error_body(str(error), error.type, error.param, error.code),
            )
        self._raise_if_unreachable(error, UpstreamError, "could not be reached")
        status: object = getattr(error, "status_code", None)
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise error
        body = _error_body(
            self._redact(str(error)), getattr(error, "type", None), getattr(error, "param", None), getattr(error, "code", None)
        )
        return status, {**_JSON, **_retry_headers(error)}, body

    def _broken_off(self, error: Exception) -> Exception:
        self._raise_if_unreachable(error, UpstreamBrokeOffError, "broke off its answer")
        if isinstance(getattr(error, "status_code", None), int):
            return UpstreamBrokeOffError(f"The model {self._name!r} broke off its answer: {self._redact(str(error))}")
        return error

    def _raise_if_unreachable(self, error: Exception, kind: type[UpstreamError], what: str) -> None:
        import openai  # LiteLLM's exceptions are subclasses of the official client's

        for cause in _chain(error):
            if isinstance(cause, openai.APITimeoutError):
                raise UpstreamTimeoutError(
                    f"The model {self._name!r} did not answer within {self._settings['timeout']:g} s."
                ) from error
            if isinstance(cause, openai.APIConnectionError):
                raise kind(f"The model {self._name!r} {what}: {self._redact(str(error))}") from error

    def _redact(self, message: str) -> str:
        return message.replace(self._secret, "***") if self._secret else message


def load_litellm(name: str) -> Any:
    """Import LiteLLM for the model called `name`.

    Raises:
        MissingExtraError: it is not installed.
        ConfigError: the installed version is a compromised one.
    """
    try:
        version = metadata.version("litellm")
    except metadata.PackageNotFoundError:
        version = None
    if version in COMPROMISED:
        raise ConfigError(
            f"LiteLLM {version} is installed, an upload that is known to steal credentials. Treat every key on this "
            f'machine as known to others, and run: pip install --upgrade "routellm[providers]"'
        )
    # Without this LiteLLM fetches a list of prices from the internet while it is imported; it looks nowhere else for it.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        library: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise MissingExtraError(f"The model {name!r} is reached through LiteLLM, which", "providers") from error
    library.suppress_debug_info = True  # it prints advice to standard output on every error
    library.telemetry = False
    return library


@cache
def _known_fields() -> frozenset[str]:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    return frozenset(CompletionCreateParamsBase.__annotations__) | _SHARED_FIELDS


def _dump(result: Any) -> bytes:
    """JSON of a completion or a chunk; null only where OpenAI's API always has the field."""
    value = result.model_dump(mode="json", exclude_none=True)
    for choice in value.get("choices", ()):
        choice.setdefault("finish_reason", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return msgspec.json.encode(value)


def _error_body(message: str, kind: object, param: object, code: object) -> bytes:
    fields = {"type": kind or "upstream_error", "param": param, "code": code}
    texts = {name: None if value is None else str(value) for name, value in fields.items()}
    return msgspec.json.encode({"error": {"message": message, **texts}})


def _retry_headers(error: Exception) -> dict[str, str]:
    found: dict[str, str] = {}
    # Which of the two holds the provider's own headers differs between versions of LiteLLM.
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        for name in ("retry-after", "retry-after-ms"):
            if headers is not None and name in headers:
                found.setdefault(name, str(headers[name]))
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
