"""Comparisons of letters, and the trainer `bert` on them with an encoder small enough for a test."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from routellm.routers.battles import Outcome
from routellm.training.preferences import Preference
from routellm.training.trainers import TRAINERS, Trained, TrainingData
from tests.conftest import require
from tests.embeddings.encoders import VOCABULARY, write_tokenizer

SMALL = [
    "--epochs", "2", "--epoch-size", "200", "--batch-size", "20", "--check-size", "40", "--learning-rate", "0.003",
    "--head-learning-rate", "0.03", "--save-every", "1", "--max-length", "16",
]  # fmt: skip


def write_small_encoder(folder: Path) -> Path:
    """A random BERT of two layers, as transformers saves it."""
    torch, transformers = require("torch"), require("transformers")
    for name in ("onnx", "onnxruntime"):
        require(name)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    return folder


def data(seed: int = 0) -> TrainingData:
    """The strong model wins more often on prompts of early letters, in two sources of very different base rates."""
    generator = np.random.default_rng(9)
    chances = {  # of the strong model's win and of a tie
        ("often", True): (0.95, 0.05), ("often", False): (0.4, 0.4),
        ("seldom", True): (0.5, 0.5), ("seldom", False): (0.0, 0.6),
    }  # fmt: skip
    rows: list[Preference] = []
    while len(rows) < 240:
        source, hard = "often" if len(rows) % 2 else "seldom", bool(generator.random() < 0.5)
        prompt = " ".join(generator.choice(list("abcd" if hard else "wxyz"), 5))
        if any(row.prompt == prompt for row in rows):  # all rows of a prompt are on one side of a split
            continue
        wins, ties = chances[source, hard]
        drawn = generator.random()
        outcome: Outcome = "first" if drawn < wins else "tie" if drawn < wins + ties else "second"
        rows.append(Preference(prompt, "big", "small", outcome, source))
    return TrainingData(rows, np.arange(240) % 6 == 0, "big", "small", seed)


def train(encoder: Path, work: Path, *flags: str, resume: bool = False, lines: list[str] | None = None) -> Trained:
    trainer = TRAINERS["bert"]()
    parser = argparse.ArgumentParser()
    trainer.add_arguments(parser)
    arguments = parser.parse_args([*SMALL, "--encoder", str(encoder), *flags])
    arguments.resume = resume
    work.mkdir(exist_ok=True)
    return trainer.fit(data(), arguments, work, (lines if lines is not None else []).append)
