"""The table of requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table and its indexes."""
    op.create_table(
        "requests",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("key", sa.String(128)),
        sa.Column("api", sa.String(32), nullable=False),
        sa.Column("asked", sa.String(256), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("error", sa.String(64)),
        sa.Column("model", sa.String(256)),
        sa.Column("role", sa.String(8)),
        sa.Column("reason", sa.String(32)),
        sa.Column("router", sa.String(128)),
        sa.Column("threshold", sa.Float(53)),
        sa.Column("win_rate", sa.Float(53)),
        sa.Column("decision_us", sa.Float(53), nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("own_ms", sa.Float(53), nullable=False),
        sa.Column("upstream_ms", sa.Float(53), nullable=False),
        sa.Column("first_byte_ms", sa.Float(53)),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_input_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean),
        sa.Column("nanodollars", sa.BigInteger),
        sa.Column("strong_nanodollars", sa.BigInteger),
        sa.Column("weak_nanodollars", sa.BigInteger),
        sa.Column("prompt", sa.Text),
    )
    op.create_index("ix_requests_at", "requests", ["at"])
    of_key = sa.text("key IS NOT NULL")
    op.create_index("ix_requests_key_at", "requests", ["key", "at"], sqlite_where=of_key, postgresql_where=of_key)
    kept = sa.text("prompt IS NOT NULL")
    op.create_index("ix_requests_prompt_at", "requests", ["at"], sqlite_where=kept, postgresql_where=kept)


def downgrade() -> None:
    """Drop it."""
    op.drop_table("requests")
