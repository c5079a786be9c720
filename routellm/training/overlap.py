"""Training prompts that are, or nearly are, prompts of a benchmark; and the list that says which.

Two measures, each of which finds what the other misses:

* `cosine`: of the prompts' vectors by the bundled embedder, which knows words but not their order. It finds rewordings, and
  templates with other numbers in them.
* `ngram`: the share of a benchmark prompt's runs of 13 words that a training prompt holds word for word (in lower case,
  punctuation aside). It finds a question inside a longer text. A prompt of 8 to 12 words is one run as a whole; a shorter one
  has to be the whole training prompt. Runs that stand in more than 10 prompts of the benchmark are its boilerplate, and don't
  count.

For each training row, its nearest prompt of the benchmark is listed, and for each prompt its nearest training row: every row
and every prompt over the limit is there, without the square of pairs between look-alikes. Rows and prompts are named by
number and hash; the list holds no text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.static import StaticEmbedder
from routellm.errors import DataError
from routellm.tables import read_table, write_table

Measure: TypeAlias = Literal["cosine", "ngram"]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

MIN_COSINE = 0.95
MIN_SHARE = 0.5
RUN = 13
SHORTEST_RUN = 8
MOST_SHARED = 10

_CHUNK = 1024
"""Training rows looked at together; with `_BLOCK` it bounds the memory."""
_BLOCK = 4096
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # scripts that don't put spaces between words: each character is one
_words = re.compile(f"[{_SPACELESS}]|[^\\W{_SPACELESS}]+").findall
_COLUMNS = ("train_row", "train_sha256", "benchmark", "prompt_sha256", "measure", "value")


@dataclass(frozen=True, slots=True)
class Overlap:
    """One near-copy: a training row (counted from 1) and a benchmark's prompt, both also by `prompt_hash`."""

    train_row: int
    train_sha256: str
    benchmark: str
    prompt_sha256: str
    measure: Measure
    value: float


def prompt_hash(prompt: str) -> str:
    """The sha256 that a list names a prompt by; white space around the prompt does not matter."""
    return hashlib.sha256(prompt.strip().encode("utf-8", "surrogatepass")).hexdigest()


def find_overlaps(
    train: Iterable[str],
    prompts: Sequence[str],
    *,
    benchmark: str = "benchmark",
    min_cosine: float = MIN_COSINE,
    min_share: float = MIN_SHARE,
    embedder: Embedder | None = None,
) -> list[Overlap]:
    """Training prompts that overlap with a benchmark's prompts, by either measure.

    Args:
        train: the training prompts, in the order that gives them their row numbers; any iterable, read once in chunks.
        prompts: the benchmark's prompts.
        benchmark: its name, for the list.
        min_cosine, min_share: list what reaches this value. A share of 0 lists every prompt with one run in common.
        embedder: gives the vectors, of length 1; None for the bundled one.
    """
    embedder = embedder or StaticEmbedder()
    search = OverlapSearch(benchmark, prompts, embedder, min_cosine=min_cosine, min_share=min_share)
    search_all(train, [search], embedder)
    return search.found()


def search_all(train: Iterable[str], searches: Sequence[OverlapSearch], embedder: Embedder) -> int:
    """Feed training prompts to several searches, each embedded once; returns how many there were."""
    rows = iter(train)
    count = 0
    while chunk := list(islice(rows, _CHUNK)):
        vectors = embedder.embed_batch(chunk)
        for search in searches:
            search.feed(chunk, vectors, count + 1)
        count += len(chunk)
    return count


