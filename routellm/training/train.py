"""`routellm train NAME`: train a router of one kind on one's own preferences, scores or ratings.

The result is a folder that a configuration's `checkpoint_path` can point at: weights, `router.json`, and a model card.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import routellm
from routellm.calibration.quantiles import ScoreQuantiles
from routellm.commands import CommandParser, command_parser, run_command, share
from routellm.errors import ConfigError, DataError, did_you_mean
from routellm.prompt_files import read_prompts
from routellm.routers.checkpoint import save_checkpoint
from routellm.routers.routers import Router
from routellm.training import validation
from routellm.training.arguments import CheckedData, add_data_arguments, read_data
from routellm.training.card import model_card, with_interval
from routellm.training.dataset import split_by_prompt
from routellm.training.preferences import STRONG, WEAK, Preference
from routellm.training.reading import file_hashes
from routellm.training.trainers import TRAINERS, Trained, Trainer, TrainingData

_EXAMPLES = """
routellm train mf --data battles.jsonl --strong-model gpt-4o --weak-model llama-3-8b --output my-router
routellm train mf --data pairs.parquet --by-role --output my-router --quantiles-from my_traffic
routellm train mf --data scores.csv --column prompt=question --by-role --ties loss --output my-router
routellm train mf --help
"""
_WORK = ".work"
_RUN = "run.json"


def train(trainer: Trainer, name: str, arguments: argparse.Namespace, command: str) -> Path:
    """Read, check, split, fit, measure, save.

    Args:
        trainer: of the kind of router that is registered under `name`.
        arguments: what `trainer_parser(name)` parsed.
        command: what the model card is to give as the command.

    Returns:
        The folder.

    Raises:
        ConfigError: the flags contradict each other, or name what is not in the data.
        DataError: the data can't be used.
    """
    output = Path(arguments.output)
    checked = read_data(arguments, output.with_name(f"{output.name}.test-prompts.jsonl"), _say)
    data = _split(arguments, checked.read.rows)
    sources = _quantile_sources(arguments, data)
    real = _real_prompts(arguments, data, sources)
    work = _open_work(arguments, output)
    try:
        trained = trainer.fit(data, arguments, work, _say)
    except BaseException:
        if {path.name for path in work.iterdir()} == {_RUN}:  # there is nothing to go on from
            _close_work(work)
        raise
    quantiles, measured = _measure(arguments, data, trained.router, sources, real)
    meta = _meta(arguments, command, checked, data, trained, measured)
    folder = save_checkpoint(output, name, trained.tensors, meta, quantiles, trained.files)
    (folder / "README.md").write_text(model_card(name, meta, quantiles, arguments.card_notes), encoding="utf-8")
    _close_work(work)
    _say(f"saved {folder}; use it by --config with a file that holds")
    print(f"{name}:\n  checkpoint_path: {folder}")
    return folder


def _split(arguments: argparse.Namespace, rows: Sequence[Preference]) -> TrainingData:
    strong, weak = _pair(arguments, sorted({row.first for row in rows} | {row.second for row in rows}))
    outcomes = Counter(row.outcome for row in rows if (row.first, row.second) == (strong, weak))
    if len(outcomes) == 1:
        what = {"first": f"won by {strong!r}", "second": f"won by {weak!r}", "tie": "ties"}[next(iter(outcomes))]
        raise DataError(
            f"All {outcomes.total():,} comparisons of {strong!r} and {weak!r} are {what}: there is nothing to tell apart. "
            f"Give data with other outcomes too."
        )
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    if not 0.0 < arguments.validation_share < 1.0 or len(prompts) < 2:
        raise ConfigError(
            f"--validation-share is {arguments.validation_share:g} of {len(prompts):,} prompts; it must lie between 0 and 1, "
            f"and leave prompts on both sides."
        )
    chosen = split_by_prompt(len(prompts), arguments.validation_share, arguments.seed)
    held_prompts = {prompt for prompt, held in zip(prompts, chosen, strict=True) if held}
    held = np.array([row.prompt in held_prompts for row in rows])
    _say(
        f"comparisons: {len(rows):,}, prompts: {len(prompts):,} ({len(held_prompts):,} for validation), "
        f"sources: {len({row.source for row in rows})}"
    )
    return TrainingData(rows, held, strong, weak, arguments.seed)


def _pair(arguments: argparse.Namespace, models: list[str]) -> tuple[str, str]:
    names = (arguments.strong_model or STRONG, arguments.weak_model or WEAK)
    for name in names:
        if name not in models:
            raise ConfigError(
                f"The data hold no model {name!r}{did_you_mean(name, models)}. Give --strong-model and --weak-model out of: "
                f"{', '.join(models)}" + ("." if arguments.by_role else "; or --by-role for pairs and scores.")
            )
    return names


def _quantile_sources(arguments: argparse.Namespace, data: TrainingData) -> list[str]:
    if arguments.quantiles_from and arguments.quantiles_data:
        raise ConfigError("--quantiles-from and --quantiles-data both say whose prompts count; give one of them.")
    known = sorted({row.source for row in data.rows})
    for name in arguments.quantiles_from or ():
        if name not in known:
            raise ConfigError(
                f"--quantiles-from names the source {name!r}{did_you_mean(name, known)}. The data's sources are: "
                f"{', '.join(known)}."
            )
    return arguments.quantiles_from or known


def _open_work(arguments: argparse.Namespace, output: Path) -> Path:
    """The folder for what makes the run resumable: that of an earlier run with `--resume`, else a new one."""
    work = output / _WORK
    given = {key: value for key, value in vars(arguments).items() if key not in ("run", "resume", "output")}
    settings = json.loads(json.dumps({**given, "hashes of the data": file_hashes(arguments.data)}))
    if arguments.resume and (work / _RUN).is_file():
        earlier = json.loads((work / _RUN).read_text(encoding="utf-8"))
        other = sorted(key for key in {*earlier, *settings} if earlier.get(key) != settings.get(key))
        if other:
            raise ConfigError(
                f"The run in {work} had other values of: {', '.join(other)}. Give the same ones, or train without --resume."
            )
        _say(f"going on with the run in {work}")
        return work
    if arguments.resume:
        _say(f"there is no run to go on with in {work}; starting from the beginning")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / _RUN).write_text(json.dumps(settings), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {str(output)!r} can't be written: {error.strerror}. Name another folder.") from error
    return work


def _close_work(work: Path) -> None:
    shutil.rmtree(work)
    if not any(work.parent.iterdir()):
        work.parent.rmdir()


def _measure(
    arguments: argparse.Namespace, data: TrainingData, router: Router, sources: Sequence[str], real: list[str]
) -> tuple[ScoreQuantiles, dict[str, Any]]:
    """Quantiles of the scores of the prompts `real`, and how well scores rank each source's validation prompts."""
    pair = data.strong, data.weak
    held = zip(data.rows, data.held, strict=True)
    validating = [row for row, is_held in held if is_held and (row.first, row.second) == pair]
    prompts = _sample(real, arguments.quantiles_prompts, data.seed)
    scores = _score(router, [*(row.prompt for row in validating), *prompts])
    measured = validation.by_source(validating, scores, arguments.seed)
    for source, found in measured.items():
        auc, apgr = with_interval(found.get("auc")), with_interval(found.get("apgr"))
        _say(f"validation on {source}, {found['prompts']:,} prompts: AUC {auc}, APGR {apgr}")
    file = Path(arguments.quantiles_data or "").name
    what = arguments.quantiles_note or (f"prompts of {file}" if file else f"training prompts of {', '.join(sources)}")
    return ScoreQuantiles.of([scores[prompt] for prompt in prompts], what), measured


