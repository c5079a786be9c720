"""Where long prompts are cut for an encoder, in training and in serving alike.

A question may stand at either end of a prompt: before a long text, or after worked examples that many prompts share. Cut at
the right end, all prompts that begin alike look alike.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from routellm.embeddings.base import valid_utf8
from routellm.embeddings.wordpiece import MAX_WORD, WordPiece
from routellm.errors import CheckpointError

HEAD, HEAD_TAIL = "head", "head-tail"
TRUNCATIONS = (HEAD, HEAD_TAIL)
"""Of a long prompt its first tokens are read, or its first and its last ones."""

HEAD_SHARE = 0.4
"""How much of what is read of a long prompt by `HEAD_TAIL` comes from its beginning: most questions stand at the end."""

CHARACTERS_A_TOKEN = 64
"""A prompt is cut to this many characters for each token that is read, before it is tokenised: the tokens end long before."""


def check_truncation(truncation: str, where: Path) -> None:
    """Check what the checkpoint at `where` says of it.

    Raises:
        CheckpointError: it is none of `TRUNCATIONS`.
    """
    if truncation not in TRUNCATIONS:
        known = ", ".join(TRUNCATIONS)
        raise CheckpointError(f"{where}: the truncation of prompts is {truncation!r}; it must be one of: {known}.")


def what_is_read(max_tokens: int, truncation: str) -> str:
    """How many tokens of a prompt are read and which, as a part of a fingerprint."""
    return f"{max_tokens}" if truncation == HEAD else f"{max_tokens} {truncation}"


class TokenIds:
    """Token ids of prompts, the special ones included, without padding. Safe to share between threads.

    Args:
        tokenizer: a `tokenizers` file; its own padding and truncation are overridden.
        max_tokens: of longer prompts only so many tokens are read.
        truncation: which ones, of `TRUNCATIONS`.

    Raises:
        CheckpointError: the file can't be read, or the truncation is none of those.
    """

    def __init__(self, tokenizer: Path, max_tokens: int, truncation: str = HEAD) -> None:
        check_truncation(truncation, tokenizer)
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises Exception itself
            raise CheckpointError(f"{str(tokenizer)!r} is not a tokenizer that can be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if truncation == HEAD:
            self._tokenizer.enable_truncation(max_tokens)
        self._max_characters = CHARACTERS_A_TOKEN * max_tokens
        self._head = max_tokens if truncation == HEAD else max(1, round(HEAD_SHARE * max_tokens))
        self._tail = max_tokens - self._head
        self._quick = _QuickTokens.of(tokenizer, self._tokenizer)

    def of(self, prompt: str) -> list[int]:
        """The ids of one prompt."""
        text = self._readable(prompt)
        quick = None if self._quick is None else self._quick.ids(text)
        return self._cut(self._tokenizer.encode(text).ids if quick is None else quick)

    def of_batch(self, prompts: Sequence[str]) -> list[list[int]]:
        """The ids of each prompt, equal to `of`."""
        encoded = self._tokenizer.encode_batch([self._readable(prompt) for prompt in prompts])
        return [self._cut(each.ids) for each in encoded]

    def _readable(self, prompt: str) -> str:
        if len(prompt) > self._max_characters:
            half = self._max_characters // 2
            prompt = f"{prompt[:half]} {prompt[-half:]}" if self._tail else prompt[: self._max_characters]
        return valid_utf8(prompt)

    def _cut(self, ids: list[int]) -> list[int]:
        # The special tokens are the first and the last id, so that both stay.
        if len(ids) <= self._head + self._tail:
            return ids
        return ids[: self._head] + ids[-self._tail :] if self._tail else [*ids[: self._head - 1], ids[-1]]


class _QuickTokens:
    """The ids of most prompts in a fifth of the time, by look-ups.

    Of prompts whose tokens follow from the vocabulary alone: ASCII, no word so long that it is unknown, no special token spelt
    out.
    """

    def __init__(self, wordpiece: WordPiece, first: int, last: int, special: Sequence[str]) -> None:
        self._wordpiece, self._first, self._last, self._special = wordpiece, first, last, special

    @classmethod
    def of(cls, file: Path, tokenizer: Tokenizer) -> _QuickTokens | None:
        """For BERT's lower-case tokenizer with all of ASCII in its vocabulary; None for any other."""
        text = file.read_text(encoding="utf-8")
        made = json.loads(text)
        normalizer, splitter, model = (made.get(part) or {} for part in ("normalizer", "pre_tokenizer", "model"))
        kinds = (normalizer.get("type"), splitter.get("type"), model.get("type"))
        if kinds != ("BertNormalizer", "BertPreTokenizer", "WordPiece"):
            return None
        characters = {*string.ascii_lowercase, *string.digits}
        needed = characters.union(string.punctuation, (f"{model['continuing_subword_prefix']}{each}" for each in characters))
        plain = normalizer["lowercase"] and normalizer["clean_text"] and model["max_input_chars_per_word"] >= MAX_WORD
        around = tokenizer.encode("a").ids
        if not plain or not needed <= set(model["vocab"]) or around[1:-1] != [model["vocab"]["a"]]:
            return None
        return cls(WordPiece(text), around[0], around[-1], [each["content"] for each in made["added_tokens"]])

    def ids(self, text: str) -> list[int] | None:
        """The ids, the special ones included; None where they have to be found by the tokenizer itself."""
        if not text.isascii() or max(map(len, text.split()), default=0) > MAX_WORD:
            return None
        if any(token in text for token in self._special):
            return None
        return [self._first, *self._wordpiece.ids(text).tolist(), self._last]
