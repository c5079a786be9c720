"""From a model's name to an upstream: the table, the order of its rules, and what a wrong name gets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import ConfigError, MissingExtraError, MissingKeyError
from routellm.upstream.base import UPSTREAMS, ModelSpec, Upstream, UpstreamReply
from routellm.upstream.demo import DemoUpstream
from routellm.upstream.endpoint import check_base_url, resolve_endpoint
from routellm.upstream.http import HttpUpstream
from routellm.upstream.litellm import LiteLLMUpstream
from routellm.upstream.providers import LITELLM_PROVIDERS, PROVIDERS, open_upstream, provider_of

BASE = "http://localhost:8000/v1"


@pytest.mark.parametrize("prefix", sorted(PROVIDERS))
def test_every_provider_opens_and_asks_for_its_own_key(prefix: str) -> None:
    provider = PROVIDERS[prefix]
    spec = ModelSpec(f"{prefix}/some/model", None if provider.base_url else BASE)
    keyless = open_upstream(spec, {})
    assert isinstance(keyless, HttpUpstream)
    assert keyless.model == "some/model"
    if provider.needs_key:
        with pytest.raises(MissingKeyError, match=provider.keys[0]) as caught:
            keyless.check()
        assert "--api-key" in str(caught.value)
        assert "api_key=" in str(caught.value)
    else:
        keyless.check()
    for variable in provider.keys:
        open_upstream(spec, {variable: "sk-1"}).check()
        assert resolve_endpoint(spec, {variable: "sk-1"}).key == "sk-1"


@pytest.mark.parametrize("prefix", sorted(PROVIDERS))
def test_every_base_url_in_the_table_is_usable(prefix: str) -> None:
    base_url = PROVIDERS[prefix].base_url
    assert base_url is None or check_base_url(base_url, "it") == base_url


@pytest.mark.parametrize(
    ("name", "api_base", "provider", "model"),
    [
        ("gpt-4o", None, "openai", "gpt-4o"),
        ("ft:gpt-4o:acme", None, "openai", "ft:gpt-4o:acme"),
        ("claude-sonnet-4-5", None, "anthropic", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5", BASE, "openai", "claude-sonnet-4-5"),
        ("groq/llama-3.1-8b-instant", None, "groq", "llama-3.1-8b-instant"),
        ("openrouter/meta-llama/llama-3-8b", None, "openrouter", "meta-llama/llama-3-8b"),
        ("openai/mistral-7b", BASE, "openai", "mistral-7b"),
        ("meta-llama/Llama-3.1-8B-Instruct", BASE, "http", "meta-llama/Llama-3.1-8B-Instruct"),
        ("http/openai/gpt-oss-20b", BASE, "http", "openai/gpt-oss-20b"),
    ],
)
def test_a_name_means_a_provider_and_a_model(name: str, api_base: str | None, provider: str, model: str) -> None:
    spec = ModelSpec(name, api_base)
    assert provider_of(spec) == (provider, model)
    upstream = open_upstream(spec, {})
    assert isinstance(upstream, HttpUpstream)
    assert upstream.model == model


@pytest.mark.parametrize("name", ["", " ", "/", "/x", "groq/", "groq/ ", "demo/"])
def test_a_name_without_a_provider_or_a_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        open_upstream(ModelSpec(name), {})


@given(st.text(max_size=40), st.sampled_from([None, BASE]))
def test_any_name_opens_an_upstream_or_is_refused_as_a_setting(name: str, api_base: str | None) -> None:
    try:
        upstream = open_upstream(ModelSpec(name, api_base), {})
    except ConfigError:
        return
    assert isinstance(upstream, Upstream)
    assert upstream.model


def test_what_litellm_has_to_translate_goes_to_litellm_even_with_a_base_url() -> None:
    for prefix in LITELLM_PROVIDERS:
        assert isinstance(open_upstream(ModelSpec(f"{prefix}/deployment", "https://x.example/"), {}), LiteLLMUpstream)
    assert not LITELLM_PROVIDERS & set(PROVIDERS)


def test_any_name_can_be_sent_through_litellm() -> None:
    upstream = open_upstream(ModelSpec("litellm/anthropic/claude-sonnet-4-5"), {})
    assert isinstance(upstream, LiteLLMUpstream)
    assert upstream.model == "anthropic/claude-sonnet-4-5"


@pytest.mark.parametrize(("name", "near"), [("opnai/gpt-4o", "'openai'"), ("grok/grok-4", "'groq'"), ("azur/x", "'azure'")])
def test_a_misspelt_provider_gets_the_nearest_one_and_the_line_that_installs_litellm(
    name: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routellm.upstream.providers.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        open_upstream(ModelSpec(name), {})
    assert f"did you mean {near}" in str(caught.value)
    assert 'pip install "routellm[providers]"' in str(caught.value)
    assert "api_base=" in str(caught.value)


def test_an_unknown_provider_is_left_to_litellm_where_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routellm.upstream.providers.find_spec", lambda name: ModuleSpec(name, None))
    assert isinstance(open_upstream(ModelSpec("brandnew/model"), {}), LiteLLMUpstream)


def test_a_litellm_provider_without_litellm_opens_and_then_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)  # as if it were not installed
    upstream = open_upstream(ModelSpec("azure/deployment"), {})
    with pytest.raises(MissingExtraError, match=r'azure/deployment.*pip install "routellm\[providers\]"'):
        upstream.check()


class Canned(Upstream):
    """A plug-in with the least that an upstream must have."""

    def __init__(self, spec: ModelSpec, environ: Mapping[str, str]) -> None:
        self.model = spec.name.partition("/")[2]
        self.seen = environ

    def check(self) -> None: ...

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamReply:
        raise NotImplementedError

    def client(self) -> Any:
        raise NotImplementedError

    def async_client(self) -> Any:
        raise NotImplementedError


def test_a_plug_in_takes_its_prefix_even_from_a_known_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UPSTREAMS, "_entries", dict(UPSTREAMS._entries))
    UPSTREAMS["groq"] = Canned
    upstream = open_upstream(ModelSpec("groq/x"), {"A": "b"})
    assert isinstance(upstream, Canned)
    assert (upstream.model, upstream.seen) == ("x", {"A": "b"})


def test_a_plug_in_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UPSTREAMS, "_entries", {**UPSTREAMS._entries, "odd": _NotAnUpstream})
    with pytest.raises(ConfigError, match="not a subclass"):
        open_upstream(ModelSpec("odd/x"), {})


class _NotAnUpstream:
    def __init__(self, spec: ModelSpec, environ: Mapping[str, str]) -> None: ...


def test_demo_names_are_the_demo_upstream() -> None:
    assert isinstance(open_upstream(ModelSpec("demo/strong"), {}), DemoUpstream)