def _meta(
    arguments: argparse.Namespace,
    command: str,
    checked: CheckedData,
    data: TrainingData,
    trained: Trained,
    measured: dict[str, Any],
) -> dict[str, Any]:
    """What `router.json` holds beside what `save_checkpoint` adds."""
    return {
        "strong_model": data.strong,
        "weak_model": data.weak,
        **trained.meta,
        "training": {
            "routellm_version": routellm.__version__,
            "command": command,
            "data": file_hashes(arguments.data),
            "excluded": file_hashes(arguments.exclude),
            "rows_by_source": dict(Counter(row.source for row in data.rows)),
            "rows_left_out": dict(checked.read.dropped),
            "reading": checked.read.notes,
            "test_prompts": checked.test_prompts,
            "validation_share": arguments.validation_share,
            "seed": arguments.seed,
            "by_role": arguments.by_role,
            **trained.settings,
        },
        "metrics": {**trained.metrics, "validation_by_source": measured},
    }


def _real_prompts(arguments: argparse.Namespace, data: TrainingData, sources: Sequence[str]) -> list[str]:
    """The distinct prompts whose scores stand for real users': those of a file, or of `sources`."""
    if arguments.quantiles_data:
        return list(dict.fromkeys(read_prompts(arguments.quantiles_data, prompt_from="first").prompts))
    return list(dict.fromkeys(row.prompt for row in data.rows if row.source in sources))


