"""Records, ledgers and what is in them."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import select

from routellm.costs import PriceList, own_price
from routellm.ledger.ledger import Ledger
from routellm.ledger.migrate import open_reader
from routellm.ledger.rows import Terms
from routellm.ledger.schema import requests
from routellm.ledger.settings import LedgerSettings
from routellm.types import ModelPair, RequestRecord, Usage

STRONG, WEAK = "openai/big", "openai/small"
PRICES = PriceList({STRONG: own_price(2.5, 10.0, 1.25), WEAK: own_price(0.15, 0.6)})
TERMS = Terms(ModelPair(STRONG, WEAK), PRICES)
NOON = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC
PATIENCE = 20.0


def made(number: int = 0, **changes: Any) -> RequestRecord:
    """A finished request, routed to the weak model; `number` is in its id."""
    fields: dict[str, Any] = {
        "request_id": f"request-{number}",
        "at": NOON + number,
        "api": "chat",
        "asked": "router-mf-0.5",
        "outcome": "answered",
        "status": 200,
        "model": WEAK,
        "reason": "threshold",
        "router": "mf",
        "threshold": 0.5,
        "win_rate": 0.25,
        "decision_us": 100.0,
        "attempts": 1,
        "own_ms": 0.5,
        "upstream_ms": 20.0,
        "first_byte_ms": 12.5,
        "usage": Usage(input_tokens=1000, output_tokens=100),
    }
    return RequestRecord(**{**fields, **changes})


def opened(url: str, **settings: Any) -> Ledger:
    """A ledger that writes as soon as it can."""
    return Ledger.open(url, LedgerSettings(**{"batch_seconds": 0.01, **settings}), TERMS)


def write(url: str, *records: RequestRecord, **settings: Any) -> None:
    """Write records and close."""
    ledger = opened(url, **settings)
    for record in records:
        ledger.record(record)
    ledger.close()
    assert ledger.status().buffered == 0


def stored(url: str) -> list[dict[str, Any]]:
    """All rows, in the order in which they were written."""
    engine = open_reader(url)
    with engine.connect() as connection:
        rows = connection.execute(select(requests).order_by(requests.c.writer, requests.c.number)).mappings().all()
    engine.dispose()
    return [dict(row) for row in rows]


def count(path: str) -> int:
    """How many rows an SQLite ledger holds, asked without this package."""
    with sqlite3.connect(path) as connection:
        number: int = connection.execute("SELECT count(*) FROM requests").fetchone()[0]
    connection.close()
    return number
