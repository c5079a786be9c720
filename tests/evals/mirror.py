"""The benchmarks' real files, for tests of what they hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from routellm.evals.benchmarks.base import Benchmark, BenchmarkData
from routellm.evals.benchmarks.factory import load_benchmark

# Read as this module is imported: while a test runs, the environment is the test's own.
_MIRROR = os.environ.get("ROUTELLM_DATA_MIRROR")


def data_mirror() -> Path:
    """The folder that ROUTELLM_DATA_MIRROR names; without it the test is skipped."""
    if not _MIRROR:
        pytest.skip("needs the benchmarks' files: set ROUTELLM_DATA_MIRROR")
    return Path(_MIRROR)


def load(benchmark: Benchmark) -> BenchmarkData:
    """A benchmark's real content; without the mirror the test is skipped."""
    return load_benchmark(benchmark, mirror=data_mirror())
