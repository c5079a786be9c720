"""Errors in Anthropic's form: this server's own, those of an endpoint that speaks OpenAI's, and what ends a broken stream."""

from __future__ import annotations

from typing import Any

import msgspec

from routellm.serving.errors import ErrorReply

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TYPES_BY_CODE = {"upstream_timeout": "timeout_error", "upstream_unavailable": "overloaded_error"}
_LONGEST_TEXT = 2_000
"""Characters; of an error page that is no JSON, more would tell nobody more."""


def error_type(status: int) -> str:
    """The type that Anthropic's API gives an error of this status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def own_error(reply: ErrorReply, request_id: str) -> ErrorReply:
    """An error of this server in Anthropic's form; what OpenAI calls `code` stands in `details.error_code`."""
    error = msgspec.json.decode(reply.body)["error"]
    details = {"error_code": error["code"], "param": error["param"]}
    told = {"type": error_type(reply.status), "message": error["message"], "details": details}
    body = msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})
    kept = [header for header in reply.headers if header[0] != b"content-length"]
    length = (b"content-length", b"%d" % len(body))
    return ErrorReply(reply.status, [*kept, length, (b"request-id", request_id.encode("ascii"))], body)


def upstream_error(status: int, body: bytes) -> bytes:
    """An error reply of an endpoint that speaks OpenAI's form, or any other; its message goes over."""
    message = _message_in(body) or f"The model answered with the status {status} and no message."
    return msgspec.json.encode({"type": "error", "error": {"type": error_type(status), "message": message}})


def error_event(error: bytes) -> bytes:
    """The event that ends a stream; `error` is OpenAI's error object as JSON."""
    fields = msgspec.json.decode(error)["error"]
    told = {"type": _TYPES_BY_CODE.get(fields["code"], "api_error"), "message": fields["message"]}
    return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": told}) + b"\n\n"


def _message_in(body: bytes) -> str:
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace").strip()[:_LONGEST_TEXT]
    if isinstance(told, dict) and told.get("error"):
        told = told["error"]
    if isinstance(told, dict):
        told = next((told[name] for name in ("message", "detail") if told.get(name)), told)
    text = told if isinstance(told, str) else msgspec.json.encode(told).decode()
    return text[:_LONGEST_TEXT]
