"""Both kinds of database, as for the ledger, whose tables the keys share."""

from __future__ import annotations

from tests.ledger.conftest import postgres, postgres_url, sqlite_url, url

__all__ = ["postgres", "postgres_url", "sqlite_url", "url"]
