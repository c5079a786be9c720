"""Scores of routers on benchmarks, kept in the user's cache directory.

A file's name is a hash of all that its content depends on: the router's name and fingerprint (its checkpoint's hash among it),
the benchmark's name and its data's hash. A changed checkpoint or data file therefore never reads old scores. Files are
safetensors, written beside and renamed, so two processes at once can't disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from routellm.errors import ConfigError
from routellm.metrics.curves import Array


class ScoreCache:
    """A directory of scores.

    Args:
        directory: where; None for `scores` in the user's cache directory. Made when something is first written.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        if directory is None:
            from platformdirs import user_cache_path

            directory = user_cache_path("routellm") / "scores"
        self.directory = Path(directory)

    def path(self, router: str, fingerprint: str, benchmark: str, data_sha256: str) -> Path:
        """The file of these scores, whether it exists or not."""
        parts = "\0".join((router, fingerprint, benchmark, data_sha256))
        return self.directory / f"{hashlib.sha256(parts.encode()).hexdigest()[:32]}.safetensors"

    def read(self, path: Path, prompts: int) -> Array | None:
        """The scores of a file, float64 of shape (prompts,); None where there is no such file, or it is of no use."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            scores = load_file(path).get("scores")
        except (OSError, SafetensorError, ValueError):
            return None  # whatever is wrong with a cache, the remedy is to compute again
        if scores is None or scores.shape != (prompts,) or scores.dtype != np.float64:
            return None
        return scores

    def write(self, path: Path, scores: Array) -> None:
        """Keep scores.

        Raises:
            ConfigError: the directory can't be written to.
        """
        from safetensors.numpy import save

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
            with os.fdopen(handle, "wb") as file:
                file.write(save({"scores": np.ascontiguousarray(scores, dtype=np.float64)}))
            Path(partial).replace(path)
        except OSError as error:
            raise ConfigError(
                f"Scores can't be cached in {str(path.parent)!r}: {error.strerror or error}. "
                f"Make it writable, or give another directory with --cache-dir."
            ) from error
