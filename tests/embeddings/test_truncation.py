"""Where long prompts are cut for an encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from routellm.embeddings.truncation import HEAD_TAIL, TokenIds
from routellm.errors import CheckpointError
from tests.embeddings.encoders import VOCABULARY, write_tokenizer
from tests.prompts import ODD_PROMPTS

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def named(*tokens: str) -> list[int]:
    return [VOCABULARY[token] for token in tokens]


def test_by_default_the_first_tokens_are_read(tokenizer: Path) -> None:
    assert TokenIds(tokenizer, 12).of(" ".join(LETTERS)) == named("[CLS]", *LETTERS[:10], "[SEP]")


def test_by_head_and_tail_the_first_and_more_of_the_last_are(tokenizer: Path) -> None:
    ids = TokenIds(tokenizer, 10, HEAD_TAIL)
    assert ids.of(" ".join(LETTERS)) == named("[CLS]", *"abc", *"vwxyz", "[SEP]")
    assert ids.of("a b c d e f g h") == named("[CLS]", *"abcdefgh", "[SEP]"), "what fits is read whole"
    assert ids.of("a b c d e f g h i") == named("[CLS]", *"abc", *"efghi", "[SEP]")


def test_both_ends_of_a_huge_prompt_are_read(tokenizer: Path) -> None:
    prompt = "a b " + "q " * 10_000 + "y z"
    assert TokenIds(tokenizer, 6, HEAD_TAIL).of(prompt) == named("[CLS]", "a", "q", "y", "z", "[SEP]")
    assert TokenIds(tokenizer, 6).of(prompt) == named("[CLS]", "a", "b", "q", "q", "[SEP]")


@pytest.mark.parametrize("truncation", ["head", "head-tail"])
def test_a_batch_equals_singles_and_is_no_longer_than_asked(tokenizer: Path, truncation: str) -> None:
    ids = TokenIds(tokenizer, 9, truncation)
    prompts = [*ODD_PROMPTS, " ".join(LETTERS)]
    batch = ids.of_batch(prompts)
    assert batch == [ids.of(prompt) for prompt in prompts]
    assert max(map(len, batch)) == 9


def test_another_way_of_cutting_and_a_broken_file_are_refused(tokenizer: Path) -> None:
    with pytest.raises(CheckpointError, match="truncation of prompts is 'middle'; it must be one of: head, head-tail"):
        TokenIds(tokenizer, 9, "middle")
    tokenizer.write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json' is not a tokenizer"):
        TokenIds(tokenizer, 9)
