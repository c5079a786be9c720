"""Results as rows: for the console, for CSV and JSON, and for the report, all from one place."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from routellm.evals.costs import CallCosts, cost_saving_ratio
from routellm.evals.runner import TARGETS, BenchmarkResult, RouterResult
from routellm.metrics.bootstrap import Interval
from routellm.metrics.curves import apgr


@dataclass(frozen=True, slots=True)
class Saving:
    """What routing to a quality costs.

    Attributes:
        ratio: the paper's cost-saving ratio: strong calls of a random router over this one's.
        dollars: for a thousand calls; `always_strong` for as many without routing. None where prices are unknown.
    """

    ratio: float
    dollars: float | None
    always_strong: float | None


def saving(result: BenchmarkResult, router: RouterResult, target: float, costs: CallCosts | None) -> Saving:
    """What `router` saves at CPT(target); a random router's CPT is `target` itself, in expectation."""
    share = router.cpt[target].value
    ratio = cost_saving_ratio(target, share)
    if costs is None or math.isnan(share):
        return Saving(ratio, None, None)
    dollars = sum(costs.of_share(run, share) for run in router.scores) / len(router.scores)
    return Saving(ratio, 1000 * dollars, 1000 * float(costs.strong.mean()))


def as_record(result: BenchmarkResult, costs: CallCosts | None) -> dict[str, Any]:
    """Everything of a result, as JSON-able values; NaN becomes None."""
    return {
        "benchmark": result.name,
        "prompts": len(result.data),
        "data_sha256": result.data.sha256,
        "left_out": dict(result.data.dropped),
        "strong_model": result.pair.strong,
        "weak_model": result.pair.weak,
        "strong_quality": float(result.outcomes.strong.mean()),
        "weak_quality": float(result.outcomes.weak.mean()),
        "oracle_apgr": _number(apgr(result.oracle)),
        "costs": None if costs is None else {"estimated_by": costs.estimated},
        "routers": [_router_record(result, router, costs) for router in result.routers],
        "comparisons": [
            {"better": each.better, "other": each.other, "apgr_difference": _interval(each.difference)}
            for each in result.comparisons
        ],
    }


def metric_rows(result: BenchmarkResult, costs: CallCosts | None) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a flat table, one row a router, for CSV."""
    rows = []
    for router in result.routers:
        row: dict[str, Any] = {"benchmark": result.name, "router": router.name, "prompts": len(result.data)}
        named = {"apgr": router.apgr, **{f"cpt{level(t)}": router.cpt[t] for t in TARGETS}, "auc": router.auc}
        for name, interval in named.items():
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row |= {"apgr_published": router.published.apgr, "auc_published": router.published.auc}
        row |= {f"cpt{level(t)}_published": router.published.cpt[t] for t in TARGETS}
        for target in TARGETS:
            row[f"cost_saving_ratio_{level(target)}"] = saving(result, router, target, costs).ratio
        rows.append(row)
    header = list(rows[0]) if rows else []
    return header, [list(row.values()) for row in rows]


def curve_rows(result: BenchmarkResult) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of every router's curve, one row a point, for CSV."""
    header = ["benchmark", "router", "strong_share", "quality", "quality_low", "quality_high"]
    rows: list[list[Any]] = []
    for router in result.routers:
        points = zip(router.curve.share, router.curve.quality, *router.band, strict=True)
        rows += [[result.name, router.name, *map(float, point)] for point in points]
    return header, rows


def level(target: float) -> int:
    """0.5 -> 50."""
    return round(100 * target)


def plain(value: float, digits: int = 3) -> str:
    """`.524`, without the zero before the point; `1.285` and `nan` as they are."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def shown(interval: Interval, digits: int = 3, scale: float = 1.0) -> str:
    """`.524 [.501, .547]`."""
    value, low, high = (plain(scale * end, digits) for end in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]" if "nan" not in (low, high) else value


def _router_record(result: BenchmarkResult, router: RouterResult, costs: CallCosts | None) -> dict[str, Any]:
    savings = {level(target): saving(result, router, target, costs) for target in TARGETS}
    return {
        "router": router.name,
        "runs": len(router.scores),
        "apgr": _interval(router.apgr),
        "auc": _interval(router.auc),
        **{f"cpt{level(target)}": _interval(router.cpt[target]) for target in TARGETS},
        "published_protocol": {
            "apgr": _number(router.published.apgr),
            "auc": _number(router.published.auc),
            **{f"cpt{level(target)}": _number(router.published.cpt[target]) for target in TARGETS},
        },
        "savings": {
            f"cpt{percent}": {
                "cost_saving_ratio": _number(each.ratio),
                "dollars_per_1000_calls": each.dollars,
                "always_strong_dollars_per_1000_calls": each.always_strong,
            }
            for percent, each in savings.items()
        },
        "groups": {
            grouping: {label: {"apgr": _number(value), "prompts": count} for label, (value, count) in labels.items()}
            for grouping, labels in router.groups.items()
        },
    }


def _interval(interval: Interval) -> Mapping[str, float | None]:
    return {"value": _number(interval.value), "low": _number(interval.low), "high": _number(interval.high)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def as_columns(tables: Sequence[tuple[list[str], list[list[Any]]]]) -> dict[str, list[Any]]:
    """Tables of one header, joined, as columns: the form that `routellm.tables.write_table` takes."""
    header = tables[0][0]
    rows = [row for _, body in tables for row in body]
    return {name: [row[position] for row in rows] for position, name in enumerate(header)}


def as_csv(tables: Sequence[tuple[list[str], list[list[Any]]]]) -> str:
    """Tables of one header, joined, as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(tables[0][0])
    writer.writerows(row for _, body in tables for row in body)
    return text.getvalue()
