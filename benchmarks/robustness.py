"""How much a router's decisions change when a prompt changes and its difficulty does not.

    python -m benchmarks.robustness [--routers mf] [--data FILE --column prompt] [--json FILE]

Two tables. The first changes what should not matter (case, spaces, typos, politeness, order, punctuation, kinds of quotes):
how often does a decision flip, and how far does the score move? The second pads prompts with boilerplate that looks hard, by
its kind and by where it stands: how many of those that went to the weak model now go to the strong one? The threshold sends
half of the given prompts to the strong model.

Rates are over the prompts that a change really alters. Where a router explains itself, the last column names the parts that
moved its log-odds most in the decisions that flipped. Without --data, a built-in list of 41 prompts serves: enough to see
large effects, with a standard error of 8 points at a rate of one half.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from benchmarks.example_prompts import PROMPTS
from benchmarks.perturbations import HARMLESS, PADDED, PADDING, SEPARATORS, Perturbation
from routellm.calibration.quantiles import threshold_for_share
from routellm.config import load_config
from routellm.prompt_files import read_prompts
from routellm.routers.routers import ROUTER_CLS, Router, build_router

EXPLAINED = 100
"""Of so many flipped decisions the explanations are looked at."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one change does to one router's decisions.

    Attributes:
        changed: how many of the prompts it alters.
        flips: share of those whose decision it changes.
        to_strong: share of those that went to the weak model and now go to the strong one.
        to_weak: the reverse.
        moved: mean absolute change of the score.
        shift: mean change of the score.
        parts: for the parts of the explanation that moved most in the flips, the mean change of the log-odds.
    """

    changed: int
    flips: float
    to_strong: float
    to_weak: float
    moved: float
    shift: float
    parts: dict[str, float]


def measure(router: Router, prompts: Sequence[str], changes: Mapping[str, Perturbation], seed: int) -> dict[str, Effect]:
    """The effect of each change, at the threshold that sends half of `prompts` to the strong model."""
    scores = router.calculate_strong_win_rates(prompts)
    threshold = threshold_for_share(scores, 0.5).threshold
    effects = {}
    for name, change in changes.items():
        altered = [change(prompt, Random(f"{seed} {name} {prompt}")) for prompt in prompts]
        rows = np.array([i for i, prompt in enumerate(prompts) if altered[i] != prompt], dtype=np.intp)
        pairs = [(prompts[i], altered[i]) for i in rows]
        effects[name] = _effect(router, pairs, scores[rows], threshold)
    return effects


def _effect(router: Router, pairs: Sequence[tuple[str, str]], before: NDArray[np.float64], threshold: float) -> Effect:
    after = router.calculate_strong_win_rates([new for _, new in pairs])
    was, now = before >= threshold, after >= threshold
    flipped = [pair for pair, moved in zip(pairs, was != now, strict=True) if moved]
    return Effect(
        changed=len(pairs),
        flips=_mean(was != now),
        to_strong=_mean(now[~was]),
        to_weak=_mean(~now[was]),
        moved=_mean(np.abs(after - before)),
        shift=_mean(after - before),
        parts=_moving_parts(router, flipped[:EXPLAINED]),
    )


def _moving_parts(router: Router, flipped: Sequence[tuple[str, str]], most: int = 3) -> dict[str, float]:
    moved: Counter[str] = Counter()
    for old, new in flipped:
        first, second = router.explain(old), router.explain(new)
        for part in second:
            moved[part] += (second[part] - first[part]) / len(flipped)
    largest = sorted(moved, key=lambda part: -abs(moved[part]))[:most]
    return {part: round(moved[part], 3) for part in largest if abs(moved[part]) >= 0.005}


def measure_padding(router: Router, prompts: Sequence[str], seed: int) -> dict[str, dict[str, float]]:
    """For each kind of padding and each place, the share of prompts that went to the weak model and now go to the strong one.

    At the threshold that sends half of `prompts` to the strong model; the mean over the ways to put it there.
    """
    scores = router.calculate_strong_win_rates(prompts)
    threshold = threshold_for_share(scores, 0.5).threshold
    weak = [prompt for prompt, score in zip(prompts, scores, strict=True) if score < threshold]
    shares: dict[str, dict[str, float]] = {}
    for kind, places in PADDED.items():
        shares[kind] = {}
        for where, ways in places.items():
            padded = [way(prompt, Random(f"{seed} {kind} {prompt}")) for way in ways.values() for prompt in weak]
            shares[kind][where] = _mean(router.calculate_strong_win_rates(padded) >= threshold)
    return shares


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _show(title: str, effects: Mapping[str, Effect]) -> None:
    print(f"\n{title}")
    rates = f"{'flips':>8}{'weak>strong':>13}{'strong>weak':>13}{'|change|':>10}{'change':>9}"
    print(f"{'':26s}{'prompts':>8}{rates}  moved by")
    for name, effect in effects.items():
        rates = f"{effect.flips:8.1%}{effect.to_strong:13.1%}{effect.to_weak:13.1%}{effect.moved:10.4f}{effect.shift:+9.4f}"
        parts = ", ".join(f"{part} {value:+.2f}" for part, value in effect.parts.items())
        print(f"{name:26s}{effect.changed:8d}{rates}  {parts}")
    seen = [effect for effect in effects.values() if effect.changed]
    flips, bought, moved = (np.mean([getattr(each, name) for each in seen]) for name in ("flips", "to_strong", "moved"))
    print(f"{'mean':34s}{flips:8.1%}{bought:13.1%}{'':13}{moved:10.4f}")


def _show_padding(title: str, shares: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{title}")
    print(f"{'weak>strong':26s}" + "".join(f"{where:>16s}" for where in SEPARATORS))
    for kind, places in shares.items():
        print(f"{kind:26s}" + "".join(f"{places[where]:16.1%}" for where in SEPARATORS))
    means = [float(np.mean([shares[kind][where] for kind in PADDING])) for where in SEPARATORS]
    print(f"{'mean of single kinds':26s}" + "".join(f"{mean:16.1%}" for mean in means))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routers", nargs="+", default=["mf"], metavar="NAME")
    parser.add_argument("--config", help="arguments of the routers, in YAML")
    parser.add_argument("--data", help="prompts: jsonl, csv, parquet or text (default: 41 built-in ones)")
    parser.add_argument("--column", default="prompt", help="the column that holds the prompts")
    parser.add_argument("--limit", type=int, default=2000, help="at most so many prompts, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()

    prompts = list(dict.fromkeys(read_prompts(arguments.data, arguments.column).prompts)) if arguments.data else list(PROMPTS)
    if len(prompts) > arguments.limit:
        prompts = Random(arguments.seed).sample(prompts, arguments.limit)
    config = load_config(arguments.config, ROUTER_CLS) if arguments.config else {}
    figures: dict[str, dict[str, object]] = {}
    for name in arguments.routers:
        router = build_router(name, config.get(name))
        effects = measure(router, prompts, HARMLESS, arguments.seed)
        _show(f"{name}: changes that should not matter ({len(prompts):,} prompts)", effects)
        shares = measure_padding(router, prompts, arguments.seed)
        _show_padding(f"{name}: padding that looks hard ({len(prompts):,} prompts)", shares)
        figures[name] = {"harmless": {change: asdict(effect) for change, effect in effects.items()}, "padding": shares}
    if arguments.json:
        content = {"prompts": len(prompts), "data": arguments.data, "seed": arguments.seed, "routers": figures}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
