"""What is asked of a model: conversations of one or more of the user's turns, out of a benchmark or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routellm.errors import DataError, did_you_mean
from routellm.evals.benchmarks.base import BENCHMARKS
from routellm.tables import column_names, read_table

_LABELS = ("category", "domain", "group")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A user's turns, each asked after the model has answered the one before.

    Attributes:
        prompt: by what the conversation is known in results: of a benchmark's, what routers get to see.
        turns: what the user says.
        identity: what else tells this conversation from others with the same turns; part of each call's key.
        labels: what is kept beside each answer, JSON-able: a category, say.
    """

    prompt: str
    turns: tuple[str, ...]
    identity: tuple[str, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Questions:
    """The conversations of one source: a benchmark, or a file, whose name without its folder stands for it.

    `repeated` prompts stood in it before and are asked once.
    """

    source: str
    conversations: tuple[Conversation, ...]
    repeated: int = 0


def read_questions(source: str, limit: int | None = None) -> Questions:
    """Read a benchmark by its name, or a file (.jsonl, .csv, .parquet, .txt).

    A text file has a prompt in each line that is not blank. Any other has a column `prompt` (a text, or a list of turns) or
    `turns` (a list of turns), and may have `category`, `domain` or `group`, which are kept beside each answer.

    Args:
        limit: take only so many, the first ones.

    Raises:
        DataError: there is no such benchmark or file, or a prompt in it is empty, or no text.
    """
    if source in BENCHMARKS:
        conversations, name = _benchmark_conversations(source), source
    elif Path(source).is_file():
        conversations, name = _file_conversations(source), Path(source).name
    else:
        known = sorted(BENCHMARKS)
        raise DataError(
            f"There is no benchmark and no file {source!r}{did_you_mean(source, known)}. Benchmarks: {', '.join(known)}."
        )
    firsts: dict[str, Conversation] = {}
    for conversation in conversations:
        firsts.setdefault(conversation.prompt, conversation)
    distinct = list(firsts.values())
    if not distinct:
        raise DataError(f"{source} holds no prompt.")
    return Questions(name, tuple(distinct[:limit]), len(conversations) - len(distinct))


def _benchmark_conversations(name: str) -> list[Conversation]:
    from routellm.downloads import fetch

    benchmark = BENCHMARKS[name]()
    paths = fetch(benchmark.files())
    data = benchmark.read(paths)
    later_turns: dict[str, tuple[str, ...]] = {}
    for path in paths:  # routers see the first turn alone, so that a benchmark's content holds no later ones
        if path.name.endswith(".jsonl") and "turns" in column_names(str(path)):
            later_turns |= {one.prompt: one.turns for one in _file_conversations(str(path))}
    return [
        Conversation(
            prompt,
            later_turns.get(prompt, (prompt,)),
            labels={group: labels[row] for group, labels in data.groups.items()},
        )
        for row, prompt in enumerate(data.prompts)
    ]


def _file_conversations(file: str) -> list[Conversation]:
    if file.endswith(".txt"):
        columns = ["prompt"]
        rows: list[tuple[Any, ...]] = [(line,) for (line,) in read_table(file, columns) if line.strip()]
    else:
        names = column_names(file)
        question = "turns" if "turns" in names and "prompt" not in names else "prompt"
        columns = [question, *(label for label in _LABELS if label in names)]
        rows = list(read_table(file, columns))
    conversations = []
    for number, (value, *labels) in enumerate(rows, 1):
        turns = _turns(value, f"{file}, row {number}, column {columns[0]!r}")
        kept = {name: str(label) for name, label in zip(columns[1:], labels, strict=True) if label is not None}
        conversations.append(Conversation(turns[0], turns, labels=kept))
    return conversations


def _turns(value: object, where: str) -> tuple[str, ...]:
    turns: Sequence[object] = value if isinstance(value, list) else [value]
    for turn in turns:
        if not isinstance(turn, str):
            raise DataError(f"{where}: a prompt must be a text or a list of texts, not {value!r:.80}.")
        if not turn.strip():
            raise DataError(f"{where}: the prompt is empty.")
        check_text(turn, where)
    if not turns:
        raise DataError(f"{where}: the list of turns is empty.")
    return tuple(str(turn) for turn in turns)


def check_text(text: str, where: str) -> None:
    """Raise DataError where `text` holds half a character (a lone surrogate), which no request can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: it holds half a character (a lone surrogate), which can't be sent to a model.") from None
