"""Every query of the dashboard and of the alerts asks for metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from routellm.telemetry.families import FAMILIES
from routellm.types import Outcome, Reason
from tests.conftest import require
from tests.deploy.tools import DEPLOY, load

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "routellm.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
FROM_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus gives every metric."""

LABELS = {
    **{family.name: set(family.labels) for family in FAMILIES.values() if family.kind != "histogram"},
    **{
        f"{family.name}_{end}": set(family.labels) for family in FAMILIES.values() for end in ("sum", "count") if family.bounds
    },
    **{f"{family.name}_bucket": {*family.labels, "le"} for family in FAMILIES.values() if family.bounds},
    "routellm_build_info": {"version"},
    "up": set(),
}
VALUES = {
    "outcome": get_args(Outcome),
    "reason": get_args(Reason),
    "role": ("strong", "weak", "spare"),
    "state": ("closed", "open"),
}


def queries() -> list[tuple[str, str]]:
    """Title and query of all panels and alerts, Grafana's variables replaced as Grafana does it."""
    found = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    found += [(rule["alert"], rule["expr"]) for group in load("alerts.yml")["groups"] for rule in group["rules"]]
    variables = {"$__rate_interval": "1m", "$__range": "6h", "$instance": ".*"}
    return [(title, re.sub(r"\$\w+", lambda name: variables[name[0]], query)) for title, query in found]


def selectors(expression: Any) -> Iterator[Any]:
    """Every selector of series below an expression."""
    if hasattr(expression, "matchers"):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if getattr(expression, name, None) is not None:
            yield from selectors(getattr(expression, name))
    for argument in getattr(expression, "args", ()):
        yield from selectors(argument)


def groupings(expression: Any) -> Iterator[tuple[Any, set[str]]]:
    """Every aggregation by labels below an expression, with the labels."""
    if getattr(expression, "modifier", None) is not None and hasattr(expression, "expr"):
        yield expression.expr, set(expression.modifier.labels)
    for name in ("expr", "lhs", "rhs"):
        if getattr(expression, name, None) is not None:
            yield from groupings(getattr(expression, name))
    for argument in getattr(expression, "args", ()):
        yield from groupings(argument)


def faults(query: str) -> list[str]:
    """What a query asks for that there is not."""
    parsed = require("promql_parser").parse(query)
    found = []
    for selector in selectors(parsed):
        known = LABELS.get(selector.name)
        if known is None:
            found.append(f"no metric {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in known | FROM_PROMETHEUS:
                found.append(f"{selector.name} has no label {matcher.name}")
            elif matcher.name in VALUES and not set(matcher.value.split("|")) <= set(VALUES[matcher.name]):
                found.append(f"{matcher.name} is never {matcher.value}")
    for below, labels in groupings(parsed):
        for selector in selectors(below):
            missing = labels - LABELS.get(selector.name, set()) - FROM_PROMETHEUS
            found += [f"{selector.name} has no label {label}" for label in sorted(missing)]
    return found


@pytest.mark.parametrize(("title", "query"), queries(), ids=[title for title, _ in queries()])
def test_a_query_asks_for_what_there_is(title: str, query: str) -> None:
    assert faults(query) == []


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("rate(routellm_request_total[5m])", "no metric routellm_request_total"),
        ("sum(rate(routellm_win_rate[5m]))", "no metric routellm_win_rate"),
        ('routellm_requests_total{status="200"}', "routellm_requests_total has no label status"),
        ("sum by (model) (rate(routellm_win_rate_bucket[5m]))", "routellm_win_rate_bucket has no label model"),
        ('1 + 2 * sum(routellm_decisions_total{reason="whim"})', "reason is never whim"),
    ],
)
def test_a_query_that_asks_for_more_is_caught(query: str, fault: str) -> None:
    assert faults(query) == [fault]


def test_every_metric_is_shown_somewhere() -> None:
    shown = " ".join(query for _, query in queries())
    assert [name for name in FAMILIES if name not in shown] == []


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)


def test_legends_name_labels_that_their_query_keeps() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            kept = set(re.findall(r"by \(([\w, ]+)\)", target["expr"])[-1].split(", ")) if "by (" in target["expr"] else set()
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]
