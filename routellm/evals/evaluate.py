"""`python -m routellm.evals.evaluate` (`routellm evaluate`): routers on benchmarks, with intervals, plots and a report."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from routellm.commands import command_parser, run_command
from routellm.config import load_config, read_environment
from routellm.errors import ConfigError, did_you_mean
from routellm.evals import console, records
from routellm.evals.benchmarks.base import BENCHMARKS, BenchmarkData
from routellm.evals.benchmarks.factory import load_benchmark, open_benchmark
from routellm.evals.cache import ScoreCache
from routellm.evals.costs import CallCosts, Price, call_costs
from routellm.evals.runner import BenchmarkResult, Scored, analyse, score
from routellm.routers.routers import ROUTER_CLS, Router, build_router
from routellm.tables import write_table
from routellm.types import ModelPair

_EXAMPLES = """
python -m routellm.evals.evaluate --routers random mf --benchmark mmlu
python -m routellm.evals.evaluate --routers mf --benchmark mmlu gsm8k mt-bench --output results --report report.html
python -m routellm.evals.evaluate --routers mf --benchmark my-traffic.parquet --strong-model gpt-4o --weak-model llama-3-8b
python -m routellm.evals.evaluate --routers mf --benchmark gsm8k --config config.example.yaml --overwrite-cache mf
"""


Evaluated: TypeAlias = tuple[BenchmarkResult, CallCosts | None]
"""One benchmark's result, and what its calls cost where that is known."""


def run(arguments: argparse.Namespace) -> None:
    """Score, analyse, print, write."""
    config = load_config(arguments.config, ROUTER_CLS) if arguments.config else {}
    names = list(dict.fromkeys(arguments.routers))
    overwrite = _to_overwrite(arguments.overwrite_cache, names)
    routers = {name: [build_router(name, config.get(name))] for name in names if name != "random"}
    cache = ScoreCache(arguments.cache_dir and Path(arguments.cache_dir) / "scores")
    evaluated: list[Evaluated] = []
    mirror = arguments.data_mirror or read_environment().get("ROUTELLM_DATA_MIRROR")
    for label, spec in _labels(arguments.benchmark).items():
        options = {"domains": arguments.domains} if spec == "mmlu" and arguments.domains else {}
        benchmark = open_benchmark(spec, **options)
        data = load_benchmark(benchmark, cache_dir=arguments.cache_dir, mirror=mirror, exclude=arguments.exclude)
        pair = _pair(arguments, benchmark.default_pair(), spec)
        data = data.with_results(pair)
        if "random" in names:  # made anew for each benchmark, so that no result depends on what was measured before it
            routers["random"] = _random_runs(config.get("random"), arguments.random_iters, arguments.seed)
        scored = _score_all({name: routers[name] for name in names}, label, data, cache, overwrite, arguments.parallel)
        result = analyse(
            label, data, pair, scored, bins=arguments.num_results, repeats=arguments.bootstrap, seed=arguments.seed
        )
        evaluated.append((result, call_costs(data, pair, dict(arguments.price), arguments.answer_tokens)))
    _show(evaluated, arguments.format)
    if arguments.output:
        _write(evaluated, Path(arguments.output), plots=not arguments.no_plots)
    if arguments.report:
        from routellm.evals.report import write_report

        write_report(evaluated, Path(arguments.report), command_line(arguments))
        _say(f"Report: {arguments.report}")


def _labels(specs: Sequence[str]) -> dict[str, str]:
    """What results are called -> what was asked for: a benchmark's name, or a file's without its ending."""
    labels: dict[str, str] = {}
    for spec in dict.fromkeys(specs):
        label = spec if spec in BENCHMARKS else Path(spec).stem
        if label in labels:
            raise ConfigError(f"{labels[label]!r} and {spec!r} would both be called {label!r}; evaluate them one at a time.")
        labels[label] = spec
    return labels


def _random_runs(settings: Mapping[str, Any] | None, runs: int, seed: int) -> list[Router]:
    first = (settings or {}).get("seed", seed) or 0
    return [build_router("random", {**(settings or {}), "seed": first + number}) for number in range(runs)]


def _to_overwrite(asked: Sequence[str] | None, names: Sequence[str]) -> set[str]:
    if asked is None:
        return set()
    for name in asked:
        if name not in names:
            raise ConfigError(
                f"--overwrite-cache names {name!r}{did_you_mean(name, names)}; evaluated are: {', '.join(names)}."
            )
    return set(asked or names)


def _pair(arguments: argparse.Namespace, default: ModelPair | None, spec: str) -> ModelPair:
    strong = arguments.strong_model or (default and default.strong)
    weak = arguments.weak_model or (default and default.weak)
    if not strong or not weak:
        raise ConfigError(
            f"The benchmark {spec!r} does not say which two models to compare: give --strong-model and --weak-model."
        )
    return ModelPair(strong, weak)


def _score_all(
    routers: Mapping[str, Sequence[Router]],
    benchmark: str,
    data: BenchmarkData,
    cache: ScoreCache,
    overwrite: set[str],
    parallel: int,
) -> list[Scored]:
    scored = []
    with console.progress() as bar:
        for name, instances in routers.items():
            task = bar.add_task(f"{benchmark}: {name}", total=len(data) * len(instances))
            scored.append(
                score(
                    name,
                    instances,
                    benchmark,
                    data,
                    cache,
                    overwrite=name in overwrite,
                    parallel=parallel,
                    advance=lambda prompts, task=task: bar.advance(task, prompts),  # type: ignore[misc]
                )
            )
    return scored


