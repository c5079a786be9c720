"""The admin API: keys made, listed, rotated and revoked over HTTP, by whoever has the admin key.

    POST   /admin/keys              {"name": ..., "policy": {...}, "expires": ...} -> the key, its text among its fields
    GET    /admin/keys              all keys
    GET    /admin/keys/ID           one
    POST   /admin/keys/ID/rotate    {"overlap_seconds": ...} -> the key, with its new text
    POST   /admin/keys/ID/revoke

The admin key is no key of the table, and opens nothing else; a client's key opens nothing here. A key's text is in the two
replies that say so, and nowhere else ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from hashlib import sha256
from hmac import compare_digest
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from routellm.errors import ConfigError, InvalidKeyError, LedgerError
from routellm.keys.guard import Guard
from routellm.keys.policy import KeyPolicy
from routellm.keys.secret import PREFIX
from routellm.keys.store import Key
from routellm.keys.views import as_dict
from routellm.messages import decode_json
from routellm.serving.request import read_body

logger = logging.getLogger("routellm.serving")

ADMIN_KEY = "ROUTELLM_ADMIN_KEY"
"""The environment variable that has the admin key. Without it there is no admin API."""

_SHORTEST = 32
_MAX_BODY_BYTES = 64 * 1024
_DAY = 86_400


class _Create(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    policy: KeyPolicy = msgspec.field(default_factory=KeyPolicy)
    expires: datetime | None = None


class _Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    overlap_seconds: int = _DAY


_decode_create = msgspec.json.Decoder(_Create).decode
_decode_rotate = msgspec.json.Decoder(_Rotate).decode

_Handler = Callable[[Request], Awaitable[Response]]


def admin_routes(guard: Guard | None, environ: Mapping[str, str]) -> list[Route]:
    """The routes, to be mounted beside the others; none without an admin key, or without keys at all.

    Raises:
        ConfigError: the admin key is too short to hold, or is a client's.
    """
    admin_key = environ.get(ADMIN_KEY, "")
    if not admin_key or guard is None:
        return []
    if len(admin_key) < _SHORTEST or admin_key.startswith(PREFIX):
        raise ConfigError(
            f"{ADMIN_KEY} must have {_SHORTEST} characters or more, and not begin with {PREFIX}, as clients' keys do. Make "
            f"one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    admin = Admin(guard, admin_key)
    return [
        Route("/admin/keys", admin.create, methods=["POST"]),
        Route("/admin/keys", admin.list, methods=["GET"]),
        Route("/admin/keys/{id}", admin.get, methods=["GET"]),
        Route("/admin/keys/{id}/rotate", admin.rotate, methods=["POST"]),
        Route("/admin/keys/{id}/revoke", admin.revoke, methods=["POST"]),
    ]


def _for_the_admin(
    handler: Callable[[Admin, Request], Awaitable[Response]],
) -> Callable[[Admin, Request], Awaitable[Response]]:
    @wraps(handler)
    async def checked(self: Admin, request: Request) -> Response:
        self.check(request)
        return await handler(self, request)

    return checked


class Admin:
    """One method a route. They raise; the application's handler of errors renders."""

    def __init__(self, guard: Guard, admin_key: str) -> None:
        self._guard, self._store = guard, guard.store
        self._hash = sha256(admin_key.encode()).digest()

    def check(self, request: Request) -> None:
        """Whether the request has the admin key.

        Raises:
            InvalidKeyError: it has not.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        hashed = sha256(given.strip().encode("latin-1")).digest()  # of one length, whatever was given
        if not compare_digest(hashed, self._hash) or scheme.lower() != "bearer":
            raise InvalidKeyError(f"This takes the admin key, as `Authorization: Bearer ...`: what {ADMIN_KEY} was set to.")

    @_for_the_admin
    async def create(self, request: Request) -> Response:
        """POST /admin/keys."""
        asked = decode_json(_decode_create, await _body(request), "The request's body does not describe a key", None)
        expires = None if asked.expires is None else int(_in_utc(asked.expires).timestamp())
        key, text = await asyncio.to_thread(self._store.create, asked.name, asked.policy, expires)
        return await self._changed(key, "created", text)

    @_for_the_admin
    async def list(self, request: Request) -> Response:
        """GET /admin/keys."""
        now = time.time()
        return _json({"object": "list", "data": [as_dict(key, now) for key in await asyncio.to_thread(self._store.all)]})

    @_for_the_admin
    async def get(self, request: Request) -> Response:
        """GET /admin/keys/ID."""
        return _json(as_dict(await asyncio.to_thread(self._store.get, request.path_params["id"]), time.time()))

    @_for_the_admin
    async def rotate(self, request: Request) -> Response:
        """POST /admin/keys/ID/rotate; without a body the old secret stays good for a day."""
        asked = decode_json(_decode_rotate, await _body(request) or b"{}", "The request's body can't be read", None)
        key, text = await asyncio.to_thread(self._store.rotate, request.path_params["id"], asked.overlap_seconds)
        return await self._changed(key, "rotated", text)

    @_for_the_admin
    async def revoke(self, request: Request) -> Response:
        """POST /admin/keys/ID/revoke."""
        return await self._changed(await asyncio.to_thread(self._store.revoke, request.path_params["id"]), "revoked")

    async def _changed(self, key: Key, how: str, text: str | None = None) -> Response:
        """The reply, once this process knows the key as it is now."""
        with suppress(LedgerError):  # the change is made all the same, and taken up as soon as the database answers again
            await asyncio.to_thread(self._guard.refresh)
        logger.info("the key %s was %s by the admin API", key.id, how)
        shown = {} if text is None else {"key": text}
        return _json({**as_dict(key, time.time()), **shown}, 201 if how == "created" else 200)


async def _body(request: Request) -> bytes:
    return await read_body(request.scope, request.receive, _MAX_BODY_BYTES)


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _json(value: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
