"""`python -m routellm.training.language_states`: what a language model makes of prompts, for students to learn from.

A prompt's state is the mean of its tokens' states after some of the model's layers. In the middle of a model these say more of
how hard a prompt is than a sentence encoder does (docs/lab-log.md), but they take a whole language model to compute.
The static table (`routellm.training.distill`) and the encoder of `bert` (`routellm train bert --states`) learn to predict
them, which takes prompts and no labels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from routellm.commands import command_parser, run_command
from routellm.embeddings.base import Vector
from routellm.errors import CheckpointError, ConfigError, DataError
from routellm.prompt_files import prompt_text
from routellm.routers.causal.base import KNOWN_BASES, find_base, hash_files
from routellm.routers.causal.llama import Llama
from routellm.routers.causal.tokenizer import TOKENIZER_FILE, load_tokenizer
from routellm.tables import check_writable, read_table, write_table
from routellm.training.testprompts import TestPrompts
from routellm.training.token_table import principal_directions

LAYERS = 20
MAX_CHARACTERS = 1_200
MAX_TOKENS = 300
ENDING = "\nAnswer:"
"""Follows every prompt: what the model has in mind for the answer shows where it is to begin."""

MADE_BY = "made_by"
"""The column that says what made a state."""

_SAVE_EVERY = 500
_SPREADS = 4.0
_EXAMPLES = """
python -m routellm.training.language_states --prompts recipe/difficulty.parquet arena.parquet --output states.parquet
python -m routellm.training.language_states --prompts prompts.jsonl --limit 5000 --output states.parquet
"""


@dataclass(frozen=True, slots=True)
class States:
    """Prompts and what a language model made of them.

    Attributes:
        prompts: n texts, cut to `MAX_CHARACTERS`.
        states: float32, shape (n, width).
    """

    prompts: list[str]
    states: Vector

    def components(self, count: int) -> Vector:
        """The first principal components of the states, shape (n, min(count, width)), with the spread that they have.

        A few tokens get huge values in single dimensions; what lies beyond 4 robust standard deviations is cut off.
        """
        low, middle, high = np.quantile(self.states, (0.16, 0.5, 0.84), axis=0)
        reach = _SPREADS * (high - low) / 2
        cut = np.clip(self.states, middle - reach, middle + reach).astype(np.float64)
        cut -= cut.mean(axis=0)
        return np.asarray(cut @ principal_directions(cut, count), dtype=np.float32)


def read_states(path: str) -> States:
    """Read a file that the command wrote.

    Raises:
        DataError: it lacks a column, a prompt or a state is missing, or states differ in width or are not finite.
        MissingExtraError: the extra `eval` is not installed.
    """
    rows = list(read_table(path, ["prompt", "state"]))
    widths = {len(state) if isinstance(state, list) else 0 for _, state in rows}
    if len(widths) != 1 or not all(isinstance(prompt, str) and prompt for prompt, _ in rows) or widths == {0}:
        raise DataError(
            f"{path}: needs a prompt and a state in every row, states of one width; it has {len(rows):,} rows, states of the "
            f"widths {sorted(widths)}. Make it with `python -m routellm.training.language_states`."
        )
    states = np.array([state for _, state in rows], dtype=np.float32)
    if not np.isfinite(states).all():
        raise DataError(f"{path}: holds states that are not finite.")
    return States([prompt for prompt, _ in rows], states)


class StateReader:
    """Computes states.

    Args:
        folder: a model of Llama's kind, with its tokenizer.
        layers: how many of its layers.

    Raises:
        CheckpointError: the folder holds no such model.
        ConfigError: it has fewer layers.
    """

    def __init__(self, folder: Path, layers: int = LAYERS) -> None:
        self._model, self._tokenizer, self._layers = Llama(folder), load_tokenizer(folder / TOKENIZER_FILE), layers
        if not 1 <= layers <= self._model.layers:
            raise ConfigError(f"--layers is {layers}; the model in {str(folder)!r} has {self._model.layers}.")
        self._ending = self._ids(ENDING)

    def state(self, prompt: str) -> Vector:
        """float32, shape (width,)."""
        ids = self._ids(prompt[:MAX_CHARACTERS])[:MAX_TOKENS] + self._ending
        # The first token is where heads look that have nothing to look at: its state says nothing of the prompt.
        state: Vector = self._model.states(ids, self._layers)[1:].mean(axis=0)
        if not np.isfinite(state).all():
            raise CheckpointError(f"The model computes numbers that are not finite for the prompt {prompt[:60]!r}.")
        return state

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def write_states(arguments: argparse.Namespace) -> None:
    """Compute the states that the output lacks, saving it now and then. Test prompts of benchmarks are left out."""
    output = Path(arguments.output)
    check_writable(output)
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit is {arguments.limit}; it must be 1 or more.")
    values = (value for file in arguments.prompts for (value,) in read_table(file, [arguments.column]))
    read = list(dict.fromkeys(text for text in map(prompt_text, values) if text))
    tests = {found.row for found in TestPrompts.load().search(read)}
    if tests:
        print(f"left out {len(tests):,} prompts that hold a benchmark's test prompt")
    prompts = list(dict.fromkeys(text[:MAX_CHARACTERS] for row, text in enumerate(read) if row not in tests))
    order = np.random.default_rng(arguments.seed).permutation(len(prompts))[: arguments.limit]
    wanted = [prompts[place] for place in order]
    folder = find_base(arguments.base)
    made_by = _maker(folder, arguments.layers)
    known = _known(output, made_by)
    found = dict(zip(known.prompts, known.states, strict=True))
    missing = [prompt for prompt in wanted if prompt not in found]
    print(f"{len(wanted):,} of {len(prompts):,} prompts, of which {len(wanted) - len(missing):,} are in {output}")
    reader = StateReader(folder, arguments.layers)
    for start in range(0, len(missing), _SAVE_EVERY):
        part = missing[start : start + _SAVE_EVERY]
        found |= {prompt: reader.state(prompt) for prompt in part}
        states = [state.tolist() for state in found.values()]
        write_table(output, {"prompt": list(found), "state": states, MADE_BY: [made_by] * len(found)})
        print(f"{start + len(part):,} of {len(missing):,} computed", flush=True)


def _maker(folder: Path, layers: int) -> str:
    """What tells a model's states from those of another one, or after other layers."""
    hashes = hashlib.sha256(json.dumps(hash_files(folder), sort_keys=True).encode()).hexdigest()
    return f"{layers} layers of {hashes[:16]}"


