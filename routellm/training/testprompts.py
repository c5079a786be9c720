"""Do training prompts hold test prompts of the benchmarks? Answered offline, by hashes that ship with the package.

`data/test_prompts.safetensors` holds hashes of the test prompts of MMLU, GSM8K, MT-Bench (both turns) and RouterBench, and no
text; `python -m routellm.evals.test_prompts` makes it from the pinned downloads. Texts are compared as their words: letter
case, white space and punctuation don't matter. Two things of each test prompt are kept:

* the hash of the whole prompt;
* up to 4 runs of 13 words out of its question, without options of a multiple choice and without worked examples before it. A
  question of 8 to 12 words is one run; one of fewer words has no run, since nothing tells it from chance. Runs that stand in
  more than 10 prompts of a benchmark are its boilerplate; a question whose runs are all boilerplate has none.

A training prompt holds a test prompt where it is the same as a whole, or where at least half of the runs stand in it: a
question with other options, inside a longer text, or with a few words changed. Rewordings are for `routellm contamination`,
which compares vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.training.overlap import MIN_SHARE, MOST_SHARED, RUN, SHORTEST_RUN, distinct, runs_of, split_words

FILE = Path(__file__).parent / "data" / "test_prompts.safetensors"
KEPT = 4
"""Runs of words that are kept of a question."""

_CHUNK = 1024
_PREFIX = 20
"""Bits of a hash by which most runs are ruled out."""
_Hashes = NDArray[np.uint64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TestPrompt:
    """A training prompt that holds a test prompt: its place in the order given, the benchmark, and the share of the test
    prompt's runs that it holds (1 where the two are the same as a whole)."""

    __test__ = False  # it is no test of pytest's

    row: int
    benchmark: str
    share: float


