"""What a decision of a trained `bert` costs, on one core.

    python benchmarks/bert.py [--checkpoint DIR] [--rounds 5] [--json FILE]

Prints milliseconds of processor time a score for prompts of 10, 60 and 250 words (medians over rounds), prompts a second in a
batch of mixed lengths, the time it takes to load, and resident memory. Figures of one run only compare with each other.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from decision import median_us, prompt_of, resident_mb, tell


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", metavar="DIR", help="what `routellm train bert` wrote (default: the shipped one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    start = time.perf_counter()
    from routellm.routers.bert import BertRouter

    imported = time.perf_counter() - start
    router = BertRouter(arguments.checkpoint)
    figures = {"import_s": imported, "load_s": time.perf_counter() - start - imported}
    for words in (10, 60, 250):
        prompt = prompt_of(words)
        spent = median_us(lambda prompt=prompt: router.calculate_strong_win_rate(prompt), arguments.rounds, calls=10)  # type: ignore[misc]
        figures[f"score_ms_{words}w"] = spent / 1e3
    batch = [prompt_of((10, 60, 250)[salt % 3], salt) for salt in range(60)]
    figures["batch_prompts_per_s"] = 1e6 * len(batch) / median_us(lambda: router.calculate_strong_win_rates(batch), 3, calls=1)
    figures["rss_end_mb"] = resident_mb()
    tell(figures, arguments.json)


if __name__ == "__main__":
    main()
