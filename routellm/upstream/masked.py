"""Error replies that repeat the key that they refuse, as some endpoints' do, without it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from routellm.upstream.base import UpstreamReply

_SHORTEST = 12
"""Characters. Shorter keys are words such as `EMPTY`, which servers at home are given, and stand in other text too."""


def without_key(reply: UpstreamReply, key: str | None) -> UpstreamReply:
    """`reply` with an asterisk for each character of `key` in its headers and, unless it is compressed, in its body."""
    if key is None or len(key) < _SHORTEST:
        return reply
    return _MaskedReply(reply, key)


class _MaskedReply(UpstreamReply):
    def __init__(self, reply: UpstreamReply, key: str) -> None:
        self._reply = reply
        self._key, self._stars = key.encode(), b"*" * len(key)
        self.status = reply.status
        self.headers = {name: value.replace(key, "*" * len(key)) for name, value in reply.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        held = b""  # what may be the beginning of a key
        async for chunk in self._reply.chunks():
            seen = (held + chunk).replace(self._key, self._stars)
            whole = max(len(seen) - len(self._key) + 1, 0)
            held = seen[whole:]
            if whole:
                yield seen[:whole]
        if held:
            yield held

    async def aclose(self) -> None:
        await self._reply.aclose()