@dataclass(frozen=True, slots=True)
class TestPrompts:
    """Hashes of test prompts.

    Attributes:
        benchmarks: their names.
        whole: uint64, shape (n_prompts,), the hash of each prompt's words.
        benchmark: uint8, shape (n_prompts,), which of `benchmarks` it belongs to.
        run: uint64, shape (n_runs,), hashes of runs of words, rising.
        owner: uint16, shape (n_runs,), the prompt that each run belongs to.
    """

    __test__ = False

    benchmarks: tuple[str, ...]
    whole: _Hashes
    benchmark: NDArray[np.uint8]
    run: _Hashes
    owner: NDArray[np.uint16]

    @classmethod
    def of(cls, prompts: Mapping[str, Sequence[tuple[str, str]]]) -> TestPrompts:
        """Hash prompts: benchmark -> (whole prompt, its question) of each; repeated ones count once."""
        kept = {name: list({_hash_of(split_words(whole)): (whole, question) for whole, question in pairs}.items())
                for name, pairs in prompts.items()}  # fmt: skip
        runs, owners, first = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)], 0
        for pairs in kept.values():
            found, owner = _chosen_runs([question for _, (_, question) in pairs])
            runs.append(found)
            owners.append(owner + first)
            first += len(pairs)
        run, owner = np.concatenate(runs), np.concatenate(owners)
        order = np.lexsort((owner, run))
        return cls(
            tuple(kept),
            np.array([digest for pairs in kept.values() for digest, _ in pairs], dtype=np.uint64),
            np.repeat(np.arange(len(kept), dtype=np.uint8), [len(pairs) for pairs in kept.values()]),
            run[order],
            owner[order].astype(np.uint16),
        )

    @classmethod
    def load(cls, path: Path = FILE) -> TestPrompts:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
            arrays = {name: file.get_tensor(name) for name in ("whole", "benchmark", "run", "owner")}
        return cls(tuple(about["benchmarks"]), **arrays)

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write to one file, with `about` (where the prompts are from) as its metadata."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {
            "whole": self.whole,
            "benchmark": self.benchmark,
            "run": self.run,
            "owner": self.owner,
        }
        path.write_bytes(save(arrays, {"about": json.dumps({"benchmarks": self.benchmarks, **about})}))

    def search(self, prompts: Iterable[str]) -> Iterator[TestPrompt]:
        """Those of `prompts` that hold a test prompt, each with the one of which it holds most; read once, in chunks."""
        whole_order = np.argsort(self.whole)
        whole = self.whole[whole_order]
        likely = np.zeros(1 << _PREFIX, dtype=bool)
        likely[_prefix(self.run)] = True
        total = np.bincount(self.owner, minlength=len(self.whole))
        rows = iter(prompts)
        first = 0
        while chunk := list(islice(rows, _CHUNK)):
            words = [split_words(prompt) for prompt in chunk]
            same = np.array([_hash_of(each) for each in words], dtype=np.uint64)
            place = np.minimum(np.searchsorted(whole, same), len(whole) - 1)
            found = {row: (1.0, int(whole_order[place[row]])) for row in np.flatnonzero(whole[place] == same).tolist()}
            for row, prompt, share in self._shares(words, likely, total):
                if share >= MIN_SHARE and share > found.get(row, (0.0, 0))[0]:
                    found[row] = share, prompt
            for row, (share, prompt) in sorted(found.items()):
                yield TestPrompt(first + row, self.benchmarks[self.benchmark[prompt]], share)
            first += len(chunk)

    def _shares(
        self, words: Sequence[Sequence[str]], likely: NDArray[np.bool_], total: _Ints
    ) -> Iterator[tuple[int, int, float]]:
        """Row, prompt, and which share of the prompt's runs the row holds; only where there is one.

        Args:
            likely: by the first bits of a hash, whether any run begins so: rules out most at a fraction of a search's cost.
            total: how many runs each prompt has.
        """
        hashed = [_word_hashes(each) for each in words]
        found, rows = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
        for length in range(SHORTEST_RUN, RUN + 1):
            run, row = runs_of(hashed, length)
            maybe = likely[_prefix(run)]
            found.append(run[maybe])
            rows.append(row[maybe])
        run, row = distinct(np.concatenate(found), np.concatenate(rows))
        start, end = np.searchsorted(self.run, run, "left"), np.searchsorted(self.run, run, "right")
        pairs = np.array(
            [
                (at, owner)
                for at, low, high in zip(*(each[end > start].tolist() for each in (row, start, end)), strict=True)
                for owner in self.owner[low:high].tolist()
            ],
            dtype=np.int64,
        ).reshape(-1, 2)
        pairs, held = np.unique(pairs, axis=0, return_counts=True)
        for (at, owner), count in zip(pairs.tolist(), held.tolist(), strict=True):
            yield at, owner, count / int(total[owner])


def _prefix(hashes: _Hashes) -> NDArray[np.int64]:
    return (hashes >> np.uint64(64 - _PREFIX)).astype(np.int64)


def _hash_of(words: Sequence[str]) -> int:
    return _digest(" ".join(words))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


_digest_of_word = lru_cache(1 << 17)(_digest)


def _word_hashes(words: Sequence[str]) -> _Hashes:
    return np.array([_digest_of_word(word) for word in words], dtype=np.uint64)


def _chosen_runs(questions: Sequence[str]) -> tuple[_Hashes, _Ints]:
    """Up to `KEPT` runs of each question, and the question that each belongs to.

    The runs with the least hashes are kept: a choice as good as drawing them, and the same wherever the question stands.
    """
    words = [_word_hashes(split_words(question)) for question in questions]
    found, owners = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for length in range(SHORTEST_RUN, RUN + 1):
        of_length = [text if len(text) == length or len(text) > RUN == length else text[:0] for text in words]
        run, owner = distinct(*runs_of(of_length, length))
        _, place, count = np.unique(run, return_inverse=True, return_counts=True)
        # A short question is one run alone: told apart by its options only, it stands for none of the prompts that ask it.
        rare = count[place] <= (MOST_SHARED if length == RUN else 1)
        run, owner = run[rare], owner[rare]
        order = np.lexsort((run, owner))
        run, owner = run[order], owner[order]
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner, "left")
        found.append(run[rank < KEPT])
        owners.append(owner[rank < KEPT])
    return np.concatenate(found), np.concatenate(owners)
