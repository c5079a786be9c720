"""From what a user names to a benchmark, and to its content."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from routellm.downloads import fetch
from routellm.errors import ConfigError, DataError, UnknownNameError, did_you_mean
from routellm.evals.benchmarks.base import BENCHMARKS, Benchmark, BenchmarkData
from routellm.evals.benchmarks.file import FileBenchmark
from routellm.training.overlap import read_overlaps


def open_benchmark(spec: str | Path, **options: Any) -> Benchmark:
    """Construct a benchmark. Nothing is downloaded or read yet.

    Args:
        spec: a registered name ("mmlu"), or the path of a file of one's own.
        options: the constructor's arguments, such as `domains=["STEM"]` for MMLU or `prompt_column="question"` for a file.

    Raises:
        UnknownNameError: `spec` is neither a registered name nor looks like a path.
        DataError: it looks like a path, but there is no such file.
        ConfigError: the benchmark takes no such option.
    """
    name = str(spec)
    if not isinstance(spec, Path) and name in BENCHMARKS:
        return _construct(BENCHMARKS[name], name, options)
    path = Path(spec).expanduser()
    if path.is_file():
        return _construct(FileBenchmark, name, {"path": path, **options})
    if isinstance(spec, Path) or path.suffix or os.sep in name:
        raise DataError(f"There is no benchmark file {name!r}. Give a file's path, or one of: {', '.join(BENCHMARKS)}.")
    raise UnknownNameError("benchmark", name, BENCHMARKS)


def load_benchmark(
    benchmark: Benchmark,
    *,
    cache_dir: str | Path | None = None,
    mirror: str | Path | None = None,
    exclude: str | Path | None = None,
) -> BenchmarkData:
    """A benchmark's content; its files are fetched where they are not here yet.

    Args:
        cache_dir, mirror: as in `downloads.fetch`.
        exclude: a list that `routellm contamination` wrote; the prompts in it are left out.

    Raises:
        DataError: a file can't be had, or is not as it should be; or no prompt is left.
        MissingExtraError: a file's kind needs a package that is not installed.
    """
    data = benchmark.read(fetch(benchmark.files(), cache_dir=cache_dir, mirror=mirror))
    return data if exclude is None else data.without({overlap.prompt_sha256 for overlap in read_overlaps(exclude)})


def _construct(cls: type[Benchmark], name: str, options: dict[str, Any]) -> Benchmark:
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        known = list(inspect.signature(cls).parameters)
        hint = "".join(did_you_mean(key, known) for key in options if key not in known)
        raise ConfigError(f"The benchmark {name!r}: {error}{hint}. It takes: {', '.join(known) or 'no options'}.") from error
    return cls(**options)
