"""What takes torch, and what is asked of it where there is no GPU: nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from routellm.errors import ConfigError
from routellm.routers.causal import model
from routellm.routers.causal.model import Placement
from tests.conftest import require


@pytest.mark.parametrize(
    ("placement", "beyond"),
    [
        (Placement("cpu"), None),
        (Placement("cpu", "float32"), None),
        (Placement("cpu", "bfloat16"), "in bfloat16"),
        (Placement("cpu", flash_attention_2=True), "with flash_attention_2"),
        (Placement("cuda:1"), "on the device 'cuda:1'"),
    ],
)
def test_a_cpu_and_float32_take_no_torch(placement: Placement, beyond: str | None) -> None:
    assert placement.beyond_numpy() == beyond


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_has_gpu", lambda: True)
    assert Placement().beyond_numpy() == "on a GPU"
    assert Placement("cpu").names() == ("cpu", "float32")
    monkeypatch.setattr(model, "_has_gpu", lambda: False)
    assert Placement().names() == ("cpu", "float32")


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_auto_is_the_cpu_without_torch_whatever_drivers_there_are(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setitem(sys.modules, missing, None)
    assert Placement().names() == ("cpu", "float32")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for drivers under /dev")
def test_torch_is_asked_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = require("torch")
    require("transformers")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for driver, found in (("/dev/nvidiactl", True), ("/dev/kfd", True), ("/dev/null", False)):
        monkeypatch.setattr(Path, "exists", lambda path, driver=driver: str(path) == driver)
        assert model._has_gpu() is found


def test_a_type_that_is_not_known_is_named() -> None:
    with pytest.raises(ConfigError, match="dtype of causal_llm is 'int3'"):
        Placement("cpu", "int3")
