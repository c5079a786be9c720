"""Prompts from files and hub data sets, read by the same rule as a request's messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from routellm.errors import DataError, RequestError
from routellm.messages import PromptFrom, encode_messages, read_prompt
from routellm.tables import read_table

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of a table, and what was out of the ordinary in it.

    Attributes:
        prompts: every prompt that a router can be asked about, in the table's order, repeated ones too.
        rows: the row (from 0) that each prompt stands in.
        source: where they are from, in words.
        empty: rows whose prompt holds no text; they are left out, as requests without text never reach a router.
        unreadable: rows whose prompt is neither text nor a list of turns; left out.
        repeated: how many prompts stood in an earlier row already; they count again, as repeated calls do.
        conversations: how many prompts were a user's turn of a list of turns or messages.
    """

    prompts: tuple[str, ...]
    rows: tuple[int, ...]
    source: str
    empty: tuple[int, ...] = ()
    unreadable: tuple[int, ...] = ()
    repeated: int = 0
    conversations: int = 0

    def notes(self) -> list[str]:
        """What a person should know before trusting a figure from these prompts, one sentence each."""
        notes = []
        if self.empty:
            notes.append(f"left out {_count(self.empty, 'prompt')} without text ({_rows(self.empty)})")
        if self.unreadable:
            notes.append(
                f"left out {_count(self.unreadable, 'value')} that can't be read as a prompt ({_rows(self.unreadable)})"
            )
        if self.repeated:
            notes.append(f"counted {self.repeated:,} that repeat an earlier prompt again")
        if self.conversations:
            notes.append(f"took {self.conversations:,} from lists of turns")
        return notes


def read_prompts(source: str, column: str = "prompt", *, split: str = "train", prompt_from: PromptFrom = "last") -> PromptSet:
    """Read one column of prompts; see `routellm.tables.read_table` for what `source` may be.

    A prompt is a string, a list of the user's turns, or a list of chat messages; a list may also come as JSON in a string,
    as csv files and the arena data sets hold it. Of a list, the turns that `prompt_from` says make the prompt.

    Raises:
        DataError: the table can't be read, lacks the column, or holds no prompt.
        MissingExtraError: its kind needs a package that is not installed.
    """
    values = (value for (value,) in read_table(source, [column], split))
    prompts = collect_prompts(values, source, prompt_from)
    if not prompts.prompts:
        raise DataError(f"{source} holds no prompt in the column {column!r}: {'; '.join(prompts.notes()) or 'it is empty'}.")
    return prompts


def collect_prompts(values: Iterable[object], source: str, prompt_from: PromptFrom = "last") -> PromptSet:
    """Sort the values of a column into prompts and others."""
    prompts: list[str] = []
    rows: list[int] = []
    empty: list[int] = []
    unreadable: list[int] = []
    conversations = 0
    for row, value in enumerate(values):
        turns = _as_turns(value)
        try:
            text = value if turns is None else _from_turns(turns, prompt_from)
        except RequestError:
            text = None
        if not isinstance(text, str):
            unreadable.append(row)
        elif not text.strip():
            empty.append(row)
        else:
            prompts.append(text)
            rows.append(row)
            conversations += turns is not None
    repeated = len(prompts) - len(set(prompts))
    return PromptSet(tuple(prompts), tuple(rows), source, tuple(empty), tuple(unreadable), repeated, conversations)


def prompt_text(value: object) -> str:
    """The prompt in a cell of a table: a text, a list of turns or of chat messages, or the JSON of such a list.

    Of a list the first turn of the user counts, which is the one that was judged first. Empty where there is no text.
    """
    turns, text = value, ""
    if isinstance(value, str):
        text = value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return text
        try:
            turns = json.loads(text)
        except (ValueError, RecursionError):
            return text
    if not isinstance(turns, list) or not turns:
        return text
    if isinstance(turns[0], str):
        return turns[0].strip()
    found = collect_prompts([turns], "", "first").prompts
    return found[0].strip() if found else text


def _as_turns(value: object) -> list[Any] | None:
    """The turns where `value` is a list, or the JSON of a list of strings or of objects with roles; else None."""
    if isinstance(value, list):
        return value
    if isinstance(value, str) and value[:1] == "[" and value.rstrip()[-1:] == "]":
        try:
            turns = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return None  # a prompt that merely begins like a list
        is_chat = turns and all(isinstance(turn, str) or (isinstance(turn, dict) and "role" in turn) for turn in turns)
        return turns if is_chat else None
    return None


def _from_turns(turns: list[Any], prompt_from: PromptFrom) -> str:
    messages = [{"role": "user", "content": _without_surrogates(turn)} if isinstance(turn, str) else turn for turn in turns]
    return read_prompt(encode_messages(messages), prompt_from).text or ""


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # what no request could hold, a scraped data set may


def _count(rows: tuple[int, ...], what: str) -> str:
    return f"{len(rows):,} {what}{'s' if len(rows) != 1 else ''}"


def _rows(rows: tuple[int, ...]) -> str:
    shown = ", ".join(str(row) for row in rows[:_SHOWN])
    return f"row{'s' if len(rows) != 1 else ''} {shown}{', ...' if len(rows) > _SHOWN else ''}"
