"""Labelled prompts that a test can learn from, and an adapted checkpoint made of them in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.routers.mf import MatrixFactorizationRouter
from routellm.routers.views import Viewer
from routellm.tables import write_table
from routellm.training import adapt
from routellm.training.adapt_labels import Labels

_SUBJECTS = ("sheep", "ships", "shops", "chips", "shoes", "seeds", "sheds", "cheese", "chairs", "sheets")


def labels(n: int, seed: int = 0, noise: float = 0.1) -> Labels:
    """Questions about names, which the strong model wins, among sums, which are ties; `noise` of the labels are drawn."""
    draw = np.random.default_rng(seed)
    prompts, gaps = [], []
    for number in range(n):
        subject = _SUBJECTS[draw.integers(len(_SUBJECTS))]
        if hard := draw.random() < 0.4:
            prompts.append(f"Case {number}: what is another name for {subject}?")
        else:
            first, second = draw.integers(10, 99, 2)
            prompts.append(f"Case {number}: I had {first} {subject} and sold {second}% each week. How many remain?")
        gaps.append(float(draw.integers(-1, 2)) if draw.random() < noise else float(hard))
    return Labels(prompts, np.array(gaps), [])


def viewer() -> Viewer:
    """What the bundled embedder and the shipped `mf` see."""
    mf = MatrixFactorizationRouter()
    return Viewer(PromptFeatures(load_embedder(), mf.features.surface_version), {"mf": mf})


def write_labels(path: Path, given: Labels) -> Path:
    """A file of scores."""
    strong = [max(float(gap), 0.0) for gap in given.gap]
    weak = [max(-float(gap), 0.0) for gap in given.gap]
    write_table(path, {"prompt": given.prompts, "strong_score": strong, "weak_score": weak})
    return path


def run_adapt(arguments: Sequence[str | Path]) -> int:
    """`routellm adapt`, and its exit code."""
    return adapt.main([str(argument) for argument in arguments])


def make_checkpoint(folder: Path, n: int = 150) -> Path:
    """An adapted checkpoint in `folder`/adapted."""
    file = write_labels(folder / "labels.jsonl", labels(n))
    assert run_adapt(["--labels", file, "--output", folder / "adapted", "--force"]) == 0
    return folder / "adapted"
