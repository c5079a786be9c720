"""`python -m routellm.calibrate_threshold`: from a share of strong calls to a threshold, and prompts' scores to a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from routellm.calibration.quantiles import ScoreQuantiles, threshold_for_share
from routellm.commands import CommandParser, command_parser, run_command, share
from routellm.config import load_config
from routellm.errors import ConfigError, DataError
from routellm.ledger.settings import hide_password
from routellm.prompt_files import PromptSet, read_prompts
from routellm.routers.routers import ROUTER_CLS, Router, build_router
from routellm.tables import check_writable, read_table, write_table

Scores: TypeAlias = NDArray[np.float64]

ARENA_PROMPTS = "lmsys/lmsys-arena-human-preference-55k"
"""The public data set of users' prompts on the hub by which thresholds are commonly compared."""

_BATCH = 256  # prompts scored between two steps of the progress bar
_ENOUGH = 0.005  # an achieved share further off than this is said to be so

_EXAMPLES = f"""
# by the quantiles that come with the router; needs no data and no network
routellm calibrate --routers mf --strong-model-pct 0.5

# by your own prompts, for three shares at once
routellm calibrate --routers mf random --strong-model-pct 0.2 0.5 0.8 --dataset prompts.jsonl --column prompt

# score prompts once, calibrate on the scores as often as you like
routellm calibrate --task generate --routers mf --dataset prompts.csv --output scores.parquet
routellm calibrate --routers mf --strong-model-pct 0.3 --scores scores.parquet

# by the requests that a server has had
routellm calibrate --routers mf --strong-model-pct 0.3 --from-ledger ~/.local/share/routellm/ledger.sqlite

# the public arena prompts on the hub (extra: hub)
routellm calibrate --routers mf --dataset {ARENA_PROMPTS}

# then ask the server for the model router-mf-THRESHOLD
"""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold for one router and one wanted share, and what it rests on.

    `achieved_share` is the share of the data's prompts that reach the strong model at the threshold; where scores tie, it is
    the nearest to `strong_share` that any threshold gives. `prompts` is 0 where the scores' distribution is known without.
    """

    router: str
    strong_share: float
    threshold: float
    achieved_share: float
    prompts: int
    source: str

    def __str__(self) -> str:
        data = f"on {self.source} ({self.prompts:,} prompts)" if self.prompts else f"({self.source})"
        tied = "; no threshold comes nearer" if abs(self.achieved_share - self.strong_share) > _ENOUGH else ""
        return (
            f"For {self.strong_share:.1%} strong model calls for {self.router}, threshold = {self.threshold:.5f}\n"
            f"  achieved: {self.achieved_share:.1%} {data}{tied}"
        )


def calibrate(router: str, share: float, scores: ScoreQuantiles | Scores, source: str = "") -> Calibration:
    """The threshold at which `share` of calls reach the strong model.

    Args:
        router: its name.
        share: the wanted share, in [0, 1].
        scores: win rates of prompts, or quantiles of them (which then carry their own source).
        source: what the prompts were, in words.
    """
    if isinstance(scores, ScoreQuantiles):
        found = scores.threshold_for_share(share)
        return Calibration(router, share, found.threshold, found.achieved, scores.prompts, scores.source)
    found = threshold_for_share(scores, share)
    return Calibration(router, share, found.threshold, found.achieved, len(scores), source)


def score_prompts(router: Router, name: str, prompts: Sequence[str], advance: Callable[[int], object] = int) -> Scores:
    """Win rates of `prompts`, shape (len(prompts),); `advance` hears how many more have been scored.

    Raises:
        DataError: the router gave something other than one number in [0, 1] a prompt.
    """
    scores = np.empty(len(prompts))
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        rates = np.asarray(router.calculate_strong_win_rates(batch), dtype=np.float64)
        if rates.shape != (len(batch),) or not np.all((rates >= 0.0) & (rates <= 1.0)):
            raise DataError(f"The router {name!r} gave scores that are not one number from 0 to 1 for each prompt.")
        scores[start : start + len(batch)] = rates
        advance(len(batch))
    return scores


def read_scores(source: str, routers: Sequence[str], split: str = "train") -> dict[str, Scores]:
    """Scores by router from a table with one column a router, such as `--task generate` writes.

    Raises:
        DataError: the table can't be read, lacks a router's column, or a score is not a number in [0, 1].
    """
    rows = list(read_table(source, routers, split))
    if not rows:
        raise DataError(f"{source} holds no scores.")
    columns: dict[str, Scores] = {}
    for name, values in zip(routers, zip(*rows, strict=True), strict=True):
        for row, value in enumerate(values):
            if not _is_score(value):
                raise DataError(f"{source}, row {row}, column {name!r}: {value!r} is not a number from 0 to 1.")
        columns[name] = np.array(values, dtype=np.float64)
    return columns


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.calibrate_threshold") -> CommandParser:
    """The command's parser."""
    parser = command_parser(
        prog,
        "Find the threshold at which a wanted share of calls reaches the strong model.",
        _EXAMPLES,
        _run,
    )
    add = parser.add_argument
    add(
        "--task",
        choices=["calibrate", "generate"],
        default="calibrate",
        help="calibrate: print thresholds (default); generate: score a data set and write the scores",
    )
    add("--routers", nargs="+", default=["mf"], metavar="NAME", help="routers to calibrate (default: mf)")
    add(
        "--strong-model-pct",
        nargs="+",
        type=share,
        default=[0.5],
        metavar="SHARE",
        help="wanted shares of strong calls, as fractions from 0 to 1 (default: 0.5)",
    )
    add("--config", metavar="FILE", help="YAML file with the routers' arguments")
    data = parser.add_mutually_exclusive_group()
    data.add_argument(
        "--dataset",
        metavar="DATA",
        help="prompts: a .jsonl, .csv, .parquet or .txt file (one prompt a line), or owner/name on the hub "
        f"(default: the quantiles that come with each router; for generate: {ARENA_PROMPTS})",
    )
    data.add_argument(
        "--from-ledger",
        nargs="?",
        const="",
        metavar="PATH|URL",
        help="the win rates of a server's own requests, from its ledger: an SQLite file or postgresql://... (default: the "
        "ledger in --config, ROUTELLM_LEDGER_URL in the environment, or the user's own)",
    )
    data.add_argument("--scores", metavar="DATA", help="scores with one column a router, as --task generate writes them")
    add("--column", default="prompt", help="the data set's column of prompts, or of lists of turns (default: prompt)")
    add("--split", default="train", help="which split of a data set on the hub (default: train)")
    add(
        "--output",
        metavar="FILE",
        help="where --task generate writes: .jsonl, .csv or .parquet, one column a router beside the prompt's row "
        "(default: scores.jsonl)",
    )
    add("--json", action="store_true", help="print JSON")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    names = list(dict.fromkeys(arguments.routers))
    if arguments.task == "generate":
        _generate(arguments, names)
        return
    if arguments.output:
        raise ConfigError("--output goes with --task generate; thresholds are printed.")
    scores, source = _scores_for(arguments, names)
    found = [calibrate(name, share, scores[name], source) for name in names for share in arguments.strong_model_pct]
    if arguments.json:
        _print(msgspec.json.format(msgspec.json.encode([asdict(one) for one in found])).decode())
    else:
        _print("\n".join(str(one) for one in found))


