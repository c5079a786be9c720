"""What holds for every benchmark: the built-in ones on small files of their layouts and on the real ones, a file of one's own,
and a class that a user defines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from routellm.downloads import RemoteFile, mirror_path
from routellm.errors import DataError, UnknownNameError
from routellm.evals.benchmarks.base import BENCHMARKS, Benchmark, BenchmarkData
from routellm.evals.benchmarks.factory import open_benchmark
from routellm.evals.benchmarks.file import FileBenchmark
from routellm.evals.benchmarks.gsm8k import GSM8K
from routellm.evals.benchmarks.mmlu import MMLU
from routellm.evals.benchmarks.mt_bench import MTBench
from routellm.evals.benchmarks.routerbench import RouterBench
from routellm.types import ModelPair
from tests.evals.benchmarks import samples
from tests.evals.mirror import load


class Squares(Benchmark):
    """A user's own: one file of lines `prompt<TAB>strong<TAB>weak`."""

    def files(self) -> Sequence[RemoteFile]:
        return [RemoteFile("https://example.org/owner/repo/c0ffee/squares.tsv", 20, "0" * 64)]

    def read(self, paths: Sequence[Path]) -> BenchmarkData:
        try:
            rows = [line.split("\t") for line in paths[0].read_text(encoding="utf-8").splitlines()]
            qualities = {name: np.array([float(row[1 + column]) for row in rows]) for column, name in enumerate(("s", "w"))}
        except (ValueError, IndexError) as error:
            raise DataError(f"{paths[0]} has no three columns: {error}") from error
        return BenchmarkData(prompts=tuple(row[0] for row in rows), qualities=qualities)

    def default_pair(self) -> ModelPair:
        return ModelPair("s", "w")


def _squares(folder: Path) -> list[Path]:
    path = folder / "squares.tsv"
    path.write_text("2 squared?\t1\t0\n3 squared?\t1\t1\n", encoding="utf-8")
    return [path]


def _own_file(folder: Path) -> list[Path]:
    return [samples.write_csv(folder / "own.csv", ["prompt", "s", "w"], [("one", 1, 0), ("two", 0.5, 1), ("three", 1, 1)])]


@dataclass(frozen=True)
class Case:
    """How to make a benchmark and small files of its layout. A file of one's own is part of the benchmark itself."""

    make: Callable[[Path], Benchmark]
    write: Callable[[Path], list[Path]]
    own_file: bool = False

    def prepare(self, folder: Path) -> tuple[Benchmark, list[Path]]:
        return self.make(folder), self.write(folder)


CASES = {
    "mmlu": Case(lambda folder: MMLU(["anatomy", "astronomy"]), samples.mmlu),
    "gsm8k": Case(lambda folder: GSM8K(), samples.gsm8k),
    "mt-bench": Case(lambda folder: MTBench(), samples.mt_bench),
    "routerbench": Case(lambda folder: RouterBench(), samples.routerbench),
    "a file": Case(lambda folder: FileBenchmark(folder / "own.csv"), _own_file, own_file=True),
    "a user's class": Case(lambda folder: Squares(), _squares),
}

each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_built_in_benchmark_is_held_to_this() -> None:
    assert set(BENCHMARKS) <= set(CASES)


@each
def test_files_are_pinned(case: Case, tmp_path: Path) -> None:
    benchmark = case.make(tmp_path)
    files = benchmark.files()
    assert list(files) == list(benchmark.files())
    assert len({mirror_path(file) for file in files}) == len(files)
    for file in files:
        assert file.url.startswith("https://")
        assert file.size > 0
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert bool(files) != case.own_file


@each
def test_content_fits_together(case: Case, tmp_path: Path) -> None:
    benchmark, paths = case.prepare(tmp_path)
    check(benchmark, benchmark.read([] if case.own_file else paths))


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_real_content_fits_together(name: str) -> None:
    benchmark = open_benchmark(name)
    check(benchmark, load(benchmark))


def check(benchmark: Benchmark, data: BenchmarkData) -> None:
    """What holds for any content."""
    assert len(data) == len(data.prompts) > 1
    assert all(isinstance(prompt, str) and prompt.strip() for prompt in data.prompts)
    assert len(data.qualities) >= 2
    for values in (*data.qualities.values(), *data.costs.values()):
        assert values.dtype == np.float64
        assert values.shape == (len(data),)
        assert np.isfinite(values).all()
    assert set(data.costs) <= set(data.qualities)
    assert all(len(labels) == len(data) and all(isinstance(label, str) for label in labels) for labels in data.groups.values())
    assert all(isinstance(count, int) and count >= 0 for count in data.dropped.values())
    assert re.fullmatch(r"[0-9a-f]{64}", data.sha256)
    models = list(data.qualities)
    pair = benchmark.default_pair() or ModelPair(models[0], models[1])
    outcomes = data.outcomes(pair)
    assert (outcomes.strong != outcomes.weak).any()
    with pytest.raises(UnknownNameError, match="did you mean"):
        data.outcomes(ModelPair(pair.strong, pair.weak + "x"))


@each
def test_reading_twice_gives_the_same(case: Case, tmp_path: Path) -> None:
    benchmark, paths = case.prepare(tmp_path)
    first, second = (benchmark.read([] if case.own_file else paths) for _ in range(2))
    assert first.prompts == second.prompts
    assert first.sha256 == second.sha256
    assert first.dropped == second.dropped


@each
@pytest.mark.parametrize("content", [b"", b"\x80\x81\xff\x00", b"not what it should be\n", b'{"a": 1}\n', b"prompt\n"])
def test_broken_files_raise_our_error(case: Case, tmp_path: Path, content: bytes) -> None:
    benchmark, paths = case.prepare(tmp_path)
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(content)
        if path.name != "contaminated_prompts.jsonl" or content:  # an empty list is a list
            with pytest.raises(DataError):
                benchmark.read([] if case.own_file else paths)
        path.write_bytes(whole)


@each
def test_files_cut_short_never_raise_anything_else(case: Case, tmp_path: Path) -> None:
    benchmark, paths = case.prepare(tmp_path)
    for path in paths:
        whole = path.read_bytes()
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            with suppress(DataError):
                benchmark.read([] if case.own_file else paths)
        path.write_bytes(whole)