class OverlapSearch:
    """A search for one benchmark's prompts in training prompts that come chunk by chunk. Arguments: `find_overlaps`."""

    def __init__(
        self,
        benchmark: str,
        prompts: Sequence[str],
        embedder: Embedder,
        *,
        min_cosine: float = MIN_COSINE,
        min_share: float = MIN_SHARE,
    ) -> None:
        self._benchmark = benchmark
        self._hashes = [prompt_hash(prompt) for prompt in prompts]
        self._vectors = embedder.embed_batch(prompts)
        self._runs = _RunIndex(prompts)
        self._least: dict[Measure, float] = {"cosine": min_cosine, "ngram": min_share}
        self._nearest: dict[Measure, _Nearest] = {measure: _Nearest(len(prompts)) for measure in self._least}
        self._train_hashes: dict[int, str] = {}

    def feed(self, chunk: Sequence[str], vectors: Vector, first_row: int) -> None:
        """Look at training prompts, with their vectors by the same embedder, numbered from `first_row` on."""
        touched = self._offer("ngram", *self._runs.shares(chunk), first_row)
        for start in range(0, len(self._hashes), _BLOCK):
            cosines = vectors @ self._vectors[start : start + _BLOCK].T
            rows, prompts = np.nonzero(cosines >= self._least["cosine"])
            values = cosines[rows, prompts].astype(np.float64)
            touched |= self._offer("cosine", rows, prompts + start, values, first_row)
        self._train_hashes |= {row: prompt_hash(chunk[row - first_row]) for row in touched}

    def found(self) -> list[Overlap]:
        """What was found so far, in the order of training rows."""
        return [
            Overlap(row, self._train_hashes[row], self._benchmark, self._hashes[prompt], measure, round(value, 4))
            for measure, nearest in self._nearest.items()
            for row, prompt, value in nearest.pairs()
        ]

    def _offer(self, measure: Measure, rows: Ints, prompts: Ints, values: Floats, first_row: int) -> set[int]:
        enough = values >= self._least[measure]
        rows = rows[enough] + first_row
        self._nearest[measure].offer(rows, prompts[enough], values[enough])
        return set(rows.tolist())


class _Nearest:
    """The nearest prompt of each row, and the nearest row of each prompt, out of pairs that come piece by piece."""

    def __init__(self, n_prompts: int) -> None:
        self._of_row: dict[int, tuple[int, float]] = {}
        self._row = np.zeros(n_prompts, dtype=np.int64)
        self._value = np.full(n_prompts, -np.inf)

    def offer(self, rows: Ints, prompts: Ints, values: Floats) -> None:
        order = np.argsort(-values, kind="stable")
        rows, prompts, values = rows[order], prompts[order], values[order]
        best = np.unique(rows, return_index=True)[1]  # the first, hence the highest, of each
        for row, prompt, value in zip(rows[best].tolist(), prompts[best].tolist(), values[best].tolist(), strict=True):
            if row not in self._of_row or value > self._of_row[row][1]:
                self._of_row[row] = prompt, value
        best = np.unique(prompts, return_index=True)[1]
        best = best[values[best] > self._value[prompts[best]]]
        self._row[prompts[best]], self._value[prompts[best]] = rows[best], values[best]

    def pairs(self) -> list[tuple[int, int, float]]:
        """(row, prompt, value), sorted."""
        pairs = {(row, prompt): value for row, (prompt, value) in self._of_row.items()}
        for prompt in np.flatnonzero(np.isfinite(self._value)).tolist():
            pairs[int(self._row[prompt]), prompt] = float(self._value[prompt])
        return [(row, prompt, value) for (row, prompt), value in sorted(pairs.items())]