def _scores_for(arguments: argparse.Namespace, names: Sequence[str]) -> tuple[Mapping[str, ScoreQuantiles | Scores], str]:
    if arguments.scores:
        return read_scores(arguments.scores, names, arguments.split), arguments.scores
    if arguments.from_ledger is not None:
        return _read_ledger(arguments, names)
    routers = _load_routers(arguments, names)
    if arguments.dataset:
        prompts = _load_prompts(arguments, arguments.dataset)
        return _score_all(routers, prompts.prompts), prompts.source
    quantiles = {name: router.quantiles for name, router in routers.items()}
    known = {name: held for name, held in quantiles.items() if held is not None}
    if len(known) < len(quantiles):
        bare = ", ".join(name for name in quantiles if name not in known)
        raise ConfigError(f"No score quantiles come with: {bare}. Give prompts to calibrate on: --dataset FILE.")
    return known, ""


def _read_ledger(arguments: argparse.Namespace, names: Sequence[str]) -> tuple[dict[str, Scores], str]:
    from routellm.ledger.migrate import open_reader
    from routellm.ledger.options import given_url
    from routellm.ledger.queries import win_rates

    url = given_url(argparse.Namespace(ledger=arguments.from_ledger or None, config=arguments.config))
    engine = open_reader(url)
    try:
        found = {name: np.array(win_rates(engine, name), dtype=np.float64) for name in names}
    finally:
        engine.dispose()
    for name, scores in found.items():
        if not len(scores):
            raise DataError(f"The ledger {hide_password(url)!r} holds no request that the router {name!r} scored.")
    return found, hide_password(url)


def _generate(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    if arguments.scores or arguments.from_ledger is not None:
        flag = "--scores" if arguments.scores else "--from-ledger"
        raise ConfigError(f"{flag} goes with --task calibrate; --task generate scores the prompts of --dataset.")
    output = arguments.output or "scores.jsonl"
    check_writable(output)
    routers = _load_routers(arguments, names)
    prompts = _load_prompts(arguments, arguments.dataset or ARENA_PROMPTS)
    scores = _score_all(routers, prompts.prompts)
    write_table(output, {"index": prompts.rows, **{name: column.tolist() for name, column in scores.items()}})
    if arguments.json:
        _print(msgspec.json.encode({"output": output, "prompts": len(prompts.rows), "routers": names}).decode())
    else:
        _print(f"Wrote scores of {len(prompts.rows):,} prompts by {', '.join(names)} to {output}")


def _load_routers(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Router]:
    config = load_config(arguments.config, ROUTER_CLS) if arguments.config else {}
    return {name: build_router(name, config.get(name)) for name in names}


def _load_prompts(arguments: argparse.Namespace, source: str) -> PromptSet:
    prompts = read_prompts(source, arguments.column, split=arguments.split)
    for note in prompts.notes():
        sys.stderr.write(f"routellm: note: {source}: {note}\n")
    return prompts


def _score_all(routers: Mapping[str, Router], prompts: Sequence[str]) -> dict[str, Scores]:
    with _progress(len(prompts) * len(routers)) as advance:
        return {name: score_prompts(router, name, prompts, advance) for name, router in routers.items()}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    if not sys.stderr.isatty():
        yield int  # takes the count and does nothing with it
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("Scoring", total=total)
        yield lambda count: bar.advance(task, count)


def _is_score(value: object) -> bool:
    try:
        return not isinstance(value, bool) and 0.0 <= float(value) <= 1.0  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    sys.exit(main())