def _show(evaluated: Sequence[Evaluated], form: str) -> None:
    if form == "json":
        json.dump([records.as_record(result, costs) for result, costs in evaluated], sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif form == "csv":
        sys.stdout.write(records.as_csv([records.metric_rows(result, costs) for result, costs in evaluated]))
    else:
        for result, costs in evaluated:
            console.show(result, costs)


def _write(evaluated: Sequence[Evaluated], directory: Path, *, plots: bool) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = [records.as_record(result, costs) for result, costs in evaluated]
        (directory / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Results can't be written to {str(directory)!r}: {error.strerror or error}.") from error
    for name, rows in (
        ("metrics.csv", [records.metric_rows(result, costs) for result, costs in evaluated]),
        ("curves.csv", [records.curve_rows(result) for result, _ in evaluated]),
    ):
        write_table(directory / name, records.as_columns(rows))
    if plots:
        from routellm.evals import plots as drawing

        for result, _ in evaluated:
            drawing.save(result, directory)
    _say(f"Written to {directory}: results.json, metrics.csv, curves.csv" + (", a PNG and an SVG each" if plots else ""))


def command_line(arguments: argparse.Namespace) -> str:
    """The command that gives the same result again: every argument that a result depends on, with its value in force."""
    words = ["python", "-m", "routellm.evals.evaluate", "--routers", *arguments.routers, "--benchmark", *arguments.benchmark]
    for name in ("config", "strong_model", "weak_model", "exclude", "num_results", "random_iters", "seed", "bootstrap"):
        value = getattr(arguments, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    words += ["--domains", *arguments.domains] if arguments.domains else []
    words += ["--answer-tokens", str(arguments.answer_tokens)]
    for model, price in arguments.price:
        words += ["--price", f"{model}={price.input:g},{price.output:g}"]
    return shlex.join(words)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _price(text: str) -> tuple[str, Price]:
    name, separator, numbers = text.partition("=")
    try:
        given, answered = (float(number) for number in numbers.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not MODEL=IN,OUT in dollars per million tokens, such as gpt-4o=2.5,10"
        ) from None
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} names no model; write MODEL=IN,OUT, such as gpt-4o=2.5,10")
    return name, Price(given, answered)


def _at_least(least: int) -> Any:
    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return positive


def build_parser(prog: str = "python -m routellm.evals.evaluate") -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser(prog, "Measure routers on benchmarks.", _EXAMPLES, run)
    add = parser.add_argument
    add("--routers", nargs="+", required=True, metavar="NAME", help="routers to measure, such as: random mf")
    add("--benchmark", nargs="+", required=True, metavar="NAME",
        help="mmlu, gsm8k, mt-bench, routerbench, or a jsonl, csv or parquet file with a column of prompts and one "
        "of qualities for each model; several in one call")  # fmt: skip
    add("--config", metavar="FILE", help="arguments of the routers, in YAML")
    add("--strong-model", metavar="NAME", help="the dear model of the pair, by the benchmark's name for it")
    add("--weak-model", metavar="NAME", help="the cheap one")
    add("--domains", nargs="+", metavar="NAME", help="of mmlu: only these domains or groups, such as STEM")
    add("--exclude", metavar="FILE", help="leave out the prompts of this list, which `routellm contamination` wrote")
    add("--output", metavar="DIR", help="write results.json, metrics.csv, curves.csv and the plots there")
    add("--report", metavar="FILE", help="write one self-contained HTML file")
    add("--format", choices=("table", "json", "csv"), default="table", help="what stdout gets (default: table)")
    add("--overwrite-cache", nargs="*", metavar="NAME", help="score again: these routers, or all where none is named")
    add("--num-results", type=_at_least(1), default=10, metavar="N", help="bins of the published protocol (default: 10)")
    add("--random-iters", type=_at_least(1), default=10, metavar="N", help="runs of the router random (default: 10)")
    add(
        "--parallel",
        type=_at_least(1),
        default=1,
        metavar="N",
        help="batches of prompts that a slow router scores at once (default: 1)",
    )
    add("--seed", type=_at_least(0), default=0, metavar="N", help="of the bootstrap and of random (default: 0)")
    add("--bootstrap", type=_at_least(10), default=1000, metavar="N", help="resamples (default: 1000)")
    add("--price", action="append", type=_price, default=[], metavar="MODEL=IN,OUT",
        help="dollars per million tokens, in place of the bundled price list; may be given for each model")  # fmt: skip
    add("--answer-tokens", type=_at_least(1), default=200, metavar="N",
        help="tokens an answer is taken to have where real costs are unknown (default: 200)")  # fmt: skip
    add("--cache-dir", metavar="DIR", help="for scores and downloaded data (default: the user's cache directory)")
    add("--data-mirror", metavar="DIR", help="a directory that stands in for the network (default: ROUTELLM_DATA_MIRROR)")
    add("--no-plots", action="store_true", help="with --output: leave the plots out")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
