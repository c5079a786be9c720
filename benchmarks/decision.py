"""What a decision of `mf` costs: text in, model out, on one core.

    python benchmarks/decision.py [--rounds 7] [--json FILE]

Prints microseconds a decision for prompts of 10, 60 and 250 words (medians over rounds), where the time goes, prompts a second
in batches, and resident memory before and after loading. Figures of one run only compare with each other.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

WORDS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. Write a Python function "
    "that explains why the sum of each number is greater than (or equal to) the average cost of all remaining items, or prove "
    "that it can not be: what would the total be if every friend had bought two more, and how much is left after four weeks?"
).split()


def prompt_of(words: int, salt: int = 0) -> str:
    """A prompt of that many words; another `salt` gives another one."""
    return " ".join(WORDS[(salt * 7 + i * (1 + salt % 3)) % len(WORDS)] for i in range(words))


def median_us(call: Callable[[], object], rounds: int, calls: int = 500) -> float:
    """Median over rounds of the mean time of `calls` calls, in microseconds."""
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        for _ in range(calls):
            call()
        times.append((time.process_time_ns() - start) / calls / 1e3)
    return statistics.median(times)


def resident_mb() -> float:
    """Peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tell(figures: Mapping[str, float], file: Path | None) -> None:
    """Print figures by name, and write them to a file if there is one."""
    for name, value in figures.items():
        print(f"{name:28s} {value:14.6g}")
    if file:
        file.write_text(json.dumps({"python": sys.version.split()[0], **figures}, indent=1) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    before = resident_mb()
    start = time.perf_counter()
    from routellm.decider import Decider
    from routellm.types import ModelPair

    imported = time.perf_counter() - start
    decider = Decider.load(["mf"], ModelPair("strong", "weak"))
    loaded = time.perf_counter() - start - imported
    router = decider.routers["mf"]
    figures: dict[str, float] = {
        "import_s": imported,
        "load_s": loaded,
        "rss_before_mb": before,
        "rss_loaded_mb": resident_mb(),
    }

    for words in (10, 60, 250):
        prompt = prompt_of(words)
        messages = json.dumps([{"role": "user", "content": prompt}]).encode()
        figures[f"score_us_{words}w"] = median_us(
            lambda prompt=prompt: router.calculate_strong_win_rate(prompt), arguments.rounds
        )  # type: ignore[misc]
        figures[f"decide_us_{words}w"] = median_us(
            lambda messages=messages: decider.decide("router-mf-0.5", messages),
            arguments.rounds,  # type: ignore[misc]
        )
    features = router.features  # type: ignore[attr-defined]
    from routellm.embeddings.surface import surface_features

    sixty = prompt_of(60)
    figures["embed_us_60w"] = median_us(lambda: features.embedder.embed(sixty), arguments.rounds)
    figures["surface_us_60w"] = median_us(lambda: surface_features(sixty), arguments.rounds)
    batch = [prompt_of(60, salt) for salt in range(2000)]
    figures["batch_prompts_per_s"] = 1e6 / (median_us(lambda: router.calculate_strong_win_rates(batch), 3, 1) / len(batch))
    figures["rss_end_mb"] = resident_mb()
    tell(figures, arguments.json)


if __name__ == "__main__":
    main()
