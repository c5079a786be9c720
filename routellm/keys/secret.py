"""A key's text, `rlk-ID-SECRET`: its making, its reading, and the hash that is kept of it.

The id is public, and stands in logs and in the ledger. The secret is 32 random bytes. What is kept of it is one SHA-256: slow
hashes protect what people choose, which can be guessed from a stolen hash, and nobody guesses 256 random bits, however fast.
"""

from __future__ import annotations

import re
import secrets
import string
from hashlib import sha256

PREFIX = "rlk-"
_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 12
_SECRET_BYTES = 32
_KEY = re.compile(rb"rlk-([a-z0-9]{12})-([A-Za-z0-9_-]{43})")


def new_id() -> str:
    """12 lower-case letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))


def new_secret() -> str:
    """43 characters that may stand in a URL."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def key_text(id: str, secret: str) -> str:
    """What its holder sends."""
    return f"{PREFIX}{id}-{secret}"


def split(text: bytes) -> tuple[str, bytes]:
    """The id and the secret in a key's text; both empty where it has another form."""
    found = _KEY.fullmatch(text)
    return (found[1].decode("ascii"), found[2]) if found else ("", b"")


def hash_of(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return sha256(secret).digest()
