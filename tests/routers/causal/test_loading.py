"""Which tokens end an answer, by the files that say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from routellm.errors import CheckpointError
from routellm.routers.causal.loading import stop_tokens


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 2}, None, {2}),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 4]}, {3, 4}),
        ({"eos_token_id": 2}, {}, set()),
        ({"eos_token_id": None}, None, set()),
        ({"eos_token_id": 0}, None, {0}),
    ],
)
def test_the_generation_settings_go_first(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any] | None, expected: set[int]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert stop_tokens(tmp_path) == expected


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json: can't be read"):
        stop_tokens(tmp_path)
