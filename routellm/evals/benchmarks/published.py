"""What the three benchmarks of the RouteLLM paper share: their pair of models, and their lists of left-out prompts."""

from __future__ import annotations

from pathlib import Path

from routellm.errors import DataError
from routellm.tables import read_table
from routellm.types import ModelPair

STRONG, WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"
PAIR = ModelPair(STRONG, WEAK)
MODELS = (STRONG, WEAK)

CONTAMINATED = "contaminated"
"""The reason under which prompts of the lists are counted."""

_CORRECT = {"True": 1.0, "False": 0.0}


def contaminated_prompts(path: Path) -> frozenset[str]:
    """The prompts that the paper left out since its training data hold them, or near-copies of them.

    Raises:
        DataError: the file is not such a list.
    """
    return frozenset(str(prompt) for (prompt,) in read_table(str(path), ["eval_prompt"]))


def correctness(value: object, model: str, path: Path, row: int) -> float:
    """1.0 for "True", 0.0 for "False".

    Raises:
        DataError: it is neither; names file, row and column.
    """
    try:
        return _CORRECT[str(value)]
    except KeyError:
        raise DataError(f"{path}, row {row:,}, column {model!r}: must be True or False, not {value!r}.") from None
