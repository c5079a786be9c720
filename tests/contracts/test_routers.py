"""One conformance suite for every router: the built-in ones, and one that a user registers."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routellm.errors import CheckpointError, RequestError
from routellm.routers.checkpoint import META_FILE, WEIGHTS_FILE, load_checkpoint, save_checkpoint
from routellm.routers.random import RandomRouter
from routellm.routers.routers import ROUTER_CLS, Router, build_router
from routellm.types import ModelPair
from tests.conftest import require
from tests.prompts import ODD_PROMPTS
from tests.routers.adapting import make_checkpoint
from tests.routers.battle_files import small_checkpoint
from tests.routers.classifiers import write_checkpoint as write_classifier
from tests.routers.tiny_llama import write_adapter, write_base

PAIR = ModelPair("big", "small")
SHIPPED = Path(str(files("routellm.routers"))) / "data"

PROMPTS = [*ODD_PROMPTS, "long " * 2_000]


class LengthRouter(Router):
    """What a user might register: nothing but the one method that every router has to have."""

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return len(prompt) / (len(prompt) + 100.0)


@dataclass(frozen=True)
class Case:
    """How to build a router, seeded, and where its checkpoint is if it has one: shipped, or made small for the tests."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    make: Callable[[Path], Path] | None = None
    needs: str | None = None

    def folder(self) -> Path | None:
        if self.make is None:
            return self.checkpoint
        if self.name not in _MADE:
            _MADE[self.name] = self.make(Path(mkdtemp(dir=_MADE_IN.name)))
        return _MADE[self.name]

    def build(self, **more: Any) -> Router:
        if self.needs:
            require(self.needs)
        made = {"checkpoint_path": str(self.folder())} if self.make else {}
        return build_router(self.name, {**self.arguments, **made, **more})


def tiny_bert(folder: Path) -> Path:
    return write_classifier(folder / "bert")


def tiny_causal_llm(folder: Path) -> Path:
    return write_adapter(folder / "adapter", write_base(folder / "base"), RandomRouter.quantiles)


CASES = [
    Case("mf", checkpoint=SHIPPED / "mf"),
    Case("gain_fast", checkpoint=SHIPPED / "gain_fast"),
    Case("gain_accurate", checkpoint=SHIPPED / "gain_accurate", needs="onnxruntime"),
    Case("bert", make=tiny_bert, needs="onnxruntime"),
    Case("random", {"seed": 7}),
    Case("length"),
    Case("adapted", make=make_checkpoint),
    Case("causal_llm", {"device": "cpu"}, make=tiny_causal_llm),
    Case("sw_ranking", make=small_checkpoint),
]
SAVED = [case for case in CASES if case.checkpoint or case.make]

every_router = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_saved_router = pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def user_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTER_CLS, "length", LengthRouter)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a router reached for the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def test_no_router_is_left_out() -> None:
    assert {name for name in ROUTER_CLS if ROUTER_CLS[name].__module__.startswith("routellm.")} < {case.name for case in CASES}


@every_router
def test_scores_are_probabilities_for_any_prompt(case: Case) -> None:
    router = case.build()
    for prompt in [*PROMPTS, "жизнь " * 100_000]:  # the last one is over a megabyte
        score = router.calculate_strong_win_rate(prompt)
        assert isinstance(score, float)
        assert 0.0 <= score <= 1.0


@every_router
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts=st.lists(st.text(st.characters(), max_size=60), max_size=4))
def test_scores_are_probabilities_for_generated_prompts(case: Case, prompts: list[str]) -> None:
    scores = build_once(case).calculate_strong_win_rates(prompts)
    assert scores.shape == (len(prompts),)
    assert np.all((scores >= 0.0) & (scores <= 1.0))


@every_router
def test_a_batch_equals_singles_in_the_same_order(case: Case) -> None:
    batch = case.build().calculate_strong_win_rates(PROMPTS)
    single = case.build()
    assert (batch.dtype, batch.shape) == (np.float64, (len(PROMPTS),))
    assert batch.tolist() == [single.calculate_strong_win_rate(prompt) for prompt in PROMPTS]
    assert case.build().calculate_strong_win_rates([]).shape == (0,)


@every_router
def test_two_routers_built_alike_score_alike(case: Case) -> None:
    first, second = case.build(), case.build()
    assert first.calculate_strong_win_rates(PROMPTS).tolist() == second.calculate_strong_win_rates(PROMPTS).tolist()


def test_seeds_tell_random_routers_apart() -> None:
    scores = {float(build_router("random", {"seed": seed}).calculate_strong_win_rate("x")) for seed in range(20)}
    assert len(scores) == 20


