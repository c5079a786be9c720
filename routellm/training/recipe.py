"""`python -m routellm.training.recipe`: the comparisons that the shipped routers are trained on, from public results.

Input is a folder of tables that were extracted from public repositories, with each model's result on each prompt; see
`TABLES`. A pair's outcome on a prompt is mostly a tie and says little; how many of many models fail it says much more, and of
any pair. So four kinds of comparison are written, each in a file of its own and weighted, with the family of tasks as source:

* `difficulty.parquet`: the weak model fails with the share of models that fail. Families differ in that share for reasons
  that are not the prompt's (which models were run, how answers were read), so what trains on it should allow each source an
  intercept.
* `gain.parquet`: models as strong as a strong one over models as weak as a weak one; families can be compared.
* `exam.parquet`: the gain once more, of MMLU's own validation questions: exams of many subjects are what the other families
  have least of.
* `length.parquet`: the longer the worked solution of a GSM8K training question, the likelier the weak model fails.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from routellm.commands import command_parser, run_command
from routellm.errors import DataError
from routellm.prompt_files import prompt_text
from routellm.tables import column_names, read_table, write_table
from routellm.training.layouts import number_in
from routellm.training.overlap import prompt_hash, read_overlaps
from routellm.training.preferences import STRONG, WEAK

_COLUMNS = ("prompt", "source", "strong", "weak", "outcome", "weight")
_EXAMPLES = """
python -m routellm.training.recipe --data extracted --exclude near_copies.jsonl --output recipe
"""

Row = tuple[str, str, str, str, str, float]


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table of results.

    Attributes:
        name: the file, without `.parquet`.
        prefix: what the families of its prompts are called by; the column `category` follows.
        strong: models about as good as a strong one.
        weak: models about as good as a weak one.
        merged: categories that are families by themselves; all others are one family. None: each category is a family.
        skipped: categories that are not used.
    """

    name: str
    prefix: str
    strong: tuple[str, ...]
    weak: tuple[str, ...]
    merged: tuple[str, ...] | None = None
    skipped: frozenset[str] = frozenset()

    def family(self, category: str) -> str:
        """The family of a category."""
        return self.prefix if self.merged is not None and category not in self.merged else f"{self.prefix}-{category}"


TABLES = (
    TableSpec(
        "zellinger_cascades",
        "cascades",
        ("gpt-4o", "llama3.1-405b", "llama3.1-70b", "qwen2.5-72b-instruct"),
        ("llama3.1-8b", "gpt-4o-mini", "qwen2.5-32b-coder-instruct", "llama3.2-3b"),
    ),
    TableSpec(
        "mmlu_pro_wide",
        "mmlu-pro",
        ("gpt-4o-2024-05-13", "gemini-1.5-pro-002", "gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct"),
        (
            *("Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B-v0.1", "Meta-Llama-3-8B", "Phi-3-mini-4k-instruct", "Yi-34B"),
            *("c4ai-command-r-v01", "Meta-Llama-3_1-8B-Instruct", "Qwen1.5-72B-Chat"),
        ),
    ),
    TableSpec(
        "fasteval_cot_bbh_math",
        "fasteval",
        ("gpt-4-0613",),
        (
            *("gpt-3.5-turbo-0613", "gpt-3.5-turbo-0301", "WizardLM--WizardMath-70B-V1.0"),
            *("OpenAssistant--llama2-70b-oasst-sft-v10", "WizardLM--WizardLM-70B-V1.0", "stabilityai--StableBeluga2"),
        ),
        merged=("math",),
    ),
    TableSpec("evouna_nq_tq", "evouna", ("gpt-4", "bing-chat"), ("gpt-3.5-turbo", "text-davinci-003")),
    TableSpec(
        "llmrouter_dcrouter",
        "dcrouter",
        ("llama-3.1-nemotron-51b-instruct", "llama-3.3-nemotron-super-49b-v1"),
        ("mistral-7b-instruct-v0.3", "llama-3.1-8b-instruct", "gemma-2-9b-it"),
        skipped=frozenset({"agentverse-mgsm"}),
    ),
)
_WIDE_KEYS = frozenset({"question_id", "prompt", "category", "src", "source", "contam"})
SOLUTIONS = "gsm8k_train_difficulty"
EXAM = "cascades-mmlu"
"""The family whose gains are an own kind."""


@dataclass(slots=True)
class Results:
    """What the models made of one prompt."""

    prompt: str
    family: str
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def mean(self, models: Iterable[str]) -> float:
        """The mean score of those of `models` that have one; NaN where none has."""
        found = [sum(self.scores[model]) / len(self.scores[model]) for model in models if model in self.scores]
        return sum(found) / len(found) if found else math.nan


