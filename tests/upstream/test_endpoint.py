"""Base URLs, keys and proxies: where each comes from, who gets it, and what can't be used."""

from __future__ import annotations

import pytest

from routellm.errors import ConfigError, MissingKeyError
from routellm.upstream.base import ModelSpec
from routellm.upstream.endpoint import check_base_url, proxy_for, resolve_endpoint

LOCAL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("variable", "value", "name", "base_url"),
    [
        ("OPENAI_BASE_URL", "https://gateway.example/v1/", "gpt-4o", "https://gateway.example/v1"),
        ("OPENAI_API_BASE", "https://gateway.example/v1", "openai/gpt-4o", "https://gateway.example/v1"),
        ("GROQ_API_BASE", "https://gateway.example/groq", "groq/x", "https://gateway.example/groq"),
        ("HOSTED_VLLM_API_BASE", LOCAL, "hosted_vllm/x", LOCAL),
        ("OLLAMA_API_BASE", "http://gpu:11434", "ollama/x", "http://gpu:11434/v1"),
        ("OLLAMA_API_BASE", "https://gpu.example/ollama/v1", "ollama_chat/x", "https://gpu.example/ollama/v1"),
        ("OLLAMA_API_BASE", "https://gpu.example", "ollama/x", "https://gpu.example/v1"),
        ("OLLAMA_HOST", "0.0.0.0", "ollama/x", "http://127.0.0.1:11434/v1"),
        ("OLLAMA_HOST", "0.0.0.0:9999", "ollama/x", "http://127.0.0.1:9999/v1"),
        ("OLLAMA_HOST", "gpu", "ollama_chat/x", "http://gpu:11434/v1"),
        ("OLLAMA_HOST", "[fd00::1]:9999", "ollama/x", "http://[fd00::1]:9999/v1"),
    ],
)
def test_a_variable_can_move_a_provider(variable: str, value: str, name: str, base_url: str) -> None:
    assert resolve_endpoint(ModelSpec(name), {variable: value}).base_url == base_url


def test_an_explicit_base_url_wins_over_the_variable() -> None:
    endpoint = resolve_endpoint(ModelSpec("gpt-4o", LOCAL), {"OPENAI_BASE_URL": "https://gateway.example/v1"})
    assert endpoint.base_url == LOCAL


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8000", "must be a URL"),
        ("ftp://x/v1", "must be a URL"),
        ("https://", "must be a URL"),
        ("", "must be a URL"),
        ("http://x:99999/v1", "must be a URL"),
        ("http://[::1/v1", "must be a URL"),
        ("http://x/v1?api-version=1", "without"),
        ("http://x/v1#a", "without"),
        ("http://x/v1/chat/completions", "leave out"),
        ("http://user:hunter2@x/v1", "user name or a password"),
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused_without_showing_a_password(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        check_base_url(url, "The base URL of 'x'")
    assert "hunter2" not in str(caught.value)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL is 'gateway'"):
        resolve_endpoint(ModelSpec("gpt-4o"), {"OPENAI_BASE_URL": "gateway"})


@pytest.mark.parametrize("value", ["gpu:port", "http://me:hunter2@gpu", "http://[::1"])
def test_a_host_that_cannot_be_used_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="OLLAMA_HOST") as caught:
        resolve_endpoint(ModelSpec("ollama/x"), {"OLLAMA_HOST": value})
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_without_a_base_url_says_where_to_give_one() -> None:
    with pytest.raises(ConfigError, match=r"--base-url.*api_base=.*HOSTED_VLLM_API_BASE"):
        resolve_endpoint(ModelSpec("hosted_vllm/x"), {})
    with pytest.raises(ConfigError, match=r"--base-url.*api_base="):
        resolve_endpoint(ModelSpec("http/x"), {})


def test_an_explicit_key_wins_over_the_variable() -> None:
    assert resolve_endpoint(ModelSpec("gpt-4o", api_key="given"), {"OPENAI_API_KEY": "found"}).key == "given"


@pytest.mark.parametrize(
    ("spec", "environ", "key"),
    [
        (ModelSpec("gpt-4o"), {"OPENAI_API_KEY": "k"}, "k"),
        (ModelSpec("gpt-4o"), {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": LOCAL}, "k"),
        (ModelSpec("gpt-4o", "https://api.openai.com/v1/"), {"OPENAI_API_KEY": "k"}, "k"),
        (ModelSpec("gpt-4o", LOCAL), {"OPENAI_API_KEY": "k"}, None),
        (ModelSpec("openai/x", LOCAL), {"OPENAI_API_KEY": "k"}, None),
        (ModelSpec("org/x", LOCAL), {"OPENAI_API_KEY": "k"}, None),
        (ModelSpec("claude-x", LOCAL), {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, None),
        (ModelSpec("groq/x", LOCAL), {"GROQ_API_KEY": "k"}, "k"),
        (ModelSpec("groq/x", LOCAL), {"OPENAI_API_KEY": "k"}, None),
        (ModelSpec("ollama/x"), {}, None),
        (ModelSpec("groq/x"), {"GROQ_API_KEY": " k\n"}, "k"),
        (ModelSpec("groq/x", LOCAL), {"GROQ_API_KEY": "  "}, None),
    ],
)
def test_a_key_goes_only_where_it_belongs(spec: ModelSpec, environ: dict[str, str], key: str | None) -> None:
    assert resolve_endpoint(spec, environ).key == key


def test_openais_own_endpoint_needs_a_key_however_it_is_named() -> None:
    for spec in (ModelSpec("gpt-4o"), ModelSpec("openai/gpt-4o"), ModelSpec("x", "https://api.openai.com/v1")):
        with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
            resolve_endpoint(spec, {}).check(spec.name)
    resolve_endpoint(ModelSpec("openai/x", LOCAL), {}).check("openai/x")


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    for bad in ("sk-a\nb", "sk-ключ"):
        with pytest.raises(ConfigError, match="no HTTP header can carry") as caught:
            resolve_endpoint(ModelSpec("gpt-4o", api_key=bad), {})
        assert "sk-" not in str(caught.value)


def test_no_repr_shows_a_key_or_a_proxys_password() -> None:
    spec = ModelSpec("gpt-4o", api_key="sk-secret")
    endpoint = resolve_endpoint(spec, {"https_proxy": "http://user:hunter2@proxy:3128"})
    assert endpoint.key == "sk-secret"
    for text in (repr(spec), repr(endpoint)):
        assert "sk-secret" not in text
        assert "hunter2" not in text


def test_an_organisation_is_named_to_openai_alone() -> None:
    environ = {"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1", "OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}
    assert resolve_endpoint(ModelSpec("gpt-4o"), environ).headers == {
        "openai-organization": "org-1",
        "openai-project": "proj-1",
    }
    assert resolve_endpoint(ModelSpec("gpt-4o", LOCAL), environ).headers == {}
    assert resolve_endpoint(ModelSpec("groq/x"), environ).headers == {}


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"http_proxy": "http://proxy:3128"}, None),
        ({"ALL_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "example.com"}, None),
        ({"https_proxy": "http://proxy:3128", "NO_PROXY": "*"}, None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "other.com"}, "http://proxy:3128"),
        ({"https_proxy": ""}, None),
    ],
)
def test_the_environments_proxy_is_used_unless_excepted(environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for("https://api.example.com/v1", environ) == proxy
