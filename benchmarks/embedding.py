"""What the bundled embedder costs a prompt, beside the plain way to compute the same vectors.

    python benchmarks/embedding.py [--rounds 9] [--prompts FILE] [--json FILE]

The plain way is Hugging Face's tokenizer on the whole prompt and a float32 table in numpy. Both take turns within each round;
a figure is the median over the rounds of CPU microseconds a prompt, for prompts of about 10, 60 and 250 words:

    cold      a fresh embedder that has seen none of the prompts, one by one
    warm      the same embedder, the same prompts again
    batch     all of them in one call, warm

Without --prompts, prompts are put together at random from a built-in list of words, numbers and names; with it, they are cut
from the lines of a text file, which is fairer: real prompts hold more words that the vocabulary lacks, and more signs beyond
ASCII. Figures of one run only compare with each other.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (10, 60, 250)
PROMPTS = 300
WORDS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. Write a Python function "
    "that explains why the sum of each number is greater than (or equal to) the average cost of all remaining items, or prove "
    "that it can not be: what would the total be if every friend had bought two more, and how much is left after four weeks? "
    "Summarise Kowalczyk's argument on thermoelectric conductivity; don't mention hyperparameters, pneumonia or Zanzibar."
).split()


def built_in_prompts(words: int) -> list[str]:
    """Prompts of that many words; one word in twenty is a number or a made-up name."""
    draw = random.Random(words)
    rare: list[Callable[[], str]] = [
        lambda: str(draw.randrange(10_000)),
        lambda: "".join(draw.choice(("ka", "zo", "mir", "el", "tuv", "ann")) for _ in range(4)).title(),
    ]
    return [
        " ".join(draw.choice(rare)() if draw.random() < 0.05 else draw.choice(WORDS) for _ in range(words))
        for _ in range(PROMPTS)
    ]


def prompts_from(path: Path, words: int) -> list[str]:
    """The first so many words of those lines that have as many, and are not so long that the embedder cuts them."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    found = [prompt for line in lines if len(line) >= words and len(prompt := " ".join(line[:words])) <= 4096]
    if not found:
        raise SystemExit(f"{path} has no line of {words} words.")
    return found[:PROMPTS]


class PlainWay:
    """Hugging Face's tokenizer and a float32 table."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        from routellm.embeddings.static import BUNDLED
        from routellm.embeddings.table import read_table

        table = read_table(BUNDLED)
        self._tokenizer = Tokenizer.from_str(table.tokenizer)
        self._rows = table.rows * np.exp2(table.shifts).astype(np.float32)[:, None] * table.scales
        self._rows[self._tokenizer.token_to_id("[UNK]")] = 0.0

    def embed(self, prompt: str) -> Any:
        return self._vector(self._tokenizer.encode(prompt, add_special_tokens=False).ids)

    def embed_batch(self, prompts: Sequence[str]) -> Any:
        found = self._tokenizer.encode_batch_fast(list(prompts), add_special_tokens=False)
        return np.stack([self._vector(each.ids) for each in found])

    def _vector(self, ids: list[int]) -> Any:
        total = self._rows[ids].sum(axis=0)
        return total / max(np.linalg.norm(total), 1e-9)


def us_each(call: Callable[[], object], count: int) -> float:
    """CPU microseconds of one call, for each of `count` prompts."""
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / count / 1e3


def measure(prompts: list[str], rounds: int) -> dict[str, float]:
    """Medians over the rounds."""
    from routellm.embeddings.static import StaticEmbedder

    plain = PlainWay()
    times: dict[str, list[float]] = {name: [] for name in ("cold", "warm", "batch", "plain", "plain_batch")}
    for _ in range(rounds):
        ours = StaticEmbedder()
        ours.embed("warm up “numpy” and the tokenizer")
        times["cold"].append(us_each(lambda ours=ours: [ours.embed(prompt) for prompt in prompts], len(prompts)))  # type: ignore[misc]
        times["plain"].append(us_each(lambda: [plain.embed(prompt) for prompt in prompts], len(prompts)))
        times["warm"].append(us_each(lambda ours=ours: [ours.embed(prompt) for prompt in prompts], len(prompts)))  # type: ignore[misc]
        times["plain_batch"].append(us_each(lambda: plain.embed_batch(prompts), len(prompts)))
        times["batch"].append(us_each(lambda ours=ours: ours.embed_batch(prompts), len(prompts)))  # type: ignore[misc]
    np.testing.assert_allclose(ours.embed_batch(prompts), plain.embed_batch(prompts), atol=1e-5)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_resident_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompts", type=Path, help="a text file, one prompt a line")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()

    before = peak_resident_mb()
    start = time.perf_counter()
    from routellm.embeddings.static import StaticEmbedder

    StaticEmbedder().embed("hello")
    figures: dict[str, Any] = {"load_ms": (time.perf_counter() - start) * 1e3, "rss_mb": peak_resident_mb() - before}
    print(f"import and load {figures['load_ms']:.0f} ms, resident memory +{figures['rss_mb']:.0f} MB (numpy not counted)\n")
    print("CPU us a prompt    cold    warm   batch | plain way  its batch | warm : plain  batch : its batch  batch prompts/s")
    for size in SIZES:
        prompts = prompts_from(arguments.prompts, size) if arguments.prompts else built_in_prompts(size)
        got = figures[f"{size}w"] = measure(prompts, arguments.rounds)
        print(
            f"{size:>4} words       {got['cold']:7.1f} {got['warm']:7.1f} {got['batch']:7.1f} |"
            f" {got['plain']:9.1f} {got['plain_batch']:10.1f} |"
            f" {got['plain'] / got['warm']:8.1f} x   {got['plain_batch'] / got['batch']:12.1f} x   {1e6 / got['batch']:14,.0f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
