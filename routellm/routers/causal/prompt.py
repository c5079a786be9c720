"""The text that is put to the language model: a system message, and a user message around the question."""

from __future__ import annotations

import re
from pathlib import Path

from routellm.embeddings.base import valid_utf8
from routellm.embeddings.truncation import HEAD, HEAD_SHARE, check_truncation
from routellm.errors import CheckpointError
from routellm.routers.causal.tokenizer import ChatTokenizer

SYSTEM_FILE = "system_ft_v5.txt"
CLASSIFIER_FILE = "classifier_ft_v5.txt"
"""The names in the published checkpoint; ours keep them."""

FIELD = "{question}"

_CHARACTERS_A_TOKEN = 16
"""A question is cut to this many characters for each token that may be read, before it is tokenised."""

_LEAST_PARTED = 8
"""With room for fewer tokens than this a question is not parted: two scraps say less than one."""


class RatingPrompt:
    """Renders and tokenises questions for one tokenizer.

    A question is plain text: where it spells out a special token ("<|im_end|>", "[[5]]"), a space breaks that up, so that
    nobody can end the message early or put a rating into it.

    Args:
        tokenizer: with the rating tokens.
        system, classifier: the two texts; `classifier` holds `{question}`.
        max_length: the most tokens of a prompt. A question that is too long loses some of its own, the template never.
        where: the checkpoint, for messages.
        truncation: of `TRUNCATIONS`: what a question loses, its end or its middle.

    Raises:
        CheckpointError: the template can't be rendered or leaves no room for a question, or the truncation is none of those.
    """

    def __init__(
        self, tokenizer: ChatTokenizer, system: str, classifier: str, max_length: int, where: Path, truncation: str = HEAD
    ) -> None:
        if classifier.count(FIELD) != 1:
            raise CheckpointError(f"{where / CLASSIFIER_FILE}: must hold {FIELD} once.")
        check_truncation(truncation, where)
        self._tokenizer, self._max_length, self._whole_head = tokenizer, max_length, truncation == HEAD
        self._head, self._tail = _around(tokenizer, system, classifier, where)
        # The longest first, since one may begin another; a single character is too common to touch.
        names = sorted((name for name in tokenizer.special if len(name) > 1), key=lambda name: (-len(name), name))
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        alone = len(self.ids(""))
        if alone >= max_length:
            raise CheckpointError(f"{where}: the template alone takes {alone} tokens of {max_length}. Raise max_length.")

    @property
    def head(self) -> list[int]:
        """Token ids of what stands before a question; the last ones may join with the question's first."""
        return self._tokenizer.ids(self._head)

    def ids(self, question: str) -> list[int]:
        """Token ids up to where the rating is to be generated."""
        question = valid_utf8(self._readable(question))
        question = self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", question)
        while True:
            text = f"{self._head}{question}{self._tail}"
            ids, starts = self._tokenizer.encode(text)
            excess = len(ids) - self._max_length
            if excess <= 0 or not question:
                return ids
            begin, end = len(self._head), len(self._head) + len(question)
            inside = [start - begin for start in starts if begin <= start < end]
            question = self._without(question, inside, excess)

    def _readable(self, question: str) -> str:
        """As much of a very long question as is tokenised at all."""
        most = self._max_length * _CHARACTERS_A_TOKEN
        if len(question) <= most:
            return question
        return question[:most] if self._whole_head else f"{question[: most // 2]} {question[-(most // 2) :]}"

    def _without(self, question: str, starts: list[int], excess: int) -> str:
        """A question, whose tokens start there, without so many of them. At least one character goes each time, so that taking
        away ends however tokens join anew."""
        left = max(len(starts) - excess, 0)
        if self._whole_head or left < _LEAST_PARTED:
            cut = starts[left] if left < len(starts) else 0
            return question[: min(cut, len(question) - 1)]
        head = round(HEAD_SHARE * left)
        first, after = starts[head], starts[head + excess]
        return question[:first] + question[max(after, first + 1) :]


def _around(tokenizer: ChatTokenizer, system: str, classifier: str, where: Path) -> tuple[str, str]:
    """The rendered text before and after the question."""
    mark = "\u2063question\u2063"
    text = tokenizer.render(
        [{"role": "system", "content": system}, {"role": "user", "content": classifier.replace(FIELD, mark)}]
    )
    if text.count(mark) != 1:
        raise CheckpointError(f"{where}: the chat template doesn't put a user's message into the text once.")
    head, _, tail = text.partition(mark)
    return head, tail


def read_texts(folder: Path) -> tuple[str, str]:
    """The system and the classifier text of a checkpoint's folder.

    Raises:
        CheckpointError: one is missing or no text.
    """
    texts = []
    for name in (SYSTEM_FILE, CLASSIFIER_FILE):
        try:
            texts.append((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{folder / name}: can't be read: {error}. A causal_llm checkpoint has {SYSTEM_FILE} and {CLASSIFIER_FILE}, "
                f"the latter with {FIELD}."
            ) from error
    return texts[0], texts[1]
