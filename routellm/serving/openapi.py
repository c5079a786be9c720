"""The server's OpenAPI document: what it serves, and the fields that it looks at; further ones pass through to the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import routellm
from routellm.serving.apis.base import Api
from routellm.upstream.base import Format

_TEXT = {"type": "string"}
_PART = {"type": "object", "properties": {"type": _TEXT, "text": _TEXT}, "required": ["type"]}
_CONTENT = {"anyOf": [_TEXT, {"type": "array", "items": _PART}]}


def _messages(*roles: str) -> dict[str, Any]:
    message = {
        "type": "object",
        "properties": {"role": {"enum": list(roles)}, "content": _CONTENT},
        "required": ["role", "content"],
    }
    return {"type": "array", "minItems": 1, "items": message}


_INPUT = {"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": [_TEXT, {"type": "integer"}]}}]}
_BODIES: dict[Format, dict[str, Any]] = {
    "chat": {"messages": _messages("system", "user", "assistant"), "stream": {"type": "boolean"}},
    "messages": {
        "messages": _messages("user", "assistant"),
        "max_tokens": {"type": "integer", "minimum": 1},
        "system": _CONTENT,
    },
    "responses": {"input": {"anyOf": [_TEXT, _messages("system", "user", "assistant")]}, "instructions": _TEXT},
    "completions": {"prompt": _INPUT},
    "embeddings": {"input": _INPUT},
}
_NOT_REQUIRED = {"stream", "system", "instructions"}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": {}, "code": {}},
        }
    },
}
_DECISION = {
    "type": "object",
    "required": ["object", "model", "reason", "router", "threshold", "win_rate", "decision_us"],
    "properties": {
        "object": {"const": "route.decision"},
        "model": _TEXT,
        "reason": _TEXT,
        "router": {"type": ["string", "null"]},
        "threshold": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "win_rate": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "decision_us": {"type": "number", "minimum": 0},
    },
}
_SERVED = {"type": "object", "required": ["id", "object"], "properties": {"id": _TEXT, "object": {"const": "model"}}}
_LIST = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _SERVED}},
}


def document(apis: Sequence[Api], routers: Iterable[str], served: Iterable[str]) -> dict[str, Any]:
    """The document, of OpenAPI 3.1.

    Args:
        apis: in which requests are routed.
        routers: the names that may stand in `router-NAME-THRESHOLD`.
        served: every other name that a request's `model` may be.
    """
    model = _model(routers, served)
    sent = _any("The chosen model's reply.")
    paths: dict[str, Any] = {
        api.path: {"post": _operation(f"Routed and sent on: {api.format}.", sent, _body(api, model))} for api in apis
    }
    chat = next(api for api in apis if api.format == "chat")
    name = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
    paths |= {
        "/v1/route": {
            "post": _operation(
                "The decision alone; no model is called.", _json("The decision.", _DECISION), _body(chat, model)
            )
        },
        "/v1/models": {"get": _operation("Every name that a request's model may be.", _json("The names.", _LIST))},
        "/v1/models/{name}": {
            "get": _operation("One of them.", _json("The model.", _SERVED)) | {"parameters": [name]},
        },
        **{
            path: {"get": _operation("Whether the server is up.", _any("It is."))}
            for path in ("/health", "/health/live", "/health/ready")
        },
    }
    about = {"title": "routellm", "version": routellm.__version__}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": {"schemas": {"Error": _ERROR}}}


def _model(routers: Iterable[str], served: Iterable[str]) -> dict[str, Any]:
    named = "|".join(re.escape(name) for name in routers)
    with_threshold = {"type": "string", "pattern": rf"^router-({named})-(0(\.[0-9]{{1,5}})?|1)$"}
    return {
        "description": "a router, with or without a threshold, or a model",
        "anyOf": [{"enum": list(served)}, with_threshold],
    }


def _body(api: Api, model: dict[str, Any]) -> dict[str, Any]:
    fields = _BODIES[api.format]
    schema = {
        "type": "object",
        "properties": {"model": model, **fields},
        "required": ["model", *(name for name in fields if name not in _NOT_REQUIRED)],
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, reply: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    refused = _json("What is wrong, and what to do.", {"$ref": "#/components/schemas/Error"})
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": reply, "4XX": refused, "5XX": refused}}
    return operation if body is None else {**operation, "requestBody": body}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _any(description: str) -> dict[str, Any]:
    return {"description": description}
