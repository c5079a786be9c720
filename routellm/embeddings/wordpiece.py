"""BERT's tokenizer, by look-ups where Hugging Face's makes copies and objects.

`tokenizers` is the reference, and still says what becomes of each character beyond ASCII, which is remembered. What is left is
the compiled kernel's: white space and punctuation part the text into words, most words are in the vocabulary, and the others
are cut into pieces. Without the kernel it is fast in Python too: the reference cuts words, and their pieces are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from routellm.embeddings.base import valid_utf8
from routellm.embeddings.kernel import COMPILED, scan
from routellm.embeddings.respelling import Respelling
from routellm.errors import CheckpointError

MAX_WORD = 100
"""Longer words are unknown as a whole."""

_REMEMBERED_WORDS = 16_384
_REMEMBERED_CHARACTERS = 65_536

# The rules for ASCII: control characters vanish, letters become lower case, each punctuation mark is a word of its own.
_LOWER = bytes(byte + 32 if bytes([byte]).isupper() else byte for byte in range(256))
_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r")
_MARKS = {code: (bytes([code]), b" %c " % code) for code in range(33, 127) if not bytes([code]).isalnum()}
_NOT_MARKS = bytes(code for code in range(256) if code not in _MARKS)


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


class _Words(dict[str, bytes]):
    """Words of the vocabulary -> their id as bytes; any other word -> the ids of its pieces, none where it is unknown.

    The last words that the vocabulary lacks are remembered beside it: once there are too many, all of them are forgotten.
    """

    def __init__(self, vocabulary: Mapping[str, int], cut: Callable[[str], Sequence[int]]) -> None:
        # Made anew, so that common words lie close together in memory.
        super().__init__((word.encode().decode(), _packed((token,))) for word, token in _by_id(vocabulary))
        self._cut = cut
        self._own = len(self)

    def __missing__(self, word: str) -> bytes:
        pieces = _packed(self._cut(word) if 1 < len(word) <= MAX_WORD else ())  # a lone character has no smaller pieces
        if len(self) >= self._own + _REMEMBERED_WORDS:
            for remembered in list(self)[self._own :]:
                self.pop(remembered, None)  # another thread may be at it too
        if len(word) <= MAX_WORD:
            self[word] = pieces
        return pieces


def _by_id(vocabulary: Mapping[str, int]) -> list[tuple[str, int]]:
    """Words and their ids in the order of ids, which is that of how common words are."""
    return sorted(vocabulary.items(), key=lambda entry: entry[1])


def _packed(ids: Sequence[int]) -> bytes:
    return np.array(ids, dtype=np.intp).tobytes()


class WordPiece:
    """Token ids of text. Unknown words have none. Safe to share between threads.

    Args:
        tokenizer: the JSON of a `tokenizers` tokenizer: BertNormalizer (lower case), BertPreTokenizer, WordPiece, and no
            special tokens.
        compiled: whether the compiled kernel does the work.

    Attributes:
        reference: the same tokenizer by Hugging Face's library.
        size: one more than the highest id.
        kernel: what does the work where it is compiled; otherwise None.

    Raises:
        CheckpointError: `tokenizer` is something else.
    """

    def __init__(self, tokenizer: str, *, compiled: bool = COMPILED) -> None:
        try:
            self.reference: Tokenizer = Tokenizer.from_str(tokenizer)
            self.reference.no_padding()
            self.reference.no_truncation()
            self._model = self.reference.model
            characters = _Characters(self.reference)
            vocabulary = self.reference.get_vocab(with_added_tokens=False)
            self._unknown = vocabulary[self._model.unk_token]
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(f"The tokenizer is not a WordPiece tokenizer that can be read: {error!r}.") from error
        self._spellings = Respelling(lambda run: run.translate(characters), compiled=compiled)
        self.kernel = self._compiled(vocabulary) if compiled else None
        self._tokens: Callable[[str], bytes] = self._in_python(vocabulary) if self.kernel is None else self.kernel.ids
        self.size = max(vocabulary.values()) + 1

    def ids(self, text: str) -> NDArray[np.intp]:
        """The ids that `reference` gives, without those of unknown words: shape (n,)."""
        return np.frombuffer(self.packed_ids(text), dtype=np.intp)

    def packed_ids(self, text: str) -> bytes:
        """The bytes of the array that `ids` gives."""
        return self._tokens(self.spelled(text))

    def spelled(self, text: str) -> str:
        """The text with the characters beyond ASCII as the tokenizer takes them; its tokens are the same."""
        return text if text.isascii() else self._spellings.of(text)

    def _compiled(self, vocabulary: Mapping[str, int]) -> scan.WordPiece:
        most = min(MAX_WORD, self._model.max_input_chars_per_word)
        prefix = self._model.continuing_subword_prefix.encode()
        words = {word.encode(): token for word, token in _by_id(vocabulary)}
        return scan.WordPiece(words, prefix, self._unknown, most, _LOWER, _CONTROL, bytes(_MARKS))

    def _in_python(self, vocabulary: Mapping[str, int]) -> Callable[[str], bytes]:
        pieces = _Words(vocabulary, self._cut).__getitem__

        def tokens(text: str) -> bytes:
            plain = text.encode().translate(_LOWER, _CONTROL)
            for mark in set(plain.translate(None, _NOT_MARKS)):
                plain = plain.replace(*_MARKS[mark])
            # Joining ids as bytes takes half the time of gathering them in a list and making an array of that.
            return b"".join(map(pieces, plain.decode().split()))

        return tokens

    def _cut(self, word: str) -> list[int]:
        return [token.id for token in self._model.tokenize(word) if token.id != self._unknown]
