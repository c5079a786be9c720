"""Comparisons of several kinds that a test can learn from, and routers fitted to them in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from routellm import cli
from tests.conftest import require
from tests.routers.classifiers import write_checkpoint
from tests.training.files import write

KINDS = {"difficulty/arts": (0.3, 0.6), "difficulty/sums": (0.6, 0.9), "gain/arts": (0.5, 0.8), "gain/sums": (0.02, 0.18)}
"""Source -> the share of wins on its easy and on its hard prompts. Subjects differ: by gain the arts are worth the money, by
difficulty the sums."""


def prompt(subject: str, hard: bool, number: int) -> str:
    """A prompt whose subject and difficulty are plain to see."""
    if subject == "arts":
        return (
            f"Who painted number {number}?"
            if not hard
            else f"Compare painting {number} to its model, in detail and at length."
        )
    return (
        f"What is {number} + 1?" if not hard else f"Prove that {number} sheep, 20% more each week, can't number {number + 3}."
    )


def comparisons(n: int, seed: int = 0, sources: dict[str, tuple[float, float]] | None = None) -> list[dict[str, Any]]:
    """Rows of the layout `pairs`: for each of `n` prompts a source, a share of wins with noise, and the rest as ties."""
    draw = np.random.default_rng(seed)
    rows, shares = [], sources or KINDS
    for number in range(n):
        source = list(shares)[number % len(shares)]
        hard = bool(draw.random() < 0.5)
        won = float(np.clip(shares[source][hard] + draw.normal(0.0, 0.05), 0.01, 0.99))
        one = {"prompt": prompt(source.rpartition("/")[2], hard, number), "source": source, "strong": "big", "weak": "small"}
        rows += [{**one, "outcome": "strong", "weight": won}, {**one, "outcome": "tie", "weight": 1.0 - won}]
    return rows


def run_train(name: str, data: str, output: Path, *flags: str) -> int:
    """`routellm train NAME` by role, and its exit code; argparse's own errors included."""
    try:
        return cli.main(["train", name, "--data", data, "--by-role", "--output", str(output), *flags])
    except SystemExit as ended:
        return int(str(ended.code))


def make_gain_fast(folder: Path) -> Path:
    """A checkpoint of `gain_fast`."""
    data = write(folder / "gains.jsonl", comparisons(240))
    assert run_train("gain_fast", data, folder / "gain_fast", "--validation-share", "0.3") == 0
    return folder / "gain_fast"


def make_gain_accurate(folder: Path) -> Path:
    """A checkpoint of `gain_accurate` on the encoder of the checkpoint of `bert` beside it."""
    require("onnxruntime")
    encoder = write_checkpoint(folder / "bert")
    data = write(folder / "gains.jsonl", comparisons(240))
    flags = ["--validation-share", "0.3", "--embedding-model", f"bert:{encoder}"]
    assert run_train("gain_accurate", data, folder / "gain_accurate", *flags) == 0
    return folder / "gain_accurate"
