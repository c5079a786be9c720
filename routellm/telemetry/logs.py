"""What the server logs, as text for people or as JSON for machines.

A finished request is one line, with its decision and never its text:

    logger.info(RequestLine(record))

Any other line of the server can be given `extra={"request_id": ...}`, which the JSON shows.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from routellm.types import RequestRecord

LogFormat: TypeAlias = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(message)s"


class RequestLine:
    """A finished request as a logger's message. `str` gives the text, `fields` what the JSON has."""

    __slots__ = ("_record",)

    def __init__(self, record: RequestRecord) -> None:
        self._record = record

    def __str__(self) -> str:
        record = self._record
        took = record.own_ms + record.upstream_ms
        parts = [f"{record.request_id} {record.api}: {record.status} {record.outcome} in {took:.1f} ms"]
        if record.reason is not None:
            parts.append(f"model={record.model!r} reason={record.reason}")
        if record.router is not None:
            parts.append(f"router={record.router} threshold={record.threshold} win_rate={record.win_rate}")
            parts.append(f"decision={record.decision_us:.0f} us")
        if record.error is not None:
            parts.append(f"error={record.error}")
        return f"{parts[0]}; {' '.join(parts[1:])}" if parts[1:] else parts[0]

    def fields(self) -> dict[str, Any]:
        """What is known of the request, without what isn't and without its prompt."""
        record = self._record
        known = {name: getattr(record, name) for name in _FIELDS}
        fields = {name: value for name, value in known.items() if value is not None}
        if record.usage is not None:
            usage = record.usage
            fields |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
            fields |= {"cached_input_tokens": usage.cached_input_tokens, "tokens_estimated": usage.estimated}
        if record.key is not None:
            fields["key_id"] = record.key
        return fields


_FIELDS = (
    *("request_id", "api", "asked", "outcome", "status", "model", "reason", "router", "threshold", "win_rate"),
    *("decision_us", "error", "streamed", "attempts", "own_ms", "upstream_ms", "first_byte_ms"),
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `message`, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end. Never raises for what a message holds."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if isinstance(record.msg, RequestLine):
            line |= {"message": "request", **record.msg.fields()}
        else:
            line["message"] = record.getMessage()
            request_id = getattr(record, "request_id", None)
            if request_id is not None:
                line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def formatter_for(log_format: LogFormat) -> logging.Formatter:
    """The formatter of the server's log."""
    return JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT)
