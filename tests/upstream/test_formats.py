"""Which APIs an endpoint is taken to speak, and how a request signs in to each."""

from __future__ import annotations

from typing import Any

import pytest

from routellm.errors import ConfigError
from routellm.upstream.base import OPENAI_COMPATIBLE, Format, ModelSpec
from routellm.upstream.endpoint import resolve_endpoint
from routellm.upstream.providers import open_upstream

LOCAL = "http://localhost:8000/v1"
BOTH: frozenset[Format] = frozenset({"chat", "messages"})


@pytest.mark.parametrize(
    ("spec", "environ", "formats"),
    [
        (ModelSpec("gpt-4o"), {}, OPENAI_COMPATIBLE | {"responses"}),
        (ModelSpec("openai/gpt-4o", "https://api.openai.com/v1"), {}, OPENAI_COMPATIBLE | {"responses"}),
        (ModelSpec("openai/x", LOCAL), {}, OPENAI_COMPATIBLE),
        (ModelSpec("gpt-4o"), {"OPENAI_BASE_URL": LOCAL}, OPENAI_COMPATIBLE),
        (ModelSpec("claude-x"), {}, BOTH),
        (ModelSpec("anthropic/claude-x", LOCAL), {}, BOTH),
        (ModelSpec("claude-x", LOCAL), {}, OPENAI_COMPATIBLE),
        (ModelSpec("groq/x"), {}, OPENAI_COMPATIBLE),
        (ModelSpec("org/x", LOCAL), {}, OPENAI_COMPATIBLE),
        (ModelSpec("org/x", LOCAL, formats=BOTH), {}, BOTH),
        (ModelSpec("gpt-4o", formats=frozenset({"chat"})), {}, frozenset({"chat"})),
        (ModelSpec("demo/strong", formats=BOTH), {}, frozenset({"chat"})),
    ],
)
def test_what_an_endpoint_speaks(spec: ModelSpec, environ: dict[str, str], formats: frozenset[Format]) -> None:
    assert open_upstream(spec, environ).formats == formats


@pytest.mark.parametrize("formats", [frozenset(), frozenset({"chat", "messges"})])
def test_formats_that_do_not_exist_are_refused(formats: Any) -> None:
    with pytest.raises(ConfigError, match=r"The formats of 'x' are .*name at least one of: chat, completions"):
        resolve_endpoint(ModelSpec("x", LOCAL, formats=formats), {})


@pytest.mark.parametrize(
    ("spec", "path", "headers"),
    [
        (ModelSpec("gpt-4o", api_key="k"), "/chat/completions", {"authorization": "Bearer k"}),
        (ModelSpec("claude-x", api_key="k"), "/chat/completions", {"authorization": "Bearer k"}),
        (ModelSpec("claude-x", api_key="k"), "/messages", {"x-api-key": "k"}),
        (ModelSpec("claude-x", api_key="k"), "/messages/count_tokens", {"x-api-key": "k"}),
        (ModelSpec("org/x", LOCAL, "k"), "/messages", {"x-api-key": "k", "authorization": "Bearer k"}),
        (ModelSpec("org/x", LOCAL), "/messages", {}),
    ],
)
def test_how_a_request_signs_in(spec: ModelSpec, path: str, headers: dict[str, str]) -> None:
    assert resolve_endpoint(spec, {}).headers_for(path) == headers


def test_the_key_is_in_no_repr() -> None:
    assert "sk-planted" not in repr(resolve_endpoint(ModelSpec("claude-x", api_key="sk-planted"), {}))
