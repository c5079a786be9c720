"""The filter of padding: what it leaves out, what it leaves alone, and what a checkpoint of it must hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.embeddings.factory import load_embedder
from routellm.errors import CheckpointError
from routellm.routers.bert import BertEmbedder
from routellm.routers.checkpoint import load_checkpoint, save_checkpoint
from routellm.routers.gain import AccurateGainRouter, FastGainRouter
from routellm.routers.padding import MOST_CHARS, PaddingFilter
from routellm.routers.pieces import pieces_of
from routellm.tables import write_table
from routellm.training import gain_fit, gain_padding
from routellm.training.boosting import TreeSettings
from tests.conftest import require
from tests.prompts import ODD_PROMPTS
from tests.routers.classifiers import write_checkpoint
from tests.training.files import write
from tests.training.gains import comparisons, run_train
from tests.training.padding import QUESTIONS, TOPICS, fitted_filter, prompts_of_paragraphs
from tests.watching import prompts_given_to

FEW = TreeSettings(trees=30, depth=3, rate=0.3, penalty=5.0, rows=0.8, columns=0.5)
QUESTION = QUESTIONS["garden"]
PADDING = TOPICS["parliament"].format(n=700, m=12)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gain_padding, "PROMPTS", 1500)
        patch.setattr(gain_padding, "TREES", FEW)
        patch.setattr(gain_fit, "TREES", FEW)
        yield


@pytest.fixture(scope="module")
def padding(small: None) -> PaddingFilter:
    return fitted_filter()


@pytest.fixture(scope="module")
def fast(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    write_table(folder / "prompts.jsonl", {"prompt": prompts_of_paragraphs()})
    data = write(folder / "gains.jsonl", comparisons(240))
    flags = ["--validation-share", "0.3", "--padding-prompts", str(folder / "prompts.jsonl")]
    assert run_train("gain_fast", data, folder / "gain_fast", *flags) == 0
    return folder / "gain_fast"


def test_what_was_put_around_a_question_is_left_out(padding: PaddingFilter) -> None:
    assert padding.strip(f"{PADDING}\n\n{QUESTION}") == QUESTION
    assert padding.strip(f"{QUESTION}\n\n{PADDING}") == QUESTION


def test_the_facts_of_a_question_stay(padding: PaddingFilter) -> None:
    prompt = f"{TOPICS['garden'].format(n=3, m=4)}\n\n{QUESTION}"
    assert padding.strip(prompt) is prompt


def test_prompts_of_one_paragraph_and_huge_ones_are_left_as_they_are(padding: PaddingFilter) -> None:
    for prompt in ("", "One line.", "Facts.\nA question?", f"{QUESTION}\n\n" + "x" * MOST_CHARS):
        assert padding.strip(prompt) is prompt


@pytest.mark.parametrize(
    "prompt", [*ODD_PROMPTS, "?\n\n?", "-\n-\n-", "\n\n".join(f"{n}" for n in range(500)), "\u200b\n\n\u200b"]
)
def test_any_prompt_keeps_something(padding: PaddingFilter, prompt: str) -> None:
    assert bool(padding.strip(prompt).strip()) == bool(prompt.strip())
    if len(pieces := pieces_of(prompt)) > 1:
        assert all(0.0 <= chance <= 1.0 for chance in padding.chances(pieces))


def test_a_router_of_a_checkpoint_reads_through_its_filter(fast: Path) -> None:
    router = FastGainRouter(str(fast))
    question = router.calculate_strong_win_rate(QUESTION)
    padded = f"{PADDING}\n\n{QUESTION}"
    assert router.calculate_strong_win_rate(padded) == question
    assert router.explain(padded) == router.explain(QUESTION)
    prompts = [padded, QUESTION, PADDING, *ODD_PROMPTS]
    assert router.calculate_strong_win_rates(prompts).tolist() == [router.calculate_strong_win_rate(each) for each in prompts]


def changed(folder: Path, to: Path, tensors: dict[str, Any], **fields: Any) -> str:
    """A copy of a checkpoint with other tensors (None: without it) or fields of its router.json, and fitting hashes."""
    checkpoint = load_checkpoint(folder, folder.name)
    kept = {name: tensor for name, tensor in {**checkpoint.tensors, **tensors}.items() if tensor is not None}
    meta = {name: value for name, value in (checkpoint.meta or {}).items() if name != "weights_sha256"}
    return str(save_checkpoint(to, folder.name, kept, {**meta, **fields}))


def test_only_what_may_take_long_leaves_the_event_loop(fast: Path) -> None:
    router = FastGainRouter(str(fast))
    long = f"{PADDING}\n\n" * 20
    assert not router.blocks(QUESTION)
    assert not router.blocks(f"{PADDING}\n\n{QUESTION}"[:1_500])
    assert router.blocks(long[:8_000])
    assert not router.blocks(long[:8_000].replace("\n", " "))
    assert router.blocks(long.replace("\n", " ") * 9)


def test_a_checkpoint_without_a_filter_reads_all_there_is(fast: Path, tmp_path: Path) -> None:
    names = [name for name in load_checkpoint(fast, "gain_fast").tensors if name.startswith("padding.")]
    assert len(names) == 10
    router = FastGainRouter(changed(fast, tmp_path / "gain_fast", dict.fromkeys(names), padding_version=None))
    padded = f"{PADDING}\n\n{QUESTION}"
    assert router.calculate_strong_win_rate(padded) != FastGainRouter(str(fast)).calculate_strong_win_rate(padded)
    assert router.calculate_strong_win_rate(QUESTION) == FastGainRouter(str(fast)).calculate_strong_win_rate(QUESTION)
    assert router.fingerprint != FastGainRouter(str(fast)).fingerprint


def test_the_filter_reads_pieces_as_its_router_reads_prompts(fast: Path) -> None:
    router = FastGainRouter(str(fast))
    meta = load_checkpoint(fast, "gain_fast").meta or {}
    assert meta["padding_fingerprint"] == meta["embedder_fingerprint"] == router.features.embedder.fingerprint


def test_a_checkpoint_from_before_the_field_was_fitted_to_its_own_embedder(fast: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(fast, "gain_fast")
    left = {"weights_sha256", "padding_fingerprint"}
    meta = {name: value for name, value in (checkpoint.meta or {}).items() if name not in left}
    router = FastGainRouter(str(save_checkpoint(tmp_path / "gain_fast", "gain_fast", checkpoint.tensors, meta)))
    padded = f"{PADDING}\n\n{QUESTION}"
    assert router.calculate_strong_win_rate(padded) == FastGainRouter(str(fast)).calculate_strong_win_rate(padded)


# Under an encoder, which takes too long for each piece


@pytest.fixture(scope="module")
def accurate(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("onnxruntime")
    folder = tmp_path_factory.mktemp("accurate")
    write_table(folder / "prompts.jsonl", {"prompt": prompts_of_paragraphs()})
    data = write(folder / "gains.jsonl", comparisons(240))
    flags = ["--validation-share", "0.3", "--padding-prompts", str(folder / "prompts.jsonl")]
    flags += ["--embedding-model", f"bert:{write_checkpoint(folder / 'bert')}"]
    assert run_train("gain_accurate", data, folder / "gain_accurate", *flags) == 0
    return folder / "gain_accurate"


def test_under_an_encoder_the_filter_reads_by_the_bundled_table(
    fast: Path, accurate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_embedder("static").fingerprint
    meta = load_checkpoint(accurate, "gain_accurate").meta or {}
    assert (meta["padding_version"], meta["padding_fingerprint"]) == (1, table)
    assert meta["embedder_fingerprint"].startswith("bert:")
    ours, theirs = (load_checkpoint(folder, folder.name).tensors for folder in (fast, accurate))
    names = [name for name in ours if name.startswith("padding.")]
    assert len(names) == 10
    for name in names:  # both were fitted to the same pieces
        assert ours[name].tolist() == theirs[name].tolist()
    router = AccurateGainRouter(str(accurate))
    asked = prompts_given_to(monkeypatch, BertEmbedder, "embed")
    router.calculate_strong_win_rate(f"{PADDING}\n\n{QUESTION}")
    assert asked == [QUESTION], "the encoder sees what is left, once"


def test_under_an_encoder_padding_leaves_scores_as_they_were(accurate: Path) -> None:
    router = AccurateGainRouter(str(accurate))
    question, facts = router.calculate_strong_win_rate(QUESTION), f"{TOPICS['garden'].format(n=3, m=4)}\n\n{QUESTION}"
    for padded in (f"{PADDING}\n\n{QUESTION}", f"{QUESTION}\n\n{PADDING}"):
        assert router.calculate_strong_win_rate(padded) == question
        assert router.explain(padded) == router.explain(QUESTION)
    assert router.calculate_strong_win_rate(facts) != question
    prompts = [f"{PADDING}\n\n{QUESTION}", QUESTION, facts, *ODD_PROMPTS]
    again = AccurateGainRouter(str(accurate))
    assert router.calculate_strong_win_rates(prompts).tolist() == [again.calculate_strong_win_rate(each) for each in prompts]
    assert router.fingerprint == again.fingerprint


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"padding_fingerprint": "static:other"}, "static:other"),
        ({"padding_fingerprint": None}, "None"),
        ({"padding_fingerprint": 3}, "3"),
        ({}, "bert:"),  # from before the field: pieces were read by the encoder itself
    ],
)
def test_a_filter_that_was_fitted_to_other_vectors_is_refused(
    accurate: Path, tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    checkpoint = load_checkpoint(accurate, "gain_accurate")
    left = {"weights_sha256", "padding_fingerprint"}
    meta = {name: value for name, value in (checkpoint.meta or {}).items() if name not in left}
    folder = save_checkpoint(tmp_path / "made", "gain_accurate", checkpoint.tensors, meta | fields)
    said = rf"its filter of padding was fitted to vectors of '?{named}.*, not of 'static:.*Run `routellm train` again"
    with pytest.raises(CheckpointError, match=said):
        AccurateGainRouter(str(folder))


@pytest.mark.parametrize(
    ("tensors", "fields", "said"),
    [
        ({}, {"padding_version": 99}, r"needs padding_version 99; this release has 1\. Run `routellm train` again"),
        ({"padding.mean": None}, {}, r"the tensor 'padding\.mean' is missing\. Run `routellm train` again"),
        ({"padding.second.value": None}, {}, r"the tensor 'padding\.second\.value' is missing"),
        ({"padding.mean": np.zeros(3, np.float32)}, {}, "filter of padding don't fit together"),
        ({"padding.constants": np.zeros(3, np.float32)}, {}, "filter of padding don't fit together"),
        ({"padding.first.feature": np.full((3, 30), 999, np.int16)}, {}, "filter of padding don't fit together"),
        ({"padding.first.feature": np.full((3, 30), 1.0, np.float32)}, {}, "filter of padding don't fit together"),
    ],
)
def test_a_filter_that_does_not_fit_is_refused(
    fast: Path, tmp_path: Path, tensors: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        FastGainRouter(changed(fast, tmp_path / "gain_fast", tensors, **fields))