def _sample(prompts: list[str], most: int, seed: int) -> list[str]:
    """At most `most` of `prompts`, drawn by the seed."""
    if len(prompts) <= most:
        return prompts
    picked = np.random.default_rng([seed, 3]).choice(len(prompts), most, replace=False)
    return [prompts[index] for index in np.sort(picked).tolist()]


def _score(router: Router, prompts: Sequence[str]) -> dict[str, float]:
    distinct = list(dict.fromkeys(prompts))
    _say(f"scoring {len(distinct):,} prompts")
    return dict(zip(distinct, router.calculate_strong_win_rates(distinct).tolist(), strict=True))


def _without_folders(word: str, output: str) -> str:
    """The last part of a path that is there or will be: a card tells what was given, not where it lay on somebody's disk."""
    return Path(word).name if "/" in word and (word == output or Path(word).exists()) else word


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def trainer_parser(prog: str, name: str) -> CommandParser:
    """The parser of `routellm train NAME`: the flags that all trainers share, and the trainer's own.

    Raises:
        UnknownNameError: there is no trainer of that name.
    """
    trainer = TRAINERS[name]
    examples = f"{prog} {name} --data battles.jsonl --strong-model gpt-4o --weak-model llama-3-8b --output my-router"
    parser = command_parser(f"{prog} {name}", f"Train a router of the kind {name}: {trainer.summary}.", examples, run)
    add_data_arguments(parser)
    add = parser.add_argument_group("result").add_argument
    add("--output", required=True, metavar="DIR", help="where the checkpoint goes")
    add("--resume", action="store_true", help="go on with a run that broke off, with the same settings")
    add("--validation-share", type=share, default=0.1, metavar="SHARE", help="of the prompts (default: 0.1)")
    add("--quantiles-from", nargs="+", metavar="SOURCE", help="sources whose prompts stand for real users' (default: all)")
    add("--quantiles-data", metavar="FILE", help="prompts of real users, if they are not among the training data")
    add("--quantiles-note", metavar="TEXT", help="what those prompts are, in words")
    add("--quantiles-prompts", type=_count, default=10_000, metavar="N", help="score at most so many (default: 10000)")
    add("--card-notes", metavar="TEXT", help="a paragraph for the model card: sources and licences")
    add("--seed", type=_whole, default=0, help="for everything that is drawn (default: 0)")
    trainer.add_arguments(parser)
    return parser


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1)


def run(arguments: argparse.Namespace) -> None:
    """Run `routellm train` with what `build_parser` parsed: the trainer's name and its arguments, not yet parsed."""
    name, *words = arguments.words
    parsed = trainer_parser(arguments.prog, name).parse_args(words)
    told = [_without_folders(word, parsed.output) for word in words]
    train(TRAINERS[name](), name, parsed, shlex.join(["routellm", "train", name, *told]))


def build_parser(prog: str = "python -m routellm.training.train") -> CommandParser:
    """The parser of everything but a trainer's own arguments: only the chosen trainer's module is imported."""
    listed = "\n".join(f"  {name:<13} {TRAINERS[name].summary}" for name in TRAINERS)
    description = f"Train a router on your own preferences, scores or ratings.\n\nrouters:\n{listed}"
    parser = command_parser(prog, description, _EXAMPLES, run, "NAME ...")
    parser.add_argument("words", nargs=argparse.PARSER, metavar="NAME ...", help=argparse.SUPPRESS)
    parser.set_defaults(prog=prog)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
