"""Where long prompts are cut for an encoder."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

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


def test_a_prompt_alone_has_the_ids_that_it_has_in_a_batch(tmp_path: Path, tokenizer: Path) -> None:
    whole = tmp_path / "whole.json"
    write_whole_tokenizer(whole)
    prompts = [
        *ODD_PROMPTS, "", " ", "Hello,  WORLD!\t(a-b)\r\nx_y <z>", "[SEP] spelt out", "a [MASK] b", "[ sep ]",
        "a\x00b\x7fc\x1fd", "q" * 100, "q" * 101, f"{'q' * 60}.{'r' * 60}", "naïve café", "😀 ok", "中文 ab",
        "\x0b\x0c\x1c\x85", "a" * 9000, "a b " * 3000,
    ]  # fmt: skip
    for file in (tokenizer, whole):
        for ids in (TokenIds(file, 7), TokenIds(file, 200), TokenIds(file, 10, HEAD_TAIL), TokenIds(file, 200, HEAD_TAIL)):
            for prompt in prompts:
                assert ids.of(prompt) == ids.of_batch([prompt])[0], prompt[:40]


def test_only_plain_text_is_looked_up(tmp_path: Path, tokenizer: Path) -> None:
    write_whole_tokenizer(tmp_path / "whole.json")
    quick = TokenIds(tmp_path / "whole.json", 20)._quick
    assert quick is not None
    assert quick.ids("ab, c") == TokenIds(tmp_path / "whole.json", 20).of_batch(["ab, c"])[0]
    assert [quick.ids(text) for text in ("é", "q" * 101, "x [SEP]")] == [None, None, None]
    assert TokenIds(tokenizer, 20)._quick is None, "its vocabulary lacks most marks, so that words can be unknown"


def write_whole_tokenizer(path: Path) -> None:
    """BERT's kind with all of ASCII, some words, and pieces of words."""
    marks = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *marks,
        *(f"##{each}" for each in marks),
        "hello",
        "wor",
        "##ld",
        "caf",
    ]
    made = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(words[:5])
    made.save(str(path))
