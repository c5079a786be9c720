"""The keys in memory, and who a request comes from."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from routellm.keys.limits import Limits
from routellm.keys.policy import KeyPolicy
from routellm.keys.secret import hash_of, split
from routellm.keys.store import Key
from routellm.types import Decision


@dataclass(frozen=True, slots=True)
class Client:
    """Whoever sent a request.

    Attributes:
        id: the key's public part, for the ledger and the log; None without a key.
        name: what the key is called.
    """

    id: str | None
    name: str
    policy: KeyPolicy = field(default_factory=KeyPolicy)
    limits: Limits = field(default_factory=lambda: Limits("", "", {}))

    @property
    def limited(self) -> bool:
        """Whether anything is counted; only then there is something to take."""
        return bool(self.limits.of)

    def check(self, decision: Decision) -> None:
        """See `KeyPolicy.check`."""
        self.policy.check(decision)


ANONYMOUS = Client(None, "")
"""A client without a key, where none is required."""


class Keyring:
    """All keys, by id. `replace` may be called from another thread: what is in force changes in one step."""

    def __init__(self) -> None:
        nobody = Key(id="", name="", created=0, policy=KeyPolicy(), hash=secrets.token_bytes(32), revoked=0)
        self._nobody = (nobody, ANONYMOUS)
        self._entries: dict[str, tuple[Key, Client]] | None = None

    @property
    def size(self) -> int | None:
        """How many there are, revoked ones too; None before they were first read."""
        return None if self._entries is None else len(self._entries)

    def replace(self, keys: Sequence[Key]) -> None:
        """Put these in force, and no others."""
        self._entries = {
            key.id: (key, Client(key.id, key.name, key.policy, Limits.made(key.id, key.name, key.policy))) for key in keys
        }

    def find(self, text: bytes, now: float) -> Client | None:
        """Whose key `text` is, at a time of Unix seconds; None where it is nobody's, or not good at that time.

        Takes the same steps whatever is wrong with it, so that the time it takes tells nothing.
        """
        id, secret = split(text)
        key, client = (self._entries or {}).get(id, self._nobody)
        hashed = hash_of(secret)
        is_current = compare_digest(hashed, key.hash)
        is_previous = compare_digest(hashed, key.previous_hash or self._nobody[0].hash)
        is_good = is_current | (is_previous & (now < (key.previous_until or 0)))
        return client if is_good & (key.state(now) == "active") else None
