"""Spans, as OpenTelemetry's own exporters see them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import ConfigError, MissingExtraError
from routellm.serving.headers import headers_for_upstream
from routellm.telemetry.traces import Traces, open_traces, parent_of
from routellm.types import Usage
from tests.conftest import hide, require
from tests.live import Gate, LiveServer, Reply
from tests.telemetry.records import record, refused

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[Callable[..., Any]]:
    """Makes a request's span and returns it."""
    require("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))

    with closing(Traces(provider)) as traces:

        def make(*arguments: Any) -> Any:
            traces.observe(*arguments)
            return kept.get_finished_spans()[-1]

        yield make


def test_a_span_has_the_conventions_names_and_the_decision(spans: Callable[..., Any]) -> None:
    span = spans(record())
    assert span.name == "chat router-mf"
    assert span.kind.name == "SERVER"
    assert span.status.status_code.name == "UNSET"
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "router-mf-0.5",
        "gen_ai.request.stream": False,
        "gen_ai.response.model": "big",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "routellm.api": "chat",
        "routellm.request_id": "req-1",
        "routellm.outcome": "answered",
        "routellm.router": "mf",
        "routellm.threshold": 0.5,
        "routellm.win_rate": 0.62,
        "routellm.reason": "threshold",
        "routellm.decision_seconds": 120e-6,
        "routellm.overhead_seconds": 0.4e-3,
        "routellm.upstream_seconds": 0.8,
        "routellm.upstream_calls": 1,
        "routellm.usage.estimated": False,
    }


def test_the_conventions_know_these_names(spans: Callable[..., Any]) -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_") and isinstance(value, str)}
    used = set(spans(record(streamed=True)).attributes)
    assert {name for name in used if name.startswith("gen_ai.")} - known == set()


def test_a_span_has_the_requests_own_times(spans: Callable[..., Any]) -> None:
    span = spans(record(at=1_700_000_000.25, own_ms=0.5, upstream_ms=800.0))
    assert span.start_time == 1_700_000_000_250_000_000
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(0.8005, abs=1e-6)


def test_a_span_joins_the_clients_trace(spans: Callable[..., Any]) -> None:
    headers = [(b"accept", b"*/*"), (b"traceparent", PARENT.encode()), (b"tracestate", b"vendor=1")]
    span = spans(record(), parent_of(headers))
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.parent.is_remote
    assert span.context.trace_state["vendor"] == "1"


def test_the_clients_trace_goes_up_to_the_model() -> None:
    sent = headers_for_upstream({b"traceparent": PARENT.encode(), b"tracestate": b"vendor=1"}, "req-1")
    assert (sent["traceparent"], sent["tracestate"]) == (PARENT, "vendor=1")


@pytest.mark.parametrize("value", [b"", b"garbage", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"\xff" * 60])
def test_a_parent_that_can_not_be_read_is_none(spans: Callable[..., Any], value: bytes) -> None:
    assert spans(record(), parent_of([(b"traceparent", value)])).parent is None


@pytest.mark.parametrize(
    ("changes", "failed", "error"),
    [
        ({"status": 429}, False, "429"),
        ({"status": 502, "outcome": "failed", "error": "upstream_unreachable"}, True, "upstream_unreachable"),
        ({"outcome": "broken-off", "error": "upstream_broke_off"}, True, "upstream_broke_off"),
        ({"status": 499, "outcome": "client-gone"}, False, "499"),
        ({"status": 500}, True, "500"),
    ],
)
def test_an_error_is_of_a_type_and_fails_the_span_where_it_is_not_the_clients(
    spans: Callable[..., Any], changes: dict[str, Any], failed: bool, error: str
) -> None:
    span = spans(record(**changes))
    assert (span.status.status_code.name == "ERROR") == failed
    assert span.attributes["error.type"] == error


@pytest.mark.parametrize(
    ("api", "model", "operation", "provider", "name"),
    [
        ("messages", "claude-sonnet", "chat", "anthropic", "claude-sonnet"),
        ("responses", "gpt-4o", "chat", "openai", "gpt-4o"),
        ("embeddings", "mistral/mistral-embed", "embeddings", "mistral_ai", "mistral-embed"),
        ("completions", "hosted_vllm/org/model", "text_completion", "hosted_vllm", "org/model"),
        ("chat", "bedrock/anthropic.claude", "chat", "aws.bedrock", "anthropic.claude"),
        ("chat", "demo/strong", "chat", "demo", "strong"),
        ("chat", "org/model", "chat", "openai-compatible", "org/model"),
    ],
)
def test_operations_and_providers_go_by_the_conventions_names(
    spans: Callable[..., Any], api: str, model: str, operation: str, provider: str, name: str
) -> None:
    span = spans(record(api=api, model=model, router=None, win_rate=None, threshold=None, reason="pinned"))
    assert span.name == f"{operation} {model}"
    found = [span.attributes[f"gen_ai.{key}"] for key in ("operation.name", "provider.name", "response.model")]
    assert found == [operation, provider, name]


def test_a_refused_request_has_a_span_of_few_names(spans: Callable[..., Any]) -> None:
    span = spans(refused(asked="some-name-of-the-clients"))
    assert span.name == "chat"
    assert span.attributes["gen_ai.request.model"] == "some-name-of-the-clients"
    assert "gen_ai.response.model" not in span.attributes


def test_streams_tell_when_their_first_byte_came(spans: Callable[..., Any]) -> None:
    assert spans(record(streamed=True)).attributes["gen_ai.response.time_to_first_chunk"] == 0.3


def test_no_text_and_no_key_is_in_a_span(spans: Callable[..., Any]) -> None:
    span = spans(record(prompt="planted-prompt", key="planted-key", usage=Usage(input_tokens=1, output_tokens=1)))
    assert "planted" not in span.to_json()


def test_spans_reach_a_collector_as_the_environment_says(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    require("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    live.replies = [Reply(headers={"content-type": "application/x-protobuf"})]
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": live.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20token",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with closing(open_traces(environ)) as traces:
        traces.observe(record())
    request = live.wait_for_request()
    assert request.path == "/v1/traces"
    assert request.headers["authorization"] == "Bearer token"
    (sent,) = ExportTraceServiceRequest.FromString(request.body).resource_spans
    assert sent.scope_spans[0].spans[0].name == "chat router-mf"
    about = {entry.key: entry.value.string_value for entry in sent.resource.attributes}
    assert (about["service.name"], about["deployment.environment.name"]) == ("routellm", "test")


def test_the_environment_names_the_service_and_may_sample_nothing(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    require("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", live.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway-7")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with closing(open_traces({})) as traces:
        traces.observe(record())
        assert traces._provider.resource.attributes["service.name"] == "gateway-7"
    assert live.requests == []


def test_a_collector_that_does_not_answer_does_not_hold_the_end_up(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    require("opentelemetry.exporter.otlp.proto.http")
    answered = Gate()
    live.replies = [Reply([answered], headers={"content-type": "application/x-protobuf"})]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", live.url)
    traces = open_traces({})
    traces.observe(record())
    traces.close(0.05)
    assert "the last spans are lost" in caplog.text
    answered.open()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, r"OTEL_TRACES_EXPORTER is 'zipkin'; it can be 'otlp', 'console' or 'none'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, r"OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; only 'http/protobuf'"),
    ],
)
def test_what_is_not_there_is_told(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_traces(environ)


def test_without_the_extra_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("opentelemetry", monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install .*routellm\[otel\]"):
        open_traces({})


def test_nothing_of_it_is_imported_before_traces_are_opened() -> None:
    code = "import sys, routellm.telemetry.traces; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
