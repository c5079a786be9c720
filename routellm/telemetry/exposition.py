"""The sums of all workers as text for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import routellm
from routellm.errors import MissingExtraError
from routellm.telemetry.cells import Row
from routellm.telemetry.families import FAMILIES, Family

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Sums = Mapping[Row, Sequence[float]]


def expose(sums: Sums, accept: str = "") -> tuple[str, bytes]:
    """Content type and body, in OpenMetrics or the classic format, whichever the `Accept` header asks for.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """
    try:
        from prometheus_client.exposition import choose_encoder
    except ImportError as error:
        raise MissingExtraError("GET /metrics", "serve") from error

    encode, content_type = choose_encoder(accept)
    return content_type, encode(_Collector(sums))


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import InfoMetricFamily

        yield InfoMetricFamily("routellm_build", "The version that runs.", {"version": routellm.__version__})
        by_family: dict[str, dict[tuple[str, ...], Sequence[float]]] = {}
        for (name, labels), values in self._sums.items():
            by_family.setdefault(name, {})[labels] = values
        for name, family in FAMILIES.items():
            if name in by_family:
                yield _metric(family, by_family[name])


def _metric(family: Family, rows: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [*(repr(bound) for bound in family.bounds), "+Inf"]
        for labels, values in sorted(rows.items()):
            counts = accumulate(values[:-1])
            histogram.add_metric(labels, list(zip(bounds, counts, strict=True)), sum_value=values[-1])
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, values in sorted(rows.items()):
        metric.add_metric(labels, values[0])
    return metric
