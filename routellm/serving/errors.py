"""The one place that turns an error into what a client of OpenAI's API understands."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from routellm.errors import (
    EmbeddingError,
    InvalidKeyError,
    MissingExtraError,
    MissingKeyError,
    OverloadedError,
    RateLimitError,
    RequestError,
    UpstreamError,
    UpstreamUnavailableError,
    did_you_mean,
)

if TYPE_CHECKING:
    pass

logger = logging.getLogger("routellm.serving")

RawHeaders = list[tuple[bytes, bytes]]

# The official clients retry 5xx answers unless this header says otherwise; here a second try can't help.
_NO_RETRY = (b"x-should-retry", b"false")


class UnknownPathError(RequestError):
    """Nothing is served at this path."""

    status = 404

    def __init__(self, method: str, path: str, served: Iterable[str]) -> None:
        paths = list(served)
        near = f"/v1{path}"
        hint = f" (did you mean {near!r}? a client's base_url ends in /v1)" if near in paths else did_you_mean(path, paths)
        super().__init__(f"Nothing is served at {method} {path}{hint}. Served: {', '.join(paths)}.", code="unknown_path")


class MethodNotAllowedError(RequestError):
    """The path is served, but not for this method. `allow` is the value of the `Allow` header."""

    status = 405

    def __init__(self, method: str, path: str, allow: str) -> None:
        self.allow = allow
        super().__init__(f"{path} does not take {method}; it takes {allow}.", code="method_not_allowed")


class ErrorReply(NamedTuple):
    """An error as it goes over the wire."""

    status: int
    headers: RawHeaders
    body: bytes


def render_error(error: Exception, request_id: str) -> ErrorReply:
    """The reply for `error`. What nobody foresaw is logged here, and told to the client by its request id only."""
    extra: RawHeaders = []
    param: str | None = None
    message = str(error)
    match error:
        case RequestError():
            status, kind, code, param = error.status, error.type, error.code, error.param
            if isinstance(error, MethodNotAllowedError):
                extra = [(b"allow", error.allow.encode("latin-1"))]
            elif isinstance(error, InvalidKeyError):
                extra = [(b"www-authenticate", b"Bearer")]
            elif isinstance(error, RateLimitError):
                extra = [_NO_RETRY if error.retry_after is None else (b"retry-after", b"%d" % error.retry_after)]
        case MissingKeyError():  # 401, which clients don't retry and show as a matter of keys
            status, kind, code = 401, "authentication_error", "missing_upstream_key"
        case MissingExtraError():
            status, kind, code, extra = 500, "server_error", "missing_extra", [_NO_RETRY]
        case UpstreamError():
            status, kind, code = error.status, "upstream_error", error.code
            if isinstance(error, UpstreamUnavailableError):
                extra = [(b"retry-after", b"%d" % max(1, ceil(error.retry_after)))]
        case OverloadedError():
            status, kind, code = error.status, "server_error", error.code
            extra = [(b"retry-after", b"%d" % error.retry_after)]
        case EmbeddingError():
            status, kind, code = 502, "upstream_error", "embedding_failed"
        case _:
            logger.error("%s failed", request_id, exc_info=error)
            status, kind, code, extra = 500, "server_error", "internal_error", [_NO_RETRY]
            message = f"The server failed on this request. Its log says why, under the request id {request_id}."
    body = error_body(message, kind, param, code)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *extra]
    return ErrorReply(status, headers, body)


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error object as JSON. Lone surrogates, which a message may quote, become `?`."""
    printable = message.encode("utf-8", "replace").decode()
    return msgspec.json.encode({"error": {"message": printable, "type": kind, "param": param, "code": code}})
