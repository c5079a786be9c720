"""From arguments and environment to settings."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from routellm.errors import ConfigError
from routellm.openai_server import DEFAULT_STRONG, DEFAULT_WEAK, build_parser, settings_from
from routellm.policies.table import ConversationTable
from routellm.serving.gateway import Gateway
from routellm.serving.settings import Settings, read_gateway_settings
from routellm.types import ModelPair

BOTH_KEYS = {"OPENAI_API_KEY": "sk-a", "ANYSCALE_API_KEY": "sk-b"}


def read(*arguments: str, environ: dict[str, str] | None = None) -> tuple[Settings, str]:
    return settings_from(build_parser().parse_args(arguments), environ or {})


def test_the_defaults_of_the_mission() -> None:
    settings, note = read(environ=BOTH_KEYS)
    assert settings.pair == ModelPair(DEFAULT_STRONG, DEFAULT_WEAK)
    assert (settings.routers, settings.host, settings.port, settings.workers) == (("mf",), "127.0.0.1", 6060, 1)
    assert note == ""


@pytest.mark.parametrize(
    ("environ", "lacking"),
    [
        ({}, f"{DEFAULT_STRONG} and {DEFAULT_WEAK}"),
        ({"OPENAI_API_KEY": "sk-a"}, DEFAULT_WEAK),
        ({"ANYSCALE_API_KEY": "sk-b"}, DEFAULT_STRONG),
    ],
)
def test_the_demo_pair_stands_in_where_a_default_model_lacks_its_key(environ: dict[str, str], lacking: str) -> None:
    settings, note = read(environ=environ)
    assert settings.pair == ModelPair("demo/strong", "demo/weak")
    assert f"no key for {lacking}, the default" in note
    assert "sk-" not in note


def test_a_named_model_is_never_replaced() -> None:
    settings, note = read("--weak-model", "ollama_chat/llama3")
    assert settings.pair == ModelPair(DEFAULT_STRONG, "ollama_chat/llama3")
    assert note == ""


def test_an_endpoint_without_names_serves_the_default_names_there() -> None:
    settings, note = read("--base-url", "http://localhost:8000/v1", "--api-key", "k")
    assert settings.pair == ModelPair(DEFAULT_STRONG, DEFAULT_WEAK)
    assert note == ""


def test_what_is_given_for_one_model_wins_over_what_is_given_for_both() -> None:
    settings, _ = read(
        "--base-url", "http://both/v1", "--api-key", "both", "--weak-base-url", "http://w/v1", "--strong-api-key", "s"
    )
    assert (settings.strong.api_base, settings.strong.api_key) == ("http://both/v1", "s")
    assert (settings.weak.api_base, settings.weak.api_key) == ("http://w/v1", "both")


def test_the_rest_of_the_options() -> None:
    settings, _ = read(
        *("--routers", "random", "mf", "random", "--prompt-from", "3", "--default-strong-share", "0.25"),
        *("--weak-modalities", "image", "audio", "--timeout", "9", "--connect-timeout", "0.5"),
        *("--max-body-bytes", "1000", "--verbose", "--workers", "3"),
        environ=BOTH_KEYS,
    )
    assert settings.routers == ("random", "mf")
    assert (settings.prompt_from, settings.default_strong_share) == (3, 0.25)
    assert settings.weak.modalities == {"image", "audio"}
    assert (settings.weak.timeouts.read, settings.weak.timeouts.connect) == (9.0, 0.5)
    assert (settings.max_body_bytes, settings.verbose, settings.workers) == (1000, True, 3)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"fallbak": "both"}, "`fallbak` - at `gateway`; allowed there: models, "),
        ({"ledger": {"ulr": "x"}}, "`ulr` - at `gateway.ledger`; allowed there: url, "),
        ({"prices": {"m": {"input": 1}}}, "`input` - at `gateway.prices[...]`; allowed there: input_per_million, "),
        (
            {"models": {"m": {"deployments": [{"url": "x"}]}}},
            "`url` - at `gateway.models[...].deployments[0]`; allowed there: base_url, ",
        ),
        ({"keys": None}, "write keys: {} for the defaults, or nothing"),
        (
            {"models": {"m": {"timeouts": {"x": 1}}}},
            "`x` - at `gateway.models[...].timeouts`; allowed there: connect_seconds, ",
        ),
    ],
)
def test_a_setting_that_there_is_not_is_answered_with_those_that_there_are(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_gateway_settings(section, {}, "c.yaml")
    assert told in str(caught.value)


def test_settings_reach_a_worker_whole_and_show_no_key() -> None:
    settings, _ = read(
        "--routers", "random", "--strong-model", "openai/a", "--weak-model", "openai/b", "--api-key", "sk-planted"
    )
    assert ForkingPickler.loads(ForkingPickler.dumps(settings)) == settings
    assert "sk-planted" not in repr(settings)
    assert "sk-planted" not in repr(Gateway.load(settings, {}, ConversationTable.open(8, shared=False)).__dict__)
