"""BERT's tokenizer, by look-ups where Hugging Face's makes copies and objects.

`tokenizers` is the reference, and still says what becomes of each character beyond ASCII and how a word that the vocabulary
lacks is cut into pieces; both are remembered. What is left is fast in Python too: white space and punctuation part the text
into words, and most words are in the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain

from tokenizers import Tokenizer

from routellm.embeddings.base import valid_utf8
from routellm.errors import CheckpointError

MAX_WORD = 100
"""Longer words are unknown as a whole."""

_REMEMBERED_WORDS = 16_384
_REMEMBERED_CHARACTERS = 65_536

# The rules for ASCII: control characters vanish, letters become lower case, each punctuation mark is a word of its own.
_ASCII_WORDS = re.compile(r"[0-9a-z]+|[!-/:-@\[-`{-~]").findall
_LOWER = bytes(range(128)).lower().ljust(256, b"?")
_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r")


class _Characters(dict[int, str]):
    """What each character becomes: lower case without accents, between spaces where it stands alone, or nothing.

    A table for `str.translate`. That characters can be looked at one by one holds since accents are dropped: nothing else of
    the normalisation depends on a character's neighbours.
    """

    def __init__(self, reference: Tokenizer) -> None:
        super().__init__()
        self._normalise: Callable[[str], str] = reference.normalizer.normalize_str
        self._part: Callable[[str], list[object]] = reference.pre_tokenizer.pre_tokenize_str

    def __missing__(self, code: int) -> str:
        text = "".join(
            each if each.isalnum() or each == " " or len(self._part(f"a{each}a")) == 1 else f" {each} "
            for each in self._normalise(valid_utf8(chr(code)))
        )
        if len(self) < _REMEMBERED_CHARACTERS:
            self[code] = text
        return text


class _Words(dict[str, tuple[int, ...]]):
    """Words of the vocabulary -> their id; any other word -> the ids of its pieces, none where it is unknown."""

    def __init__(self, vocabulary: Mapping[str, int], cut: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__((word, (token,)) for word, token in vocabulary.items())
        self._cut = lru_cache(_REMEMBERED_WORDS)(cut)

    def __missing__(self, word: str) -> tuple[int, ...]:
        return self._cut(word) if 1 < len(word) <= MAX_WORD else ()  # a lone character has no smaller pieces


class WordPiece:
    """Token ids of text. Unknown words have none. Safe to share between threads.

    Args:
        tokenizer: the JSON of a `tokenizers` tokenizer: BertNormalizer (lower case), BertPreTokenizer, WordPiece, and no
            special tokens.

    Attributes:
        reference: the same tokenizer by Hugging Face's library.
        size: one more than the highest id.

    Raises:
        CheckpointError: `tokenizer` is something else.
    """

    def __init__(self, tokenizer: str) -> None:
        try:
            self.reference: Tokenizer = Tokenizer.from_str(tokenizer)
            self.reference.no_padding()
            self.reference.no_truncation()
            self._model = self.reference.model
            self._characters = _Characters(self.reference)
            vocabulary = self.reference.get_vocab(with_added_tokens=False)
            self._unknown = vocabulary[self._model.unk_token]
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(f"The tokenizer is not a WordPiece tokenizer that can be read: {error!r}.") from error
        self._pieces = _Words(vocabulary, self._cut).__getitem__
        self.size = max(vocabulary.values()) + 1

    def ids(self, text: str) -> list[int]:
        """The ids that `reference` gives, without those of unknown words."""
        if text.isascii():
            words = _ASCII_WORDS(text.encode("ascii").translate(_LOWER, _CONTROL).decode("ascii"))
        else:
            words = text.translate(self._characters).split()
        return list(chain.from_iterable(map(self._pieces, words)))

    def _cut(self, word: str) -> tuple[int, ...]:
        return tuple(token.id for token in self._model.tokenize(word) if token.id != self._unknown)
