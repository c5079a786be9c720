"""The routers that come with the package: that they work as they are, and that they say where they come from."""

from __future__ import annotations

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.routers.checkpoint import META_FILE
from routellm.routers.routers import ROUTER_CLS, build_router
from tests.conftest import require
from tests.prompts import ODD_PROMPTS

GGUF = os.environ.get("ROUTELLM_TEST_GGUF")
SHIPPED = {
    path.parent.name: path.parent for path in sorted(Path(str(files("routellm.routers") / "data")).glob(f"*/{META_FILE}"))
}
NEEDS = {"bert": ["onnxruntime"], "gain_accurate": ["onnxruntime"]}
FETCHED = {"causal_llm"}
"""Routers that fetch a model by pip: tried where `make llm` could fetch one."""

every_shipped_router = pytest.mark.parametrize("name", SHIPPED)


def meta_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SHIPPED[name] / META_FILE).read_text(encoding="utf-8"))
    return found


def test_the_routers_that_need_no_arguments_are_there() -> None:
    assert {"mf", "gain_fast", "gain_accurate", "bert", "sw_ranking"} <= set(SHIPPED) <= set(ROUTER_CLS)


@every_shipped_router
def test_it_scores_and_has_a_threshold_for_a_share_without_any_argument(name: str) -> None:
    if name in FETCHED and not GGUF:
        pytest.skip("fetches its base; runs where ROUTELLM_TEST_GGUF is set")
    for module in NEEDS.get(name, []):
        require(module)
    router = build_router(name)
    scores = router.calculate_strong_win_rates(ODD_PROMPTS)
    assert np.all((scores >= 0.0) & (scores <= 1.0))
    assert len(set(scores.tolist())) > 1
    assert router.quantiles is not None
    assert 0.0 < router.quantiles.threshold_for_share(0.5).threshold < 1.0
    assert str(router.fingerprint).startswith(f"{name}:")


@every_shipped_router
def test_card_and_router_json_name_the_data_with_their_hashes(name: str) -> None:
    training = meta_of(name)["training"]
    card = (SHIPPED[name] / "README.md").read_text(encoding="utf-8")
    assert training["data"]
    for file, digest in training["data"].items():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest), file
        assert file in training["command"]
        assert file in card
        assert digest in card
    assert training["rows_by_source"]
    for source in training["rows_by_source"]:
        assert source in card


@every_shipped_router
def test_it_was_not_trained_on_test_prompts_and_says_nothing_of_somebodys_disk(name: str) -> None:
    assert meta_of(name)["training"]["test_prompts"] == {}
    for file in (META_FILE, "README.md"):
        text = (SHIPPED[name] / file).read_text(encoding="utf-8")
        assert re.findall(r"(?<![\w.:/])(?:~|/(?:home|root|tmp|work|Users))/\S*", text) == []


@every_shipped_router
def test_it_was_made_with_what_its_priors_are_today(name: str) -> None:
    for prior in meta_of(name).get("priors", []):
        assert prior["arguments"] == {}, "a shipped router is built on shipped ones"
        assert prior["router"] in SHIPPED
