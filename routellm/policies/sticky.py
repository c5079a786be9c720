"""Conversations that stay with their model, so that the provider's cache of what was said before goes on saving money.

The first request of a conversation is decided by the threshold alone. After that it changes its model only where the win rate
lies beyond the threshold by a margin. See `docs/stickiness.md` for what that does to real conversations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from routellm.policies.conversation import NAMED_BY, conversation_of
from routellm.policies.table import ConversationTable
from routellm.types import Decision, ModelPair

MAX_ENTRIES = 1 << 24
MAX_TTL_SECONDS = 7 * 24 * 3600

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class StickySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a conversation stays with its model.

    Attributes:
        by: what names a conversation: "header", "user" (the body's `conversation`, `prompt_cache_key`, `metadata.user_id`,
            `safety_identifier` or `user`, the first there is) or "start" (the system prompt and the first user message). None
            switches stickiness off.
        header: the header's name.
        margin: how far beyond the threshold the win rate must lie for the model to change, from 0 to 1.
        margin_up, margin_down: the same for a change to the strong and to the weak model alone; None takes `margin`.
        ttl_seconds: a conversation that was quiet for so long is new, as it is to the provider's cache.
        entries: how many conversations are remembered, 8 bytes each; rounded up to a power of two. Fixed at the start.
    """

    by: str | None = None
    header: str = "x-routellm-conversation"
    margin: float = 0.02
    margin_up: float | None = None
    margin_down: float | None = None
    ttl_seconds: int = 3600
    entries: int = 65_536

    def __post_init__(self) -> None:
        if self.by is not None and self.by not in NAMED_BY:
            raise ValueError(f"by is {self.by!r}; it must be one of: {', '.join(NAMED_BY)}; or null, which switches it off")
        if not _HEADER.fullmatch(self.header):
            raise ValueError(f"header is {self.header!r}; it must be a header's name, such as x-routellm-conversation")
        for name in ("margin", "margin_up", "margin_down"):
            margin = getattr(self, name)
            if margin is not None and not 0.0 <= margin <= 1.0:
                raise ValueError(f"{name} is {margin!r}; it must lie from 0 to 1")
        for name, most in (("ttl_seconds", MAX_TTL_SECONDS), ("entries", MAX_ENTRIES)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must lie from 1 to {most:,}")


class Sticky:
    """Settles decisions by what their conversations were with before.

    Args:
        settings: with a `by`.
        table: shared with the other workers, and kept when the settings change.
    """

    def __init__(self, settings: StickySettings, table: ConversationTable) -> None:
        assert settings.by is not None, "stickiness is off"
        self._by, self._table, self._ttl = settings.by, table, settings.ttl_seconds
        self._header = settings.header.lower().encode("ascii")
        self._up = settings.margin if settings.margin_up is None else settings.margin_up
        self._down = settings.margin if settings.margin_down is None else settings.margin_down

    def key(
        self, headers: Iterable[tuple[bytes, bytes]], fields: Mapping[str, msgspec.Raw], router: str, client: str | None
    ) -> bytes | None:
        """The conversation's name, apart for each router and each client; None where the request names none.

        Args:
            headers: the request's, names in lower case.
            fields: the body's, each as JSON.
            client: the id of the client's key, where keys are in use.
        """
        conversation = conversation_of(self._by, self._header, headers, fields)
        if conversation is None:
            return None
        owner = f"{router}\0{client or ''}".encode()
        return b"%d %b%b" % (len(owner), owner, conversation)

    def settle(self, key: bytes | None, decided: Decision, pair: ModelPair, *, remember: bool = True) -> Decision:
        """The decision with the conversation's model, and the reason "sticky", where the win rate is within the margin.

        What was not decided by a threshold stays as it is. At a threshold of 0, which asks for the strong model always, no
        conversation stays with the weak one.

        Args:
            key: see `key`; None changes nothing.
            remember: False leaves no trace, for a decision without a call.
        """
        win_rate, threshold = decided.win_rate, decided.threshold
        if key is None or decided.reason != "threshold" or win_rate is None or threshold is None:
            return decided
        digest = self._table.digest(key)
        place, held = self._table.find(digest, self._ttl)
        strong = wins = decided.model == pair.strong
        if held is not None and held != wins:
            crosses = win_rate >= threshold + self._up or threshold <= 0.0 if wins else win_rate <= threshold - self._down
            strong = wins if crosses else held
        if remember:
            self._table.put(digest, place, strong=strong)
        if strong == wins:
            return decided
        model = pair.strong if strong else pair.weak
        return Decision(model, "sticky", decided.router, threshold, win_rate, decided.decision_us)
