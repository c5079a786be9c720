"""The filter of padding: what it leaves out, what it leaves alone, and what a checkpoint of it must hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import load_checkpoint, save_checkpoint
from routellm.routers.gain import FastGainRouter
from routellm.routers.padding import MOST_CHARS, PaddingFilter
from routellm.routers.pieces import pieces_of
from routellm.tables import write_table
from routellm.training import gain_fit, gain_padding
from routellm.training.boosting import TreeSettings
from tests.prompts import ODD_PROMPTS
from tests.training.files import write
from tests.training.gains import comparisons, run_train
from tests.training.padding import QUESTIONS, TOPICS, fitted_filter, prompts_of_paragraphs

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
def features() -> PromptFeatures:
    return PromptFeatures(load_embedder("static"))


@pytest.fixture(scope="module")
def fast(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    write_table(folder / "prompts.jsonl", {"prompt": prompts_of_paragraphs()})
    data = write(folder / "gains.jsonl", comparisons(240))
    flags = ["--validation-share", "0.3", "--padding-prompts", str(folder / "prompts.jsonl")]
    assert run_train("gain_fast", data, folder / "gain_fast", *flags) == 0
    return folder / "gain_fast"


def test_what_was_put_around_a_question_is_left_out(padding: PaddingFilter, features: PromptFeatures) -> None:
    assert padding.strip(f"{PADDING}\n\n{QUESTION}", features) == QUESTION
    assert padding.strip(f"{QUESTION}\n\n{PADDING}", features) == QUESTION


def test_the_facts_of_a_question_stay(padding: PaddingFilter, features: PromptFeatures) -> None:
    prompt = f"{TOPICS['garden'].format(n=3, m=4)}\n\n{QUESTION}"
    assert padding.strip(prompt, features) is prompt


def test_prompts_of_one_paragraph_and_huge_ones_are_left_as_they_are(padding: PaddingFilter, features: PromptFeatures) -> None:
    for prompt in ("", "One line.", "Facts.\nA question?", f"{QUESTION}\n\n" + "x" * MOST_CHARS):
        assert padding.strip(prompt, features) is prompt


@pytest.mark.parametrize(
    "prompt", [*ODD_PROMPTS, "?\n\n?", "-\n-\n-", "\n\n".join(f"{n}" for n in range(500)), "\u200b\n\n\u200b"]
)
def test_any_prompt_keeps_something(padding: PaddingFilter, features: PromptFeatures, prompt: str) -> None:
    assert bool(padding.strip(prompt, features).strip()) == bool(prompt.strip())
    if len(pieces := pieces_of(prompt)) > 1:
        assert all(0.0 <= chance <= 1.0 for chance in padding.chances(pieces, features))


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
