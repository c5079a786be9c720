"""What the configuration says of metrics and traces."""

from __future__ import annotations

import msgspec


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gateway: {telemetry: ...}`.

    Attributes:
        metrics: count requests, and tell Prometheus at `GET /metrics`.
        traces: a span for each request, sent as OpenTelemetry's environment variables (`OTEL_*`) say. Extra: otel.
    """

    metrics: bool = True
    traces: bool = False
