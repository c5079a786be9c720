"""The fast tokenizer against Hugging Face's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.embeddings.base import valid_utf8
from routellm.embeddings.static import BUNDLED
from routellm.embeddings.wordpiece import MAX_WORD, WordPiece
from tests.embeddings.encoders import write_tokenizer

TOKENIZER = WordPiece((BUNDLED / "tokenizer.json").read_text(encoding="utf-8"))
UNKNOWN = TOKENIZER.reference.token_to_id("[UNK]")

ASCII = "".join(map(chr, range(128)))
# White space of every kind, what only Python takes for it, accents alone and in one, scripts that are split by character,
# and signs whose lower case has two characters.
AWKWARD = (
    "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff"
    "\u0301\u0345\U0001d165éßİΣςñ中文한글नि’“—🙂\ud800\ufffd"
)


def ids(text: str, tokenizer: WordPiece = TOKENIZER) -> list[int]:
    return tokenizer.ids(text).tolist()


def expected(text: str) -> list[int]:
    """What Hugging Face's tokenizer gives for the whole text, but for unknown words."""
    found = TOKENIZER.reference.encode(valid_utf8(text), add_special_tokens=False).ids
    return [token for token in found if token != UNKNOWN]


@given(st.text(alphabet=ASCII))
def test_any_ascii_text_gives_the_reference_ids(text: str) -> None:
    assert ids(text) == expected(text)


@given(st.lists(st.text(alphabet="abeinorstuxyz019", min_size=1, max_size=MAX_WORD + 20)).map(" ".join))
def test_words_that_must_be_cut_give_the_reference_ids(text: str) -> None:
    assert ids(text) == expected(text)


@given(st.text(alphabet=st.one_of(st.sampled_from(AWKWARD), st.sampled_from("ab C.,\x00 \n"), st.characters())))
def test_any_text_gives_the_reference_ids(text: str) -> None:
    assert ids(text) == expected(text)


@pytest.mark.parametrize(
    "text",
    [
        "What's 12.5% of 3,840? (Show your work!)",
        "a\x00b\x1fc\x7fd",
        "one\x0btwo\x1cthree\x85four",
        "[PAD] [UNK] [CLS] [SEP] [MASK] ##ing",
        "a" * MAX_WORD,
        "a" * (MAX_WORD + 1),
        "x" * 5000 + " y",
        "don’t “quote” — naïve café",
        "e\u0301 \u0301e e \u0301",
        "ＦＵＬＬ　ＷＩＤＴＨ",
        "lone \ud800 surrogate\udfff",
        "mixed中文text and 한국어 और हिन्दी",
    ],
)
def test_awkward_text_gives_the_reference_ids(text: str) -> None:
    assert ids(text) == expected(text)
    assert ids(text) == expected(text), "a second time, out of what is remembered"


def test_a_word_of_a_hundred_letters_is_known_and_a_longer_one_is_not() -> None:
    assert ids("a" * MAX_WORD)
    assert ids("a" * (MAX_WORD + 1)) == []


def test_special_tokens_spelled_out_are_ordinary_text() -> None:
    assert ids("[PAD]") == [*ids("["), *ids("pad"), *ids("]")]


def test_words_that_no_piece_fits_have_no_ids(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json")  # knows the letters a to z and nothing else
    tiny = WordPiece((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert ids("ab 9 a9b ! é日 c", tiny) == [*ids("ab", tiny), *ids("é", tiny), *ids("c", tiny)]
    assert len(tiny.ids("ab")) == 2
