"""Files of preference data for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routellm.training.layouts import Reading
from routellm.training.preferences import Preferences
from routellm.training.reading import read_preferences


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Write a .jsonl file and return its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path, rows: Sequence[dict[str, Any]], reading: Reading | None = None) -> Preferences:
    """Write rows and read them as preferences."""
    return read_preferences([write(path / "file.jsonl", rows)], reading)
