"""OpenTelemetry: a span for each finished request, with the names of the conventions for generative AI (`gen_ai.*`).

A span is made when its request is over, with the times that the record has, and joins the trace that the client's
`traceparent` header names; that header goes up to the model as it came. The span is the server's side of the client's call
(kind SERVER). No prompt, answer or key is ever in it. Only `open_traces` imports the SDK: a server without pays nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from threading import Thread
from typing import TYPE_CHECKING

import routellm
from routellm.errors import ConfigError, MissingExtraError
from routellm.types import RequestRecord
from routellm.upstream.base import UPSTREAMS, ModelSpec
from routellm.upstream.providers import LITELLM_PROVIDERS, provider_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue

logger = logging.getLogger("routellm.telemetry")

_PARENT_HEADERS = (b"traceparent", b"tracestate")
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}
# The conventions' names of providers, where they differ from LiteLLM's.
_PROVIDER_NAMES = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "codestral": "mistral_ai",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "watsonx_text": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_BAD_OUTCOMES = frozenset({"failed", "broken-off"})


def parent_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers that say which span of the client's a request belongs to; for `Traces.observe`."""
    return {name.decode("ascii"): value.decode("latin-1") for name, value in headers if name in _PARENT_HEADERS}


class Traces:
    """Makes the spans of one process.

    Args:
        provider: what samples and exports them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("routellm", routellm.__version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def observe(self, record: RequestRecord, parent: Mapping[str, str] | None = None) -> None:
        """Make the span of a finished request. `parent` is what `parent_of` found."""
        span = self._tracer.start_span(
            _name(record),
            context=self._extract(parent) if parent else None,
            kind=self._kind,
            start_time=_nanoseconds(record.at),
        )
        if not span.is_recording():  # the sampler let it go
            return
        span.set_attributes(_attributes(record))
        if record.outcome in _BAD_OUTCOMES or record.status >= 500:
            span.set_status(self._failed)
        span.end(_nanoseconds(record.at + (record.own_ms + record.upstream_ms) / 1e3))

    def close(self, seconds: float = 5.0) -> None:
        """Export what is left and end the exporter's thread. Blocks for so long at the most; what is unsent then is lost."""
        ending = Thread(target=self._provider.shutdown, name="routellm-traces-end", daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            logger.warning("the last spans are lost: OpenTelemetry's endpoint did not take them within %g s", seconds)


def open_traces(environ: Mapping[str, str]) -> Traces:
    """Spans as OpenTelemetry's own environment variables say, which its SDK reads here.

    `OTEL_TRACES_EXPORTER` is "otlp" (where it is not set), "console" or "none"; OTLP goes over HTTP to
    `OTEL_EXPORTER_OTLP_ENDPOINT`. `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and `OTEL_BSP_*` hold
    as everywhere.

    Raises:
        MissingExtraError: the extra `otel` is not installed.
        ConfigError: a variable asks for what there is not.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if exporter not in ("otlp", "console", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER is {exporter!r}; it can be 'otlp', 'console' or 'none'.")
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    for name, protocol in ((name, environ[name]) for name in names if environ.get(name)):
        if exporter == "otlp" and protocol != "http/protobuf":
            raise ConfigError(f"{name} is {protocol!r}; only 'http/protobuf' is there, which is the default.")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ImportError as error:
        raise MissingExtraError("OpenTelemetry", "otel") from error

    own = Resource.create({"service.name": "routellm", "service.version": routellm.__version__})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    if exporter != "none":
        sender: SpanExporter = OTLPSpanExporter() if exporter == "otlp" else ConsoleSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(sender))
    return Traces(provider)


def _nanoseconds(seconds: float) -> int:
    """Rounded to what a float of today's seconds still holds."""
    return round(seconds * 1e6) * 1000


def _name(record: RequestRecord) -> str:
    """Few different ones: a router's threshold, and a name that nobody serves, are told in the attributes only."""
    operation = _OPERATIONS.get(record.api, "chat")
    if record.router is not None:
        return f"{operation} router-{record.router}"
    return operation if record.model is None else f"{operation} {record.model}"


def _attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": _OPERATIONS.get(record.api, "chat"),
        "gen_ai.request.model": record.asked or None,
        "gen_ai.request.stream": record.streamed,
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "error.type": _error_type(record),
        "routellm.api": record.api,
        "routellm.request_id": record.request_id,
        "routellm.outcome": record.outcome,
        "routellm.router": record.router,
        "routellm.threshold": record.threshold,
        "routellm.win_rate": record.win_rate,
        "routellm.reason": record.reason,
        "routellm.decision_seconds": None if record.router is None else record.decision_us / 1e6,
        "routellm.overhead_seconds": record.own_ms / 1e3,
        "routellm.upstream_seconds": record.upstream_ms / 1e3,
        "routellm.upstream_calls": record.attempts,
    }
    if record.model is not None:
        found["gen_ai.provider.name"], found["gen_ai.response.model"] = _provider_and_name(record.model)
    if record.streamed and record.first_byte_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = record.first_byte_ms / 1e3
    if record.usage is not None:
        found["gen_ai.usage.input_tokens"] = record.usage.input_tokens
        found["gen_ai.usage.output_tokens"] = record.usage.output_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = record.usage.cached_input_tokens
        found["routellm.usage.estimated"] = record.usage.estimated
    return {name: value for name, value in found.items() if value is not None}


def _error_type(record: RequestRecord) -> str | None:
    if record.error is not None:
        return record.error
    return str(record.status) if record.status >= 400 else None


@lru_cache(maxsize=256)
def _provider_and_name(model: str) -> tuple[str, str]:
    """The provider as the conventions call it, and the model's name there."""
    prefix, _, rest = model.partition("/")
    if rest and (prefix in LITELLM_PROVIDERS or prefix in UPSTREAMS):
        return _PROVIDER_NAMES.get(prefix, prefix), rest
    provider, name = provider_of(ModelSpec(model))
    return ("openai-compatible" if provider == "http" else _PROVIDER_NAMES.get(provider, provider)), name