def read_results(folder: Path, spec: TableSpec) -> Iterator[Results]:
    """Each distinct prompt of a table with its results, without what the table marks as touching a benchmark.

    Raises:
        DataError: the table is missing, or a score is no number from 0 to 1.
    """
    file = str(folder / f"{spec.name}.parquet")
    columns = column_names(file)
    models = [] if "model" in columns else [column for column in columns if column not in _WIDE_KEYS]
    wanted = ["prompt", "category", "contam", *(models or ("model", "score"))]
    found: dict[tuple[str, str], Results] = {}
    for number, values in enumerate(read_table(file, wanted), 1):
        row: Mapping[str, Any] = dict(zip(wanted, values, strict=True))
        prompt = prompt_text(row["prompt"])
        if row["contam"] or not prompt or row["category"] in spec.skipped:
            continue
        family = spec.family(row["category"])
        results = found.setdefault((prompt, family), Results(prompt, family))
        for model in models or (row["model"],):
            score = number_in(file, number, model, row[model] if models else row["score"])
            if score is None:
                continue
            if not 0.0 <= score <= 1.0:
                raise DataError(f"{file}, row {number}: the score of {model} is {score:g}; scores go from 0 to 1.")
            results.scores[model].append(score)
    yield from found.values()


def difficulty_rows(results: Results) -> list[Row]:
    """The share of models that fail as the weak model's chance to lose."""
    failing = 1.0 - results.mean(list(results.scores))
    return _rows(results.prompt, f"difficulty/{results.family}", failing, 0.0)


def gain_rows(results: Results, spec: TableSpec) -> list[Row]:
    """A strong model's results against a weak one's, taken as independent given the prompt; none where one has none."""
    strong, weak = results.mean(spec.strong), results.mean(spec.weak)
    if math.isnan(strong) or math.isnan(weak):
        return []
    return _rows(results.prompt, f"gain/{results.family}", strong * (1.0 - weak), weak * (1.0 - strong))


def length_rows(folder: Path) -> Iterator[Row]:
    """GSM8K's training questions by the rank of their solutions' length.

    Raises:
        DataError: the table is missing.
    """
    read = read_table(str(folder / f"{SOLUTIONS}.parquet"), ["prompt", "solution_chars"])
    found = {prompt_text(prompt): int(length) for prompt, length in read}
    for rank, prompt in enumerate(sorted(found, key=lambda one: (found[one], one))):
        yield from _rows(prompt, "length/gsm8k", (rank + 0.5) / len(found), 0.0)


def _rows(prompt: str, source: str, wins: float, losses: float) -> list[Row]:
    shares = (("strong", wins), ("tie", 1.0 - wins - losses), ("weak", losses))
    return [(prompt, source, STRONG, WEAK, outcome, round(share, 4)) for outcome, share in shares if share > 5e-5]


def write_recipe(arguments: argparse.Namespace) -> int:
    """Read all tables, leave out what is on the lists, and write the four files."""
    folder, output = Path(arguments.data), Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    exclude = {one.train_sha256 for file in arguments.exclude for one in read_overlaps(file)}
    kinds: dict[str, list[Row]] = {"difficulty": [], "gain": [], "exam": [], "length": list(length_rows(folder))}
    for spec in TABLES:
        for results in read_results(folder, spec):
            if len(results.scores) > 1:
                kinds["difficulty"] += difficulty_rows(results)
                gains = gain_rows(results, spec)
                kinds["gain"] += gains
                if results.family == EXAM:
                    kinds["exam"] += [(prompt, f"exam/{EXAM}", *rest) for prompt, _, *rest in gains]  # type: ignore[misc]
    for kind, rows in kinds.items():
        kept = [row for row in rows if prompt_hash(row[0]) not in exclude]
        if not kept:
            raise DataError(f"{folder}: no row of the kind {kind!r} is left.")
        write_table(output / f"{kind}.parquet", dict(zip(_COLUMNS, zip(*kept, strict=True), strict=True)))
        print(f"{kind}: {len(kept):,} rows on {len({row[0] for row in kept}):,} prompts, {len(rows) - len(kept):,} left out")
    return 0


def build_parser(prog: str = "python -m routellm.training.recipe") -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser(prog, "Write the comparisons that the shipped routers are trained on.", _EXAMPLES, write_recipe)
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help=f"the tables: {', '.join(spec.name for spec in TABLES)}, {SOLUTIONS}")
    add("--exclude", nargs="+", default=[], metavar="LIST", help="leave out the prompts of these lists of near-copies")
    add("--output", required=True, metavar="DIR", help="where the four files go")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
