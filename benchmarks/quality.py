"""Every router on every benchmark, beside random, the oracle and the published results, with what a decision costs.

    python -m benchmarks.quality --routers mf --output benchmarks/quality.md
    python -m benchmarks.quality --routers mf --responses CRUX=pairs.parquet:crux Arena=pairs.parquet:human_pref

Writes one Markdown page, and with --json all the figures. Metrics, intervals and the cache of scores are those of
`routellm evaluate`; the three tasks of RouterBench are measured each by itself.

A file of --responses has the columns `prompt`, `outcome` (strong, tie, weak, tie_or_weak), `strong_score` and `weak_score`,
and `category` where only one category of it is meant. Rows without scores, such as human votes, count 1 where the strong model
won outright and 0 elsewhere, so that APGR says how early a ranking finds its wins. Of rows with one prompt the first counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decision import median_us, prompt_of
from benchmarks.published_results import PUBLISHED
from routellm.config import load_config
from routellm.errors import DataError
from routellm.evals.benchmarks.base import BENCHMARKS, BenchmarkData
from routellm.evals.benchmarks.factory import load_benchmark, open_benchmark
from routellm.evals.cache import ScoreCache
from routellm.evals.records import as_record, plain, shown
from routellm.evals.runner import BenchmarkResult, analyse, score
from routellm.metrics.curves import apgr
from routellm.routers.routers import ROUTER_CLS, Router, build_router
from routellm.tables import column_names, read_table
from routellm.types import ModelPair

BY_ROLE = ModelPair("strong", "weak")
RANDOM_RUNS = 10
WORDS = (10, 60, 250)
_TIMED = 4
"""So many prompts are timed in turn, since an encoder may remember the last one."""


@dataclass(frozen=True, slots=True)
class Task:
    """One benchmark, or one task of it: its title, the key of its published results if there are any, prompts and pair."""

    title: str
    published: str
    data: BenchmarkData
    pair: ModelPair


@dataclass(frozen=True, slots=True)
class Speed:
    """What a router costs: seconds to load; CPU microseconds a decision by number of words; prompts of 60 words a second in
    a batch, by the clock; whether a server keeps it off its event loop."""

    load_s: float
    single_us: dict[int, float]
    batch_per_s: float
    blocking: bool


def benchmark_tasks(name: str, mirror: str | None, cache_dir: str | None) -> Iterator[Task]:
    """The tasks of a registered benchmark."""
    benchmark = open_benchmark(name)
    pair = benchmark.default_pair()
    if pair is None:
        raise DataError(f"{name!r} does not say which two models to compare; give it as a file, by --responses.")
    data = load_benchmark(benchmark, cache_dir=cache_dir, mirror=mirror).with_results(pair)
    if name != "routerbench":
        yield Task(name, name, data, pair)
        return
    labels = np.array(data.groups["eval_name"])
    for label in sorted(set(labels)):
        yield Task(f"routerbench: {label}", "", data.take(labels == label, "of another task"), pair)


def response_task(spec: str) -> Task:
    """The task of a NAME=FILE or NAME=FILE:CATEGORY.

    Raises:
        DataError: it is neither, or the file lacks what is needed.
    """
    title, _, file = spec.partition("=")
    file, category = (file, None) if Path(file).is_file() or ":" not in file else file.rsplit(":", 1)
    if not title or not file:
        raise DataError(f"{spec!r} is not NAME=FILE or NAME=FILE:CATEGORY.")
    wanted = ["prompt", "outcome", "strong_score", "weak_score"] + (["category"] if category else [])
    present = set(column_names(file))
    columns = [name for name in wanted if name in present or name in ("prompt", "outcome", "category")]
    rows: dict[str, tuple[float, float]] = {}
    for values in read_table(file, columns):
        row = dict(zip(columns, values, strict=True))
        if category in (None, row.get("category")):
            rows.setdefault(row["prompt"], _qualities(row))
    if not rows:
        raise DataError(f"{file} has no row" + (f" of the category {category!r}." if category else "."))
    strong, weak = np.array(list(rows.values())).T
    return Task(title, "", BenchmarkData(tuple(rows), {"strong": strong, "weak": weak}), BY_ROLE)


def _qualities(row: Mapping[str, Any]) -> tuple[float, float]:
    strong, weak = (math.nan if row.get(name) is None else float(row[name]) for name in ("strong_score", "weak_score"))
    if math.isnan(strong) or math.isnan(weak):
        return float(row["outcome"] == "strong"), 0.0
    return strong, weak


def measure_speed(name: str, settings: Mapping[str, Any] | None, rounds: int) -> tuple[Router, Speed]:
    """Build a router and time it."""
    start = time.perf_counter()
    router = build_router(name, settings)
    router.calculate_strong_win_rate("warm up")
    loaded = time.perf_counter() - start
    single = {}
    for words in WORDS:
        prompts = cycle([prompt_of(words, salt) for salt in range(_TIMED)])

        def decide(prompts: Iterator[str] = prompts) -> None:
            router.calculate_strong_win_rate(next(prompts))

        start = time.perf_counter()
        decide()
        turns = int(np.clip(0.05 / _TIMED / max(time.perf_counter() - start, 1e-9), 1, 500 // _TIMED))
        single[words] = median_us(decide, rounds, turns * _TIMED)
    batch = [prompt_of(60, salt) for salt in range(int(np.clip(2e6 / single[60], 32, 2000)))]
    start = time.perf_counter()
    router.calculate_strong_win_rates(batch)
    return router, Speed(loaded, single, len(batch) / (time.perf_counter() - start), router.blocking)


def evaluate(tasks: Sequence[Task], routers: Mapping[str, Router], arguments: argparse.Namespace) -> list[BenchmarkResult]:
    """Every router, and `random`, on every task."""
    cache = ScoreCache(arguments.cache_dir and Path(arguments.cache_dir) / "scores")
    results = []
    for task in tasks:
        runs = [build_router("random", {"seed": arguments.seed + number}) for number in range(RANDOM_RUNS)]
        scored = [score("random", runs, task.title, task.data, cache)]
        for name, router in routers.items():
            scored.append(score(name, [router], task.title, task.data, cache))
            print(f"{task.title}: {name} scored", file=sys.stderr)
        results.append(analyse(task.title, task.data, task.pair, scored, repeats=arguments.bootstrap, seed=arguments.seed))
    return results


def page(tasks: Sequence[Task], results: Sequence[BenchmarkResult], speeds: Mapping[str, Speed], command: str) -> str:
    """The Markdown page."""
    lines = [
        "# Quality of the routers",
        "",
        f"Written on {datetime.now(UTC):%Y-%m-%d} by `{command}`, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores. APGR, CPT50 and CPT80 with 95% intervals of a paired bootstrap over prompts, of exact "
        "curves; and by the published ten-bin protocol beside them. `random` is the mean of "
        f"{RANDOM_RUNS} runs. Rows in italics are the paper's.",
        "",
        *_overview(results, speeds),
        *_speed_table(speeds),
    ]
    for task, result in zip(tasks, results, strict=True):
        lines += _section(task, result)
    return "\n".join(lines)


def _overview(results: Sequence[BenchmarkResult], speeds: Mapping[str, Speed]) -> list[str]:
    table = {router.name: [] for router in results[0].routers} if results else {}
    for result in results:
        for router in result.routers:
            table[router.name].append(plain(router.apgr.value))
    head = ["router", *(result.name for result in results), "us a decision (60 words)"]
    rows = [[name, *values, f"{speeds[name].single_us[60]:,.0f}" if name in speeds else ""] for name, values in table.items()]
    return ["## APGR (exact curves; chance is .500)", "", *_table(head, rows)]


def _speed_table(speeds: Mapping[str, Speed]) -> list[str]:
    head = [
        "router",
        "loading, s",
        *(f"{words} words, us" for words in WORDS),
        "prompts/s in a batch",
        "leaves the event loop",
    ]
    rows = [
        [name, f"{speed.load_s:.2f}", *(f"{speed.single_us[words]:,.0f}" for words in WORDS), f"{speed.batch_per_s:,.0f}",
         "yes" if speed.blocking else "no"]
        for name, speed in speeds.items()
    ]  # fmt: skip
    return ["## Speed", "", "CPU time of one decision, text in, score out; batches by the clock, 60 words each.", "",
            *_table(head, rows)]  # fmt: skip


def _section(task: Task, result: BenchmarkResult) -> list[str]:
    strong, weak = result.outcomes.strong.mean(), result.outcomes.weak.mean()
    head = ["router", "APGR [95%]", "CPT50 % [95%]", "CPT80 % [95%]", "CPT50 / CPT80 / APGR, published protocol"]
    rows = []
    for router in sorted(result.routers, key=lambda each: -each.apgr.value):
        published = router.published
        rows.append([
            router.name, shown(router.apgr), *(shown(router.cpt[target], 1, 100) for target in (0.5, 0.8)),
            f"{100 * published.cpt[0.5]:.2f} / {100 * published.cpt[0.8]:.2f} / {plain(published.apgr)}",
        ])  # fmt: skip
    rows.append(["oracle", plain(apgr(result.oracle)), "", "", ""])
    for name, fifty, eighty, area in PUBLISHED.get(task.published, ()):
        rows.append([f"*{name}*", "", "", "", f"*{fifty:.2f} / {eighty:.2f} / {plain(area)}*"])
    return [
        f"## {task.title}", "",
        f"{len(task.data):,} prompts; {task.pair.strong} {strong:.4f}, {task.pair.weak} {weak:.4f}.", "",
        *_table(head, rows),
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)] + [""]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--routers", nargs="+", required=True, metavar="NAME", help="routers to measure; `random` is always there")
    add("--config", help="arguments of the routers, in YAML")
    add("--benchmarks", nargs="*", default=[*BENCHMARKS], metavar="NAME", help="registered benchmarks (default: all)")
    add("--responses", nargs="*", default=[], metavar="NAME=FILE[:CATEGORY]", help="further held-out pairs")
    add("--output", type=Path, help="the page (default: standard output)")
    add("--json", type=Path, help="also write all figures there")
    add("--bootstrap", type=int, default=1000, metavar="N")
    add("--rounds", type=int, default=5, metavar="N", help="rounds of the timing")
    add("--seed", type=int, default=0)
    add("--cache-dir", help="for scores and downloaded data (default: the user's cache directory)")
    add("--data-mirror", help="a directory that stands in for the network (default: ROUTELLM_DATA_MIRROR)")
    arguments = parser.parse_args()

    config = load_config(arguments.config, ROUTER_CLS) if arguments.config else {}
    mirror = arguments.data_mirror or os.environ.get("ROUTELLM_DATA_MIRROR")
    named = [name for name in dict.fromkeys(arguments.routers) if name != "random"]
    measured = {name: measure_speed(name, config.get(name), arguments.rounds) for name in named}
    tasks = [task for name in arguments.benchmarks for task in benchmark_tasks(name, mirror, arguments.cache_dir)]
    tasks += [response_task(spec) for spec in arguments.responses]
    results = evaluate(tasks, {name: router for name, (router, _) in measured.items()}, arguments)
    speeds = {name: speed for name, (_, speed) in measured.items()}
    text = page(tasks, results, speeds, command_line(arguments))
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    if arguments.json:
        records = [as_record(result, None) for result in results]
        content = {"results": records, "speed": {name: asdict(speed) for name, speed in speeds.items()}}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def command_line(arguments: argparse.Namespace) -> str:
    """The command that measures the same again; of files only the names."""
    words = ["python", "-m", "benchmarks.quality", "--routers", *arguments.routers, "--benchmarks", *arguments.benchmarks]
    if arguments.responses:
        split = (spec.partition("=") for spec in arguments.responses)
        words += ["--responses", *(f"{title}={Path(file).name}" for title, _, file in split)]
    if arguments.config:
        words += ["--config", Path(arguments.config).name]
    return shlex.join([*words, "--bootstrap", str(arguments.bootstrap), "--seed", str(arguments.seed)])


if __name__ == "__main__":
    main()
