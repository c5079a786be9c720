"""Preference data: who won on which prompt.

Every trainer starts from a list of `Preference`; `routellm.training.reading` makes it from files, whose layouts are in
`routellm.training.layouts`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from routellm.routers.battles import Outcome

STRONG, WEAK = "strong", "weak"
"""The names that stand for every strong and every weak model where comparisons are read by role."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One comparison: on `prompt`, did `first` win, `second`, or neither? `weight` is how much it counts in a loss."""

    prompt: str
    first: str
    second: str
    outcome: Outcome
    source: str
    weight: float = 1.0

    def turned(self) -> Preference:
        """The same comparison, told from the other side."""
        outcome = _TURNED[self.outcome]
        return Preference(self.prompt, self.second, self.first, outcome, self.source, self.weight)


_TURNED: dict[Outcome, Outcome] = {"first": "second", "second": "first", "tie": "tie"}


@dataclass(slots=True)
class Preferences:
    """What was read.

    Attributes:
        rows: the comparisons.
        files: for each of `rows`, the file that it is from.
        numbers: for each of `rows`, its row in that file, from 1; where several rows make a comparison, the first of them.
        dropped: how many rows (comparisons, where several make one) were left out, by reason.
        notes: what was decided while reading, such as which columns hold scores; a sentence each.
    """

    rows: list[Preference] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def describe_dropped(dropped: Counter[str]) -> Iterable[str]:
    """One line for each reason why rows were left out."""
    return (f"left out {count:,} rows: {reason}" for reason, count in dropped.most_common())
