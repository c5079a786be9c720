"""What is counted of a request, as Prometheus' own parser reads it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from routellm.errors import MissingExtraError
from routellm.telemetry.exposition import expose
from routellm.telemetry.families import FAMILIES, Family
from routellm.telemetry.metrics import Gauges, KeyCounts, Metrics
from routellm.types import Usage
from tests.conftest import hide
from tests.telemetry.records import ROLES, ROUTERS, metrics, record, refused


def samples(of: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Name and labels -> value, for every sample that is told."""
    content_type, body = of.render()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(of: Metrics, name: str, **labels: str) -> float | None:
    return samples(of).get((name, frozenset(labels.items())))


def test_a_request_is_counted_once_everywhere() -> None:
    counted = metrics()
    counted.observe(record(), dollars=0.25, strong_dollars=0.5)
    request = {"api": "chat", "model": "openai/big", "code": "200", "outcome": "answered"}
    assert value(counted, "routellm_requests_total", **request) == 1
    decision = {"router": "mf", "model": "openai/big", "role": "strong", "reason": "threshold"}
    assert value(counted, "routellm_decisions_total", **decision) == 1
    assert value(counted, "routellm_cost_dollars_total", model="openai/big") == 0.25
    assert value(counted, "routellm_strong_cost_dollars_total") == 0.5
    assert value(counted, "routellm_upstream_calls_total", model="openai/big") == 1
    assert value(counted, "routellm_upstream_retries_total", model="openai/big") == 0


def test_kinds_of_tokens_add_up_to_all_tokens() -> None:
    counted = metrics()
    counted.observe(record(usage=Usage(input_tokens=10, output_tokens=20, cached_input_tokens=4)))
    counted.observe(record(usage=None))
    kinds = {kind: value(counted, "routellm_tokens_total", model="openai/big", kind=kind) for kind in ("input", "output")}
    assert kinds == {"input": 6, "output": 20}
    assert value(counted, "routellm_tokens_total", model="openai/big", kind="cached_input") == 4


@pytest.mark.parametrize(
    ("name", "labels", "total"),
    [
        ("routellm_win_rate", {"router": "mf"}, 0.62),
        ("routellm_decision_seconds", {"router": "mf"}, 120e-6),
        ("routellm_overhead_seconds", {"api": "chat"}, 0.4e-3),
        ("routellm_upstream_seconds", {"model": "openai/big"}, 0.8),
        ("routellm_request_seconds", {"api": "chat"}, 0.8004),
        ("routellm_first_byte_seconds", {"model": "openai/big"}, 0.3),
    ],
)
def test_a_histogram_puts_a_value_into_its_bucket_and_all_above(name: str, labels: dict[str, str], total: float) -> None:
    counted = metrics()
    counted.observe(record())
    told = samples(counted)
    buckets = {
        float(dict(found)["le"]): count
        for (sample, found), count in told.items()
        if sample == f"{name}_bucket" and labels.items() <= dict(found).items()
    }
    assert set(buckets) == {*FAMILIES[name].bounds, math.inf}
    assert {bound: count for bound, count in buckets.items() if count} == {bound: 1 for bound in buckets if bound >= total}
    assert told[f"{name}_count", frozenset(labels.items())] == 1
    assert told[f"{name}_sum", frozenset(labels.items())] == pytest.approx(total)


def test_a_value_on_a_bound_belongs_below_it() -> None:
    counted = metrics()
    counted.observe(record(win_rate=0.5))
    assert value(counted, "routellm_win_rate_bucket", router="mf", le="0.5") == 1
    assert value(counted, "routellm_win_rate_bucket", router="mf", le="0.45") == 0


def test_a_refused_request_has_no_model_and_no_decision() -> None:
    counted = metrics()
    counted.observe(refused())
    request = {"api": "chat", "model": "none", "code": "404", "outcome": "refused"}
    assert value(counted, "routellm_requests_total", **request) == 1
    assert value(counted, "routellm_errors_total", error="model_not_found") == 1
    names = {name for name, _ in samples(counted)}
    assert names & {"routellm_decisions_total", "routellm_win_rate_count", "routellm_upstream_calls_total"} == set()


