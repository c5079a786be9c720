"""The table of keys: making, rotating, revoking and reading them. Blocks; nothing here is for an event loop."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import msgspec
from sqlalchemy import Engine, Row, func, insert, select, update

from routellm.errors import KeyNotFoundError, LedgerError, RequestError
from routellm.keys.policy import KeyPolicy
from routellm.keys.secret import hash_of, key_text, new_id, new_secret
from routellm.ledger.database import open_engine, told
from routellm.ledger.migrate import upgrade
from routellm.ledger.schema import keys

logger = logging.getLogger("routellm.keys")

State: TypeAlias = Literal["active", "expired", "revoked"]
Version: TypeAlias = tuple[int, int]
"""Differs where any key does."""

_LONGEST_NAME = 128
_LATEST = 253_402_300_799  # the last second that dates can be written for
LONGEST_OVERLAP = 90 * 86_400
"""Seconds for which an old secret may stay good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept. Times are whole seconds of Unix time.

    Attributes:
        id: the public part of its text.
        name: what people call it; need not be unique.
        hash, previous_hash: of its secret, and of the one before, which is good until `previous_until`.
        expires: from when on it is refused; None: never.
        revoked: when it was; None: it is not.
    """

    id: str
    name: str
    created: int
    policy: KeyPolicy
    hash: bytes = field(repr=False)
    previous_hash: bytes | None = field(default=None, repr=False)
    previous_until: int | None = None
    expires: int | None = None
    revoked: int | None = None

    def state(self, now: float) -> State:
        """At a time of Unix seconds."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "active"


class KeyStore:
    """The keys in a database. All methods raise LedgerError where it can't be reached."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> KeyStore:
        """The keys in the ledger's database at `url`, whose tables are made or brought up to date.

        Raises:
            ConfigError: `url` is wrong, or an SQLite file can't be made there.
            MissingExtraError: PostgreSQL's driver is not installed.
            LedgerError: it can't be reached, or is of a newer version of this package.
        """
        store = cls(open_engine(url, writes=True))
        try:
            with told(store.engine, "opened"):
                upgrade(store.engine)
        except LedgerError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def create(self, name: str, policy: KeyPolicy, expires: int | None = None) -> tuple[Key, str]:
        """A new key, and its text, which is nowhere kept and can't be had again.

        Raises:
            RequestError: the name or the time is not allowed.
        """
        now = int(time.time())
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise RequestError(
                f"The key's name is {name[:_LONGEST_NAME]!r}; it must have 1 to {_LONGEST_NAME} printable characters.",
                param="name",
                code="invalid_name",
            )
        if expires is not None and not now < expires <= _LATEST:
            raise RequestError("`expires` must be a time that is yet to come.", param="expires", code="invalid_expires")
        secret = new_secret()
        key = Key(id=new_id(), name=name, created=now, policy=policy, hash=hash_of(secret.encode()), expires=expires)
        with told(self.engine, "written"), self.engine.begin() as connection:
            connection.execute(insert(keys).values(**_values(key)))
        return key, key_text(key.id, secret)

    def rotate(self, id: str, overlap_seconds: int) -> tuple[Key, str]:
        """A new secret for the key, and its text. The one in force until now stays good for `overlap_seconds`; one before
        that is good no more.

        Raises:
            KeyNotFoundError: there is no such key.
            RequestError: it is revoked or expired, or the overlap is not allowed.
        """
        if not 0 <= overlap_seconds <= LONGEST_OVERLAP:
            raise RequestError(
                f"The overlap is {overlap_seconds} seconds; it must be from 0 to {LONGEST_OVERLAP} (90 days).",
                param="overlap_seconds",
                code="invalid_overlap",
            )
        now = int(time.time())
        secret = new_secret()
        with told(self.engine, "written"), self.engine.begin() as connection:
            key = _key(connection.execute(select(keys).where(keys.c.id == id).with_for_update()).one_or_none(), id)
            if key.state(now) != "active":
                raise RequestError(
                    f"The key {id!r} is {key.state(now)}; only an active one can be rotated. Create another.",
                    code="key_not_active",
                )
            key = replace(key, hash=hash_of(secret.encode()), previous_hash=key.hash, previous_until=now + overlap_seconds)
            connection.execute(update(keys).where(keys.c.id == id).values(**_values(key)))
        return key, key_text(id, secret)

    def revoke(self, id: str) -> Key:
        """Refuse the key from now on; one that is revoked stays as it is.

        Raises:
            KeyNotFoundError: there is no such key.
        """
        with told(self.engine, "written"), self.engine.begin() as connection:
            key = _key(connection.execute(select(keys).where(keys.c.id == id).with_for_update()).one_or_none(), id)
            if key.revoked is None:
                key = replace(key, revoked=int(time.time()))
                connection.execute(update(keys).where(keys.c.id == id).values(**_values(key)))
        return key

    def get(self, id: str) -> Key:
        """One key.

        Raises:
            KeyNotFoundError: there is no such key.
        """
        with told(self.engine, "read"), self.engine.begin() as connection:
            return _key(connection.execute(select(keys).where(keys.c.id == id)).one_or_none(), id)

    def all(self) -> list[Key]:
        """Every key, revoked ones too, in the order of their making. One whose row is broken is left out, and logged."""
        with told(self.engine, "read"), self.engine.begin() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created, keys.c.id)).all()
        found = []
        for row in rows:
            try:
                found.append(_key(row, row.id))
            except LedgerError as error:
                logger.error("%s", error)
        return found

    def version(self) -> Version:
        """See `Version`. Cheap."""
        with told(self.engine, "read"), self.engine.begin() as connection:
            count, total = connection.execute(select(func.count(), func.sum(keys.c.version))).one()
        return int(count), int(total or 0)


def _values(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "hash": key.hash.hex(),
        "previous_hash": None if key.previous_hash is None else key.previous_hash.hex(),
        "previous_until": key.previous_until,
        "policy": msgspec.json.encode(key.policy).decode(),
        "version": secrets.randbits(40),  # the sum over all keys tells whether any has changed, whatever the clocks say
    }


def _key(row: Row[Any] | None, id: str) -> Key:
    if row is None:
        raise KeyNotFoundError(id)
    try:
        policy = msgspec.json.decode(row.policy, type=KeyPolicy)
        hashes = [None if text is None else bytes.fromhex(text) for text in (row.hash, row.previous_hash)]
    except (msgspec.MsgspecError, ValueError) as error:
        raise LedgerError(f"The key {id!r} can't be read from the database: {error}") from None
    assert hashes[0] is not None
    return Key(
        id=row.id,
        name=row.name,
        created=row.created,
        policy=policy,
        hash=hashes[0],
        previous_hash=hashes[1],
        previous_until=row.previous_until,
        expires=row.expires,
        revoked=row.revoked,
    )
