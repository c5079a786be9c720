"""The bundled embedder: a prompt's vector is the sum of its tokens' rows in a table, normalised to length 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path

import numpy as np

from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.kernel import COMPILED, scan, tell_if_missing
from routellm.embeddings.table import StaticTable, read_table
from routellm.embeddings.wordpiece import WordPiece
from routellm.errors import CheckpointError

BUNDLED = Path(__file__).parent / "data"

MAX_CHARACTERS = 4096
"""Of a longer prompt, the first and the last half of this many characters count: a question stands at either end."""


class StaticEmbedder(Embedder):
    """Sums rows of a static token table distilled from all-MiniLM-L6-v2. Needs no network and no extra.

    A vector has length 1, or is all zeros where the prompt holds no known token. Safe to share between threads.

    Args:
        path: a folder that `python -m routellm.training.distill` wrote; None for the bundled table.

    Raises:
        CheckpointError: a file is missing, altered, or of a newer format.
    """

    blocking = False

    def __init__(self, path: str | Path | None = None) -> None:
        folder = BUNDLED if path is None else Path(path).expanduser()
        table = read_table(folder)
        tell_if_missing()
        self._embed = compiled_embedding(table) if COMPILED else embedding_in_python(table)
        self._tokenizer = WordPiece(table.tokenizer)
        if self._tokenizer.size > len(table.rows):
            raise CheckpointError(
                f"The tokenizer in {str(folder)!r} knows {self._tokenizer.size} tokens, its table {len(table.rows)}."
            )
        self.dim = len(table.scales)
        self.fingerprint = table.fingerprint

    def embed(self, prompt: str) -> Vector:
        if len(prompt) > MAX_CHARACTERS:
            prompt = f"{prompt[: MAX_CHARACTERS // 2]} {prompt[-(MAX_CHARACTERS // 2) :]}"
        return self._embed(self._tokenizer.packed_ids(prompt))

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        vectors = np.empty((len(prompts), self.dim), dtype=np.float32)
        for row, prompt in enumerate(prompts):
            vectors[row] = self.embed(prompt)
        return vectors


def compiled_embedding(table: StaticTable) -> Callable[[bytes], Vector]:
    """What embeds tokens, whose ids it takes as the bytes of an array: float32, shape (dim,)."""
    embed = scan.Rows(table.rows, table.shifts, table.scales).embed
    return lambda ids: np.frombuffer(embed(ids), dtype=np.float32)


def embedding_in_python(table: StaticTable) -> Callable[[bytes], Vector]:
    """The same."""
    rows = table.rows.astype(np.int16) << table.shifts[:, None]

    def embed(ids: bytes) -> Vector:
        # Sums of integers are exact, so that no order of addition changes a vector.
        found = rows.take(np.frombuffer(ids, dtype=np.intp), axis=0)
        vector: Vector = np.add.reduce(found, axis=0, dtype=np.int32).astype(np.float32)
        vector *= table.scales
        # Squares of float32 are exact in float64, and this adds them one after another, as the kernel does.
        norm = sqrt(np.add.accumulate(np.square(vector, dtype=np.float64))[-1])
        if norm > 0.0:
            vector /= np.float32(norm)
        return vector

    return embed