def test_retries_are_calls_beyond_the_first() -> None:
    counted = metrics()
    for attempts in (1, 3, 0):
        counted.observe(record(attempts=attempts))
    assert value(counted, "routellm_upstream_calls_total", model="openai/big") == 4
    assert value(counted, "routellm_upstream_retries_total", model="openai/big") == 2
    assert value(counted, "routellm_upstream_seconds_count", model="openai/big") == 2


def test_a_price_that_is_not_known_is_no_price_of_zero() -> None:
    counted = metrics()
    counted.observe(record())
    assert not any("dollars" in name for name, _ in samples(counted))


def test_what_a_client_wrote_is_never_a_label() -> None:
    counted = metrics()
    counted.observe(refused(asked="planted-name", request_id="planted-id", key="planted-key", prompt="planted-prompt"))
    counted.observe(record(asked="planted-name", model="planted-model", router="planted-router"))
    _, body = counted.render()
    assert b"planted" not in body
    assert value(counted, "routellm_requests_total", api="chat", model="other", code="200", outcome="answered") == 1


def test_labels_stay_few_whatever_comes() -> None:
    counted = metrics()
    for number in range(6000):
        counted.observe(record(status=100 + number % 900, error=f"error-{number}", model=f"model-{number}"))
    told = samples(counted)
    assert len([name for name, _ in told if name == "routellm_errors_total"]) == 65
    assert value(counted, "routellm_errors_total", error="other") == 6000 - 64
    codes = {dict(labels)["code"] for name, labels in told if name == "routellm_requests_total"}
    assert {"200", "429", "499", "529", "5xx", "9xx"} <= codes
    assert len(codes) < 80
    assert sum(count for (name, _), count in told.items() if name == "routellm_requests_total") == 6000


def test_a_changed_configuration_brings_other_models() -> None:
    counted = metrics()
    counted.observe(record(), dollars=1.0)
    counted.serve({"openai/new": "strong"}, ["gain_fast"])
    counted.observe(record(model="openai/new", router="gain_fast"), dollars=2.0)
    counted.observe(record(), dollars=4.0)
    assert value(counted, "routellm_cost_dollars_total", model="openai/big") == 1.0
    assert value(counted, "routellm_cost_dollars_total", model="openai/new") == 2.0
    assert value(counted, "routellm_cost_dollars_total", model="other") == 4.0
    assert value(counted, "routellm_win_rate_count", router="gain_fast") == 1


def test_gauges_tell_the_present_state() -> None:
    counted = metrics()
    endpoint = ("openai/big", "https://one.example/v1")
    counted.publish(Gauges(in_flight=3, queues={"score": 2}, breakers={endpoint: "open"}, ledger_buffered=7, ledger_dropped=5))
    breaker = {"model": "openai/big", "endpoint": "https://one.example/v1"}
    assert value(counted, "routellm_requests_in_flight") == 3
    assert value(counted, "routellm_queue_depth", queue="score") == 2
    assert value(counted, "routellm_breaker_state", **breaker, state="open") == 1
    assert value(counted, "routellm_ledger_buffered_records") == 7
    assert value(counted, "routellm_ledger_dropped_records_total") == 5
    assert value(counted, "routellm_workers") == 1

    counted.publish(Gauges(in_flight=0, breakers={endpoint: "closed"}, ledger_buffered=0, ledger_dropped=6))
    assert value(counted, "routellm_requests_in_flight") == 0
    assert value(counted, "routellm_queue_depth", queue="score") == 0
    assert value(counted, "routellm_breaker_state", **breaker, state="open") == 0
    assert value(counted, "routellm_breaker_state", **breaker, state="closed") == 1
    assert value(counted, "routellm_ledger_dropped_records_total") == 6


