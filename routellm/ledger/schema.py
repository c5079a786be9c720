"""The ledger's tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, SmallInteger, String, Table, Text

HEAD = "0002"
"""The revision of the newest migration."""

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    # Who wrote the row, and its number among those of that writer: a row that is sent again is known by them.
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", String(128), nullable=False),
    Column("at", BigInteger, nullable=False),  # microseconds of Unix time
    Column("key", String(128)),
    Column("api", String(32), nullable=False),
    Column("asked", String(256), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("error", String(64)),
    Column("model", String(256)),
    Column("role", String(8)),  # "strong" or "weak": what the model was in the pair of that time
    Column("reason", String(32)),
    Column("router", String(128)),
    Column("threshold", Float(53)),
    Column("win_rate", Float(53)),
    Column("decision_us", Float(53), nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("own_ms", Float(53), nullable=False),
    Column("upstream_ms", Float(53), nullable=False),
    Column("first_byte_ms", Float(53)),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_input_tokens", BigInteger),
    Column("estimated", Boolean),
    Column("nanodollars", BigInteger),  # None: not known
    Column("strong_nanodollars", BigInteger),  # what as many tokens of the strong model would have cost
    Column("weak_nanodollars", BigInteger),
    Column("prompt", Text),
    Index("ix_requests_at", "at"),
)
"""One row a request."""

# Indexes that hold only what they serve: a row of neither kind costs nothing to keep up.
_of_key = requests.c.key.is_not(None)
Index("ix_requests_key_at", requests.c.key, requests.c.at, sqlite_where=_of_key, postgresql_where=_of_key)
_kept = requests.c.prompt.is_not(None)
Index("ix_requests_prompt_at", requests.c.at, sqlite_where=_kept, postgresql_where=_kept)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("created", BigInteger, nullable=False),  # seconds of Unix time, as all of the following
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("hash", String(64), nullable=False),
    Column("previous_hash", String(64)),
    Column("previous_until", BigInteger),
    Column("policy", Text, nullable=False),  # JSON
    Column("version", BigInteger, nullable=False),  # another random number after each change
)
"""One row a virtual key."""

spent = Table(
    "spent",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("window_start", BigInteger, primary_key=True, autoincrement=False),  # seconds of Unix time
    Column("kind", String(16), primary_key=True),
    Column("amount", BigInteger, nullable=False),
)
"""What a key took of each of its limits in a minute, a day or a month: requests, tokens, or nano-dollars."""
