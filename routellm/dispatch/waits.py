"""How long to wait before a failed request may be sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isnan

from routellm.dispatch.settings import RetrySettings


def retry_after(headers: Mapping[str, str], now: Callable[[], float]) -> float | None:
    """Seconds that a reply asks to wait, at least 0; None where it does not say, or not so that it can be read.

    `retry-after-ms` comes first, as with the official clients; then `retry-after`, as seconds or as a date. A date is compared
    with the reply's own `date`, so that the two machines' clocks need not agree.

    Args:
        headers: names in lower case.
        now: Unix time, asked where the reply has no date of its own.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return None if isnan(seconds) else max(0.0, seconds)
    until = _date(headers.get("retry-after"))
    if until is None:
        return None
    sent = _date(headers.get("date"))
    return max(0.0, until.timestamp() - (now() if sent is None else sent.timestamp()))


def backoff(retry: int, settings: RetrySettings, random: Callable[[], float]) -> float:
    """Seconds before the retry of this number, counted from 0: anything up to a bound that doubles ("full jitter")."""
    return random() * min(settings.longest_backoff_seconds, settings.first_backoff_seconds * 2.0**retry)


def _date(text: str | None) -> datetime | None:
    try:
        return None if text is None else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
