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
    """Sums rows of a static token table distilled from all-MiniLM-L6-v2 and from a language model's states. Needs no network
    and no extra.

    A vector has length 1, or is all zeros where the prompt holds no known token. Safe to share between threads.

    Args:
        path: a folder that `python -m routellm.training.distill` wrote; None for the bundled table.

    Attributes:
        tokenizer: cuts what is read of a prompt into tokens.
        rows: the table, as the compiled kernel has it; None without a kernel.

    Raises:
        CheckpointError: a file is missing, altered, or of a newer format.
    """

    blocking = False

    def __init__(self, path: str | Path | None = None) -> None:
        folder = BUNDLED if path is None else Path(path).expanduser()
        table = read_table(folder)
        tell_if_missing()
        self.rows = scan.Rows(table.rows, table.shifts, table.scales) if COMPILED else None
        self._embed = embedding_in_python(table) if self.rows is None else compiled_embedding(self.rows)
        self.tokenizer = WordPiece(table.tokenizer)
        if self.tokenizer.size > len(table.rows):
            raise CheckpointError(
                f"The tokenizer in {str(folder)!r} knows {self.tokenizer.size} tokens, its table {len(table.rows)}."
            )
        self.dim = len(table.scales)
        self.fingerprint = table.fingerprint

    def embed(self, prompt: str) -> Vector:
        return self._embed(self.tokenizer.packed_ids(_ends(prompt)))

    def read(self, prompt: str) -> str:
        """What of a prompt is cut into tokens, with characters beyond ASCII as the tokenizer takes them."""
        return self.tokenizer.spelled(_ends(prompt))

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        vectors = np.empty((len(prompts), self.dim), dtype=np.float32)
        for row, prompt in enumerate(prompts):
            vectors[row] = self.embed(prompt)
        return vectors


def _ends(prompt: str) -> str:
    if len(prompt) <= MAX_CHARACTERS:
        return prompt
    return f"{prompt[: MAX_CHARACTERS // 2]} {prompt[-(MAX_CHARACTERS // 2) :]}"


def compiled_embedding(rows: scan.Rows) -> Callable[[bytes], Vector]:
    """What embeds tokens, whose ids it takes as the bytes of an array: float32, shape (dim,)."""
    return lambda ids: np.frombuffer(rows.embed(ids), dtype=np.float32)


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
