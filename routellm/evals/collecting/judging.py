"""From answers to a judge's questions, and from its verdicts to grades and battles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeAlias

from routellm.errors import DataError
from routellm.evals.collecting.answers import Answered, Answers, ResultTable
from routellm.evals.collecting.conversations import Conversation
from routellm.evals.collecting.journal import Row
from routellm.evals.collecting.verdicts import compare_request, grade_request, read_grade, read_side

REFERENCE_CATEGORIES = frozenset({"math", "maths", "mathematics", "coding", "code", "reasoning"})
"""Where an answer is right or wrong, a reference helps a judge; elsewhere it would only make one phrasing the measure."""

_SIDES = {"A": "model_a", "B": "model_b", "C": "tie"}
_SWAPPED = {"model_a": "model_b", "model_b": "model_a"}

Verdicts: TypeAlias = Mapping[tuple[str, tuple[str, ...]], Row]
"""(prompt, identity) of a judge's question -> its finished call."""


def grade_questions(answers: Answers, references: Mapping[str, Any]) -> list[Conversation]:
    """One question to the judge for each turn of each model's complete conversations."""
    return [
        Conversation(
            prompt,
            (grade_request(_questions(answered)[:turn], _texts(answered)[:turn], _reference(answered, references, turn)),),
            _grade_identity(model, turn),
            {**answered.rows[0].labels, "judged": model, "judged_turn": turn},
        )
        for model, prompts in answers.items()
        for prompt, answered in prompts.items()
        if answered.complete
        for turn in range(1, len(answered.rows) + 1)
    ]


def grades(answers: Answers, verdicts: Verdicts) -> ResultTable:
    """A model's quality on a prompt: the mean of its grades over the turns, where each of them has one."""
    table = ResultTable()
    for model, prompts in answers.items():
        for prompt, answered in prompts.items():
            if not answered.complete:
                table.add(model, prompt, answered, "without answer", None)
                continue
            rows = [verdicts.get((prompt, _grade_identity(model, turn))) for turn in range(1, len(answered.rows) + 1)]
            outcome, values = _read_grades(rows)
            table.add(model, prompt, answered, outcome, sum(values) / len(values) if outcome == "graded" else None)
    return table


def _read_grades(rows: Sequence[Row | None]) -> tuple[str, list[float]]:
    values = []
    for row in rows:
        if row is None:
            return "not asked", []
        if row.response is None:
            return "failed", []
        value = read_grade(row.response)
        if value is None:
            return "unparsable", []
        values.append(value)
    return "graded", values


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two models' complete conversations on one prompt."""

    prompt: str
    model_a: str
    model_b: str
    first: Answered
    second: Answered


@dataclass
class Battles:
    """Decided battles as columns, and for each outcome how many there were.

    `counts`: "model_a", "model_b" and "tie" where both orders agree, "inconsistent" (a tie too) where they don't, and what was
    left out: "unparsable", "failed", "not asked".
    """

    table: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: [] for name in ("prompt", "model_a", "model_b", "winner", "consistent", "source", "contam")
        }
    )
    counts: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.table["prompt"])


def pairings(answers: Answers) -> list[Pairing]:
    """Every two models on every prompt that both have answered completely.

    Raises:
        DataError: there are not two models, or they have no prompt in common.
    """
    if len(answers) < 2:
        raise DataError(
            f"Battles need the answers of two models or more; these files hold those of {', '.join(answers)} alone."
        )
    found = [
        Pairing(prompt, model_a, model_b, first, answers[model_b][prompt])
        for model_a, model_b in combinations(answers, 2)
        for prompt, first in answers[model_a].items()
        if prompt in answers[model_b] and first.complete and answers[model_b][prompt].complete
    ]
    if not found:
        raise DataError(f"No prompt was answered by two of {', '.join(answers)}; ask them the same benchmark or file.")
    return found


def battle_questions(pairs: Sequence[Pairing], references: Mapping[str, Any]) -> list[Conversation]:
    """Two questions to the judge for each pairing: both orders, since judges favour a position."""
    return [
        Conversation(
            pair.prompt,
            (compare_request(_questions(pair.first), _texts(shown_a), _texts(shown_b), _reference(pair.first, references)),),
            identity,
            {**pair.first.rows[0].labels, "shown_as_a": identity[1], "shown_as_b": identity[2]},
        )
        for pair in pairs
        for identity, shown_a, shown_b in _orders(pair)
    ]


def decide(pairs: Sequence[Pairing], verdicts: Verdicts, judge: str, benchmarks: Sequence[str]) -> Battles:
    """Who won: the side that both orders name; a tie where they name different ones.

    Args:
        judge: the judge's name, for the column `source`.
        benchmarks: sources that are for testing only; battles on their prompts name them in `contam`, so that no trainer
            takes them.
    """
    battles = Battles()
    for pair in pairs:
        winners = []
        for swapped, (identity, _, _) in enumerate(_orders(pair)):
            row = verdicts.get((pair.prompt, identity))
            winner = _winner(row)
            winners.append(_SWAPPED.get(winner, winner) if swapped else winner)
        left_out = next((what for what in ("not asked", "failed", "unparsable") if what in winners), None)
        if left_out:
            battles.counts[left_out] += 1
            continue
        consistent = winners[0] == winners[1]
        winner = winners[0] if consistent else "tie"
        battles.counts[winner if consistent else "inconsistent"] += 1
        source = pair.first.rows[0].source
        values = (pair.prompt, pair.model_a, pair.model_b, winner, consistent, f"{source}, judged by {judge}")
        contam = source if source in benchmarks else ""
        for column, value in zip(battles.table.values(), (*values, contam), strict=True):
            column.append(value)
    return battles


def _winner(row: Row | None) -> str:
    if row is None:
        return "not asked"
    if row.response is None:
        return "failed"
    side = read_side(row.response)
    return "unparsable" if side is None else _SIDES[side]


def _orders(pair: Pairing) -> Iterator[tuple[tuple[str, ...], Answered, Answered]]:
    yield ("battle", pair.model_a, pair.model_b), pair.first, pair.second
    yield ("battle", pair.model_b, pair.model_a), pair.second, pair.first


def _grade_identity(model: str, turn: int) -> tuple[str, ...]:
    return ("grade", model, str(turn))


def _questions(answered: Answered) -> list[str]:
    return [row.question for row in answered.rows]


def _texts(answered: Answered) -> list[str]:
    return [row.response or "" for row in answered.rows]


def _reference(answered: Answered, references: Mapping[str, Any], turn: int | None = None) -> str | None:
    """The reference for a turn, or for the whole conversation; None where there is none, or the category wants none."""
    first = answered.rows[0]
    found = references.get(first.prompt.strip())
    category = first.labels.get("category")
    if found is None or (category is not None and str(category).lower() not in REFERENCE_CATEGORIES):
        return None
    if not isinstance(found, list):
        return str(found)
    if turn is not None:
        return str(found[turn - 1]) if turn <= len(found) else None
    return "\n\n".join(str(part) for part in found) or None