def _known(output: Path, made_by: str) -> States:
    """The states that the output holds already.

    Raises:
        DataError: it holds states that another model, or other layers of it, made.
    """
    if not output.is_file():
        return States([], np.empty((0, 0), dtype=np.float32))
    others = {maker for (maker,) in read_table(str(output), [MADE_BY])} - {made_by}
    if others:
        raise DataError(
            f"{output} holds states of {', '.join(sorted(map(str, others)))}; those to come would be of {made_by}. "
            f"Give another --output, or the same --base and --layers."
        )
    return read_states(str(output))


def build_parser(prog: str = "python -m routellm.training.language_states") -> argparse.ArgumentParser:
    """The command's parser."""
    about = "Compute what a language model makes of prompts, for a table and an encoder to learn to predict."
    parser = command_parser(prog, about, _EXAMPLES, write_states)
    add = parser.add_argument
    add("--prompts", nargs="+", required=True, metavar="FILE", help="tables of prompts (.parquet, .jsonl, .csv, .txt)")
    add("--column", default="prompt", help="the column of the prompts (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="so many of the distinct prompts, drawn by the seed (default: all)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    add("--base", default=next(iter(KNOWN_BASES)), metavar="NAME",
        help="the language model: a known name, a folder, or a hub repository (default: %(default)s)")  # fmt: skip
    add("--layers", type=int, default=LAYERS, metavar="N", help="after which of its layers (default: %(default)s)")
    add("--output", required=True, metavar="FILE.parquet",
        help="prompts and states; what it already holds is kept, so that a run that was stopped goes on")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
