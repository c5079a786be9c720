"""The page on resilience shows the defaults that there are, and an example that can be used."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

from routellm.dispatch.models import open_models
from routellm.dispatch.settings import DispatchSettings
from routellm.upstream.base import ModelSpec

PAGE = Path(__file__).parents[2] / "docs" / "resilience.md"
DEFAULTS, EXAMPLE = (
    yaml.safe_load(block)["gateway"] for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
)


def test_the_defaults_are_those_of_the_code() -> None:
    assert DEFAULTS["fallback"] is False, "which is how YAML reads off"
    assert msgspec.to_builtins(DispatchSettings()) == {**DEFAULTS, "fallback": "off"}
    assert msgspec.convert(DEFAULTS, DispatchSettings) == DispatchSettings()


def test_the_example_opens_every_deployment() -> None:
    settings = msgspec.convert(EXAMPLE, DispatchSettings)
    keys = {
        name: f"sk-{name}" for name in ("OPENAI_KEY_A", "OPENAI_KEY_B", "EU_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY")
    }
    models = open_models({"gpt-4o": ModelSpec("gpt-4o"), "gpt-4o-mini": ModelSpec("gpt-4o-mini")}, settings, keys)
    assert [(upstream.endpoint, upstream.model) for upstream in models["gpt-4o"]] == [
        ("https://api.openai.com/v1", "gpt-4o"),
        ("https://api.openai.com/v1", "gpt-4o"),
        ("https://eu.example.com/v1", "gpt-4o-eu"),
        ("https://openrouter.ai/api/v1", "openai/gpt-4o"),
    ]
    assert list(models) == ["gpt-4o", "gpt-4o-mini", "anthropic/claude-sonnet-4-5"]
