"""BERT's tokenizer, fast where text is plain ASCII.

Hugging Face's `tokenizers` is the reference, and does every stretch of text that holds anything beyond ASCII. For ASCII its
rules come down to a few lines, which spare copies and an object for each token: control characters vanish, letters become
lower case, each punctuation mark is a word of its own. Words of the vocabulary are then looked up; only others are cut into
pieces by the reference, and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain, groupby

from tokenizers import Tokenizer

from routellm.embeddings.base import valid_utf8
from routellm.errors import CheckpointError

MAX_WORD = 100
"""Longer words are unknown as a whole."""

_REMEMBERED = 16_384
_REMEMBERED_LENGTH = 64

_WORDS = re.compile(r"[0-9a-z]+|[!-/:-@\[-`{-~]").findall
_LOWER = bytes(range(128)).lower().ljust(256, b"?")
_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r")
# What `str.split` takes for white space though the tokenizer drops it, joining what stands on either side.
_FALSE_SPACE = re.compile("[\x0b\x0c\x1c-\x1f\x85]+")


class _Words(dict[str, tuple[int, ...]]):
    """Words of the vocabulary -> their id; any other ASCII word -> the ids of its pieces, none where it is unknown."""

    def __init__(self, vocabulary: Mapping[str, int], cut: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__((word, (token,)) for word, token in vocabulary.items())
        self._cut = lru_cache(_REMEMBERED)(cut)

    def __missing__(self, word: str) -> tuple[int, ...]:
        return self._cut(word) if len(word) <= MAX_WORD else ()


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
            self._model = self.reference.model
            vocabulary = self.reference.get_vocab(with_added_tokens=False)
            self._unknown = vocabulary[self._model.unk_token]
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(f"The tokenizer is not a WordPiece tokenizer that can be read: {error!r}.") from error
        self.size = max(vocabulary.values()) + 1
        self._pieces = _Words(vocabulary, self._cut).__getitem__
        self._refer_remembered = lru_cache(_REMEMBERED)(self._refer)

    def ids(self, text: str) -> list[int]:
        """The ids that `reference` gives, without those of unknown words."""
        if text.isascii():
            return self._ascii_ids(text)
        ids: list[int] = []
        # No token reaches over white space, so the stretches between can go different ways.
        for is_ascii, run in groupby(_FALSE_SPACE.sub("", text).split(), str.isascii):
            stretch = " ".join(run)
            if is_ascii:
                ids += self._ascii_ids(stretch)
            else:
                ids += self._refer_remembered(stretch) if len(stretch) <= _REMEMBERED_LENGTH else self._refer(stretch)
        return ids

    def _ascii_ids(self, text: str) -> list[int]:
        words = _WORDS(text.encode("ascii").translate(_LOWER, _CONTROL).decode("ascii"))
        return list(chain.from_iterable(map(self._pieces, words)))

    def _cut(self, word: str) -> tuple[int, ...]:
        return tuple(token.id for token in self._model.tokenize(word) if token.id != self._unknown)

    def _refer(self, text: str) -> tuple[int, ...]:
        found = self.reference.encode(valid_utf8(text), add_special_tokens=False).ids
        return tuple(token for token in found if token != self._unknown)