@every_router
def test_the_strong_model_answers_where_the_score_is_at_least_the_threshold(case: Case) -> None:
    for prompt in PROMPTS[:4]:
        score = case.build().calculate_strong_win_rate(prompt)
        assert case.build().route(prompt, score, PAIR) == "big"
        assert case.build().route(prompt, math.nextafter(score, 2.0), PAIR) == "small"
        assert case.build().route(prompt, 0.0, PAIR) == "big"
        assert case.build().route(prompt, 1.0, PAIR) == ("big" if score == 1.0 else "small")


@every_router
@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_a_wrong_threshold_is_refused(case: Case, threshold: Any) -> None:
    with pytest.raises(RequestError, match="threshold"):
        case.build().route("hello", threshold, PAIR)


@every_router
def test_an_explanation_is_of_finite_numbers_and_changes_nothing(case: Case) -> None:
    explained, silent = case.build(), case.build()
    for prompt in PROMPTS:
        parts = explained.explain(prompt)
        assert all(isinstance(name, str) and math.isfinite(value) for name, value in parts.items())
        assert explained.calculate_strong_win_rate(prompt) == silent.calculate_strong_win_rate(prompt)


@every_router
def test_quantiles_if_any_give_a_threshold_for_every_share(case: Case) -> None:
    quantiles = case.build().quantiles
    if quantiles is None:
        assert case.name == "length"
        return
    assert list(quantiles.values) == sorted(quantiles.values)
    assert quantiles.source
    thresholds = [quantiles.threshold_for_share(share) for share in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert [found.threshold for found in thresholds] == sorted(found.threshold for found in thresholds)
    assert [round(found.achieved, 2) for found in thresholds] == [1.0, 0.75, 0.5, 0.25, 0.0]


# Checkpoints


@every_saved_router
def test_a_saved_router_loads_with_equal_scores(case: Case, tmp_path: Path) -> None:
    folder = saved(case, tmp_path / "copy")
    loaded = case.build(checkpoint_path=str(folder))
    assert loaded.calculate_strong_win_rates(PROMPTS).tolist() == case.build().calculate_strong_win_rates(PROMPTS).tolist()
    assert loaded.quantiles == case.build().quantiles


def damage_nothing_there(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


def damage_truncate(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])


def damage_empty(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"")


def damage_garbage(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"\x80\x04\x95 a pickle, perhaps")


def damage_flip_a_bit(folder: Path) -> None:
    whole = bytearray((folder / WEIGHTS_FILE).read_bytes())
    whole[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(bytes(whole))


def damage_meta_missing(folder: Path) -> None:
    (folder / META_FILE).unlink()


def damage_meta_broken(folder: Path) -> None:
    (folder / META_FILE).write_text('{"format_version": 1, ')


def damage_meta_no_object(folder: Path) -> None:
    (folder / META_FILE).write_text("[]")


def damage_meta_newer(folder: Path) -> None:
    change_meta(folder, format_version=99)


def damage_meta_of_another_router(folder: Path) -> None:
    change_meta(folder, router="other")


def damage_meta_lacks_everything(folder: Path) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    head = {key: meta[key] for key in ("format_version", "router", "weights_sha256")}
    (folder / META_FILE).write_text(json.dumps(head))


def damage_meta_quantiles(folder: Path) -> None:
    change_meta(folder, quantiles={"source": "?", "prompts": "many"})


DAMAGES: list[Callable[[Path], None]] = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@every_saved_router
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.removeprefix("damage_"))
def test_a_damaged_checkpoint_is_refused_and_named(case: Case, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = saved(case, tmp_path / "copy")
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        case.build(checkpoint_path=str(folder))
    assert str(folder) in str(caught.value)


@every_saved_router
def test_no_checkpoint_at_the_path_is_named(case: Case, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        case.build(checkpoint_path=str(tmp_path / "nowhere"))


def saved(case: Case, folder: Path) -> Path:
    found = case.folder()
    assert found is not None
    checkpoint = load_checkpoint(found, case.name)
    meta = {key: value for key, value in (checkpoint.meta or {}).items() if key != "weights_sha256"}
    files = {name: checkpoint.file(name) for name in meta.get("files", {})}
    return save_checkpoint(folder, case.name, checkpoint.tensors, meta, files=files)


def change_meta(folder: Path, **changes: Any) -> None:
    meta = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps({**meta, **changes}))


_BUILT: dict[str, Router] = {}
_MADE: dict[str, Path] = {}
_MADE_IN = TemporaryDirectory()


def build_once(case: Case) -> Router:
    return _BUILT.setdefault(case.name, case.build())
