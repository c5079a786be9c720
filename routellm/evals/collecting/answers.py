"""Several models' answers to the same prompts, out of the files of `routellm responses`; and what is made of them: a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from routellm.errors import DataError
from routellm.evals.collecting.journal import Row, read_rows
from routellm.tables import check_writable, read_table, write_table

PROMPT = "prompt"
COST_SUFFIX = "|total_cost"


@dataclass(frozen=True, slots=True)
class Answered:
    """A model's side of one conversation: the finished calls, in the order of the turns."""

    rows: tuple[Row, ...]

    @property
    def failed(self) -> bool:
        """Whether a call failed, so that there is nothing to judge."""
        return any(row.status == "failed" for row in self.rows)

    @property
    def complete(self) -> bool:
        """Whether every turn has an answer."""
        return not self.failed and len(self.rows) == self.rows[0].turns

    @property
    def cost(self) -> float | None:
        """Dollars; None where a call's cost is not known."""
        costs = [row.cost for row in self.rows if row.cost is not None]
        return sum(costs) if len(costs) == len(self.rows) else None

    @property
    def text(self) -> str:
        """The answer to the last turn."""
        return self.rows[-1].response or ""


Answers: TypeAlias = dict[str, dict[str, Answered]]
"""Model -> prompt -> its side of the conversation."""


def read_answers(files: Sequence[str]) -> Answers:
    """Read files of `routellm responses`; several may belong to one model.

    Raises:
        DataError: a file can't be read or is something else, a model was asked with different parameters, or one turn of a
            prompt twice.
    """
    turns: dict[str, dict[str, dict[int, Row]]] = {}
    parameters: dict[str, Mapping[str, Any]] = {}
    for file in files:
        for row in read_rows(file):
            if parameters.setdefault(row.model, row.parameters) != row.parameters:
                raise DataError(
                    f"{file}: {row.model!r} was asked with {row.parameters}, and in another file with "
                    f"{parameters[row.model]}. Compare answers to one kind of question."
                )
            asked = turns.setdefault(row.model, {}).setdefault(row.prompt, {})
            if row.turn in asked:
                raise DataError(
                    f"{file}: {row.model!r} has answered the prompt {row.prompt!r:.80} (turn {row.turn}) twice in these files."
                )
            asked[row.turn] = row
    if not turns:
        raise DataError(f"No finished call in {', '.join(files)}.")
    return {
        model: {prompt: Answered(tuple(rows[turn] for turn in sorted(rows))) for prompt, rows in prompts.items()}
        for model, prompts in turns.items()
    }


def read_references(file: str, column: str) -> dict[str, Any]:
    """Prompt (without white space around it) -> reference, out of a table with the columns `prompt` and `column`.

    Raises:
        DataError: the table can't be read, lacks a column, or has two references for one prompt.
    """
    references: dict[str, Any] = {}
    for number, (prompt, reference) in enumerate(read_table(file, [PROMPT, column]), 1):
        if not isinstance(prompt, str) or reference is None or reference == "":
            raise DataError(
                f"{file}, row {number}: a row needs a prompt and a reference ({column!r}); one of them is missing."
            )
        if references.setdefault(prompt.strip(), reference) != reference:
            raise DataError(f"{file}, row {number}: this prompt has another reference in an earlier row: {prompt!r:.80}.")
    if not references:
        raise DataError(f"{file} holds no reference.")
    return references


@dataclass
class ResultTable:
    """Qualities by prompt and model, to be written in the form that `routellm evaluate --benchmark FILE` reads.

    A model has an empty value where there is no result for it; a prompt without any result is left out.

    Attributes:
        counts: model -> outcome -> how many prompts.
    """

    qualities: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    _labels: dict[str, dict[str, str]] = field(default_factory=dict)
    _costs: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def add(self, model: str, prompt: str, answered: Answered, outcome: str, quality: float | None) -> None:
        """Count an outcome, and hold the quality where there is one."""
        self.counts.setdefault(model, Counter())[outcome] += 1
        self.qualities.setdefault(model, {})
        if quality is None:
            return
        self.qualities[model][prompt] = quality
        self._costs.setdefault(model, {})[prompt] = answered.cost
        self._labels.setdefault(prompt, {name: str(label) for name, label in answered.rows[0].labels.items()})

    def write(self, path: str) -> int:
        """Write the table (.jsonl, .csv or .parquet) and return how many prompts it holds.

        Raises:
            DataError: there is no result at all, a label has a model's name, or the file can't be written.
            MissingExtraError: its kind needs a package that is not installed.
        """
        check_writable(path)
        prompts = list(self._labels)
        if not prompts:
            raise DataError(f"There is no result to write to {path!r}: {self._summary()}.")
        table: dict[str, list[Any]] = {PROMPT: prompts}
        names = dict.fromkeys(name for labels in self._labels.values() for name in labels)
        for name in names:
            if name == PROMPT or name in self.qualities:
                raise DataError(f"The label {name!r} can't be a column, since that is a model's name too.")
            table[name] = [self._labels[prompt].get(name) for prompt in prompts]
        for model, qualities in self.qualities.items():
            table[model] = [qualities.get(prompt) for prompt in prompts]
        for model, costs in self._costs.items():
            known = [costs.get(prompt) for prompt in prompts]
            if None not in known:  # a benchmark file holds all of a model's costs, or none
                table[model + COST_SUFFIX] = known
        write_table(path, table)
        return len(prompts)

    def _summary(self) -> str:
        lines = (f"{model}: {', '.join(f'{n} {what}' for what, n in counts.items())}" for model, counts in self.counts.items())
        return "; ".join(lines) or "nothing was answered"
