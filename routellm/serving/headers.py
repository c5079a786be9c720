"""Which headers go up to a model, which come back to the client, and those that tell what was decided."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from routellm.types import Decision

_count = itertools.count()
_READABLE = frozenset({"gzip", "deflate", "identity"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@~-]{1,128}")
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)
# The client's credentials are for this server; its address and cookies are no business of a model's provider.
_PRIVATE = frozenset(
    {b"authorization", b"proxy-authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"cookie"}
    | {b"forwarded", b"via", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port"}
)
_NOT_SENT_UP = _HOP_BY_HOP | _PRIVATE | {b"host", b"content-length", b"x-request-id"}
# A provider's cookies, and its rules for its own host, would apply to this host.
_NOT_SENT_BACK = frozenset({b"set-cookie", b"strict-transport-security", b"alt-svc", b"x-request-id"}) | {
    b"x-routellm-" + name for name in (b"model", b"reason", b"decision-us", b"router", b"threshold", b"win-rate")
}


def request_id_of(given: bytes | None) -> str:
    """The client's `x-request-id` where it is up to 128 plain characters (letters, digits, `._:/+=@~-`), else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req-%s%08x" % (_process_id(), next(_count))  # noqa: UP031 - half of what `format` takes


def headers_for_upstream(fields: Mapping[bytes, bytes], request_id: str) -> dict[str, str]:
    """The client's end-to-end headers, without its credentials; names in lower case."""
    kept = {"content-type": "application/json"}
    for name, value in fields.items():
        if name not in _NOT_SENT_UP:
            kept[name.decode(errors="replace")] = value.decode(errors="replace")
    if (connection := fields.get(b"connection", b"keep-alive")) != b"keep-alive":
        for named in connection.decode(errors="replace").split(","):
            kept.pop(named.strip().lower(), None)
    kept["x-request-id"] = request_id
    return kept


def keep_readable(headers: dict[str, str]) -> None:
    """Of the encodings that a client offers to take, offer the upstream only those in which its tokens can be read."""
    offered = headers.get("accept-encoding")
    if offered is not None and offered != "identity":
        kept = [name for part in offered.split(",") if (name := part.strip()).partition(";")[0].lower() in _READABLE]
        headers["accept-encoding"] = ", ".join(kept) or "identity"


def headers_for_client(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """`fields`, which are an upstream's headers, with only what goes back; its own `x-request-id` is passed on as
    `x-upstream-request-id`."""
    request_id = fields.get(b"x-request-id")
    for name in _NOT_SENT_BACK.intersection(fields):
        del fields[name]
    if request_id is not None:
        fields[b"x-upstream-request-id"] = request_id
    return fields


def decision_headers(decision: Decision) -> dict[bytes, bytes]:
    """`x-routellm-*`. Those about a score are left out where no router was asked.

    Names are UTF-8, percent-encoded outside of visible ASCII, so that a model of any name fits into a header.
    """
    headers = _headers_of_choice(decision.model, decision.reason, decision.router, decision.threshold).copy()
    headers[b"x-routellm-decision-us"] = b"%.0f" % decision.decision_us
    if decision.win_rate is not None:
        headers[b"x-routellm-win-rate"] = b"%.6f" % decision.win_rate
    return headers


@lru_cache(maxsize=256)
def _headers_of_choice(model: str, reason: str, router: str | None, threshold: float | None) -> dict[bytes, bytes]:
    """Those that many requests have alike; not to be changed."""
    headers = {b"x-routellm-model": _safe(model), b"x-routellm-reason": reason.encode("ascii")}
    if router is not None:
        headers[b"x-routellm-router"] = _safe(router)
    if threshold is not None:
        headers[b"x-routellm-threshold"] = b"%.6g" % threshold
    return headers


def _safe(name: str) -> bytes:
    return quote(name, safe="!#$&'()*+,/:;=?@[]^`{|}", errors="replace").encode("ascii")


@lru_cache(maxsize=1)
def _process_id() -> str:
    return secrets.token_hex(8)
