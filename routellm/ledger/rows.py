"""From what a server knows of a finished request to a row of the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from routellm.costs import PriceList
from routellm.types import ModelPair, RequestRecord, Usage

Row: TypeAlias = tuple[Any, ...]
"""Values in the order of the table's columns."""

Redact: TypeAlias = Callable[[str], str | None]
"""What is to be kept of a prompt; None: nothing."""

_MOST = 2**62  # below the largest that a column takes
_LONGEST_TIME = 253_402_300_799_999_999  # the last microsecond of the year 9999


@dataclass(frozen=True, slots=True)
class Terms:
    """What rows are made by: the pair of models and the prices in force when their requests came."""

    pair: ModelPair
    prices: PriceList


def make_row(writer: int, number: int, record: RequestRecord, terms: Terms, redact: Redact) -> Row:
    """The row of one request. `record.prompt` is what `redact` is asked about; the other texts are cut to their columns."""
    usage = record.usage
    if usage is None:
        tokens: Row = (None, None, None, None)
    else:
        tokens = (*map(_count, (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)), usage.estimated)
    role, *prices = _role_and_prices(record.model, usage, terms)
    return (
        *(writer, number, _storable(record.request_id[:128]), _microseconds(record.at)),
        *(_name(record.key, 128), _name(record.api, 32), _name(record.asked, 256), record.outcome),
        *(min(max(record.status, 0), 32_767), _name(record.error, 64), _name(record.model, 256), role),
        *(record.reason, _name(record.router, 128), record.threshold, record.win_rate, record.decision_us),
        *(record.streamed, record.attempts, record.own_ms, record.upstream_ms, record.first_byte_ms),
        *tokens,
        *prices,
        None if record.prompt is None else _storable(redact(record.prompt)),
    )


def _role_and_prices(model: str | None, usage: Usage | None, terms: Terms) -> tuple[str | None, *tuple[int | None, ...]]:
    """What the model was in the pair; what the tokens cost, and would have cost with the strong and with the weak model."""
    strong, weak = (_price(terms.prices, name, usage) for name in (terms.pair.strong, terms.pair.weak))
    if model == terms.pair.strong:
        return "strong", strong, strong, weak
    if model == terms.pair.weak:
        return "weak", weak, strong, weak
    return None, _price(terms.prices, model, usage), strong, weak


def _price(prices: PriceList, model: str | None, usage: Usage | None) -> int | None:
    price = prices.nanodollars(model, usage)
    return None if price is None else _count(price)


def _name(value: str | None, length: int) -> str | None:
    """What fits a column; a client may have sent anything."""
    return None if value is None else _storable_name(value[:length])


def _storable(text: str | None) -> str | None:
    """Without what no database takes: NUL, which PostgreSQL refuses, and halves of surrogate pairs, which no UTF-8 holds."""
    if text is None or text.isascii():
        return text if text is None or "\0" not in text else text.replace("\0", "\ufffd")
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


_storable_name = lru_cache(maxsize=4096)(_storable)  # of names there are few


def _count(number: int) -> int:
    return min(max(number, -_MOST), _MOST)


def _microseconds(seconds: float) -> int:
    return min(max(round(seconds * 1e6), 0), _LONGEST_TIME) if math.isfinite(seconds) else 0