class _RunIndex:
    """The runs of words of a benchmark's prompts, as hashes, by length."""

    def __init__(self, prompts: Sequence[str]) -> None:
        counted = [_word_hashes(prompt) for prompt in prompts]
        lengths = np.array([min(len(words), RUN) for words in counted], dtype=np.int64)
        self._total = np.zeros(len(prompts), dtype=np.int64)
        self._by_length: dict[int, tuple[NDArray[np.uint64], Ints, Ints, Ints]] = {}
        for length in np.unique(lengths[lengths > 0]).tolist():
            members = np.flatnonzero(lengths == length)
            words = [counted[member] for member in members.tolist()]
            runs, owner = runs_of(words, length)
            runs, owner = distinct(runs, members[owner])
            found, start, count = np.unique(runs, return_index=True, return_counts=True)
            rare = count <= MOST_SHARED
            self._total += np.bincount(owner[np.repeat(rare, count)], minlength=len(prompts))
            self._by_length[length] = found[rare], start[rare], count[rare], owner

    def shares(self, chunk: Sequence[str]) -> tuple[Ints, Ints, Floats]:
        """Rows of the chunk, prompts, and which share of the prompt's runs the row holds; only where there is one."""
        words = [_word_hashes(text) for text in chunk]
        rows, prompts = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for length, (known, start, count, owner) in self._by_length.items():
            runs, row = runs_of(words, length, whole=length < SHORTEST_RUN)
            if not len(known) or not len(runs):
                continue
            place = np.minimum(np.searchsorted(known, runs), len(known) - 1)
            hit = known[place] == runs
            place, row = distinct(place[hit].astype(np.uint64), row[hit])
            found = place.astype(np.int64)
            rows.append(np.repeat(row, count[found]))
            offsets = np.arange(int(count[found].sum())) - np.repeat(np.cumsum(count[found]) - count[found], count[found])
            prompts.append(owner[np.repeat(start[found], count[found]) + offsets])
        pairs, shared = np.unique(np.stack((np.concatenate(rows), np.concatenate(prompts))), axis=1, return_counts=True)
        return pairs[0], pairs[1], shared / np.maximum(self._total[pairs[1]], 1)


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, without white space and punctuation."""
    return _words(text.casefold())


def _word_hashes(text: str) -> NDArray[np.uint64]:
    # Python's hash of a string differs from run to run, and is only ever compared within one.
    return np.array([hash(word) for word in split_words(text)], dtype=np.int64).view(np.uint64)


def runs_of(texts: Sequence[NDArray[np.uint64]], length: int, whole: bool = False) -> tuple[NDArray[np.uint64], Ints]:
    """Hashes of all runs of `length` words, each with the index of its text; with `whole` only of texts of that length."""
    chosen = [index for index, text in enumerate(texts) if len(text) == length or (len(text) > length and not whole)]
    if not chosen:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    words = np.concatenate([texts[index] for index in chosen])
    owner = np.repeat(chosen, [len(texts[index]) for index in chosen])
    count = len(words) - length + 1
    runs = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        runs = runs * _FACTOR + words[offset : offset + count]
    within = owner[:count] == owner[length - 1 :]
    return runs[within], owner[:count][within]


def distinct(runs: NDArray[np.uint64], owner: Ints) -> tuple[NDArray[np.uint64], Ints]:
    """Each run once for each of its owners, sorted by run."""
    order = np.lexsort((owner, runs))
    runs, owner = runs[order], owner[order]
    new = np.ones(len(runs), dtype=bool)
    new[1:] = (runs[1:] != runs[:-1]) | (owner[1:] != owner[:-1])
    return runs[new], owner[new]


def write_overlaps(path: str | Path, overlaps: Sequence[Overlap]) -> None:
    """Write a list to a .jsonl, .csv or .parquet file.

    Raises:
        DataError: the file is of another kind, or can't be written.
    """
    write_table(path, {name: [getattr(overlap, name) for overlap in overlaps] for name in _COLUMNS})


def read_overlaps(path: str | Path) -> list[Overlap]:
    """Read a list that `write_overlaps` wrote.

    Raises:
        DataError: there is no such file, or it is no such list.
    """
    overlaps = []
    for number, (row, train, benchmark, prompt, measure, value) in enumerate(read_table(str(path), _COLUMNS), 1):
        if measure not in ("cosine", "ngram"):
            raise DataError(f"{path}, row {number}: the measure is {measure!r}; known are cosine and ngram.")
        try:
            overlaps.append(Overlap(int(row), str(train), str(benchmark), str(prompt), measure, float(value)))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, row {number}: {error}.") from error
    return overlaps