def test_what_keys_refused_is_counted_on() -> None:
    counted = metrics()
    counted.publish(Gauges(keys=KeyCounts(unauthorized=5, over_limit=4, over_budget=3, unchecked=2, lost=1)))
    counted.publish(Gauges(keys=KeyCounts(unauthorized=6, over_limit=4, over_budget=3, unchecked=2, lost=1)))
    refused = {
        why: value(counted, "routellm_keys_refused_total", why=why) for why in ("unauthorized", "over_limit", "over_budget")
    }
    assert refused == {"unauthorized": 6, "over_limit": 4, "over_budget": 3}
    assert value(counted, "routellm_keys_unchecked_total") == 2
    assert value(counted, "routellm_keys_lost_settlements_total") == 1


def test_an_endpoint_is_told_without_its_credentials() -> None:
    counted = metrics()
    counted.publish(Gauges(breakers={("openai/big", "https://user:planted@one.example/v1?key=planted"): "open"}))
    _, body = counted.render()
    assert b"planted" not in body
    assert b'endpoint="https://one.example/v1"' in body


@pytest.mark.parametrize("name", ['quo"ted\\\n', "名前/模型", "bad\udcffbytes"])
def test_a_model_of_any_name_can_be_told(name: str) -> None:
    counted = Metrics({name: "strong"}, ROUTERS)
    counted.observe(record(model=name))
    told = name.encode("utf-8", "replace").decode()
    assert value(counted, "routellm_upstream_calls_total", model=told) == 1


def full() -> Metrics:
    """Everything there is, at least once."""
    counted = metrics()
    counted.observe(record(), dollars=0.1, strong_dollars=0.2)
    counted.observe(refused())
    breakers = {("openai/big", "https://one.example/v1"): "open", ("openai/small", "https://two.example/v1"): "half-open"}
    counted.publish(
        Gauges(
            in_flight=1,
            queues={"score": 1},
            breakers=breakers,
            ledger_buffered=1,
            ledger_dropped=1,
            keys=KeyCounts(unauthorized=1, over_limit=1, over_budget=1, unchecked=1, lost=1),
        )
    )
    return counted


def test_all_that_is_declared_is_told_as_declared() -> None:
    _, body = full().render()
    told = {family.name: family for family in text_string_to_metric_families(body.decode())}
    for name, family in FAMILIES.items():
        found = told.pop(name.removesuffix("_total"))
        assert (found.type, found.documentation) == (family.kind, family.help)
        for sample in found.samples:
            assert set(sample.labels) - {"le"} == set(family.labels)
    assert list(told) == ["routellm_build_info"]


def test_open_metrics_where_it_is_asked_for() -> None:
    content_type, body = full().render("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    told = {family.name for family in parse_openmetrics(body.decode())}
    assert told == {name.removesuffix("_total") for name in FAMILIES} | {"routellm_build"}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_names_follow_the_conventions(family: Family) -> None:
    assert family.name.startswith("routellm_")
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert not any(unit in family.name for unit in ("_ms", "milli", "micro", "_us_"))
    assert list(family.bounds) == sorted(set(family.bounds))
    assert family.help.endswith(".")


def test_without_the_library_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("prometheus_client", monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install .*routellm\[serve\]"):
        expose({}, "")


def test_counting_takes_every_record_that_a_server_can_make() -> None:
    counted = Metrics(ROLES, ())
    kinds: list[dict[str, Any]] = [
        {"outcome": "client-gone", "status": 499, "first_byte_ms": None},
        {"outcome": "broken-off", "error": "upstream_broke_off"},
        {"reason": "pinned", "router": None, "threshold": None, "win_rate": None},
        {"reason": "budget", "win_rate": None},
        {"api": "embeddings", "usage": Usage(input_tokens=3, output_tokens=0, estimated=True)},
    ]
    for kind in kinds:
        counted.observe(record(**kind))
    assert sum(count for (name, _), count in samples(counted).items() if name == "routellm_requests_total") == len(kinds)


def test_the_documentation_lists_them_all() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "telemetry.md").read_text(encoding="utf-8")
    rows = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page.splitlines() if line.startswith("|")}
    for family in FAMILIES.values():
        assert (f"`{family.name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), family.help) in rows
