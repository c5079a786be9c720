"""`routellm logs export`: the ledger's requests as a table that calibration, evaluation and training read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from routellm.commands import CommandParser, command_parser, run_command
from routellm.errors import DataError
from routellm.ledger.options import add_ledger_arguments, open_given, selection
from routellm.ledger.queries import rows
from routellm.ledger.usage import dollars
from routellm.tables import check_writable, write_table

_DESCRIPTION = """\
Write the requests of the ledger to a .jsonl, .csv or .parquet file, one a row, in the order in which they came.

Each router has a column under its own name with the win rates that it gave, which is what `routellm calibrate --scores` reads;
with --router every row has one. `prompt` (with --with-prompts, where prompts are kept) is what `calibrate --dataset`,
`responses --benchmark` and, once the rows have labels, `evaluate`, `train` and `adapt` read; requests without a kept prompt
are left out then. `model` is the one that answered: with a column `score` beside it, the file is one of long scores."""

_EXAMPLES = """
routellm logs export --since 7d --output requests.jsonl
routellm logs export --since all --router mf --output scores.jsonl
routellm calibrate --routers mf --scores scores.jsonl --strong-model-pct 0.3
routellm logs export --with-prompts --output prompts.parquet
"""

_STORED = [
    *("request_id", "at", "key", "api", "asked", "model", "role", "reason", "router", "threshold", "win_rate", "outcome"),
    *("status", "error", "streamed", "attempts", "decision_us", "own_ms", "upstream_ms", "first_byte_ms", "input_tokens"),
    *("output_tokens", "cached_input_tokens", "estimated", "nanodollars"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.ledger.logs") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, _run, "export")
    parser.add_argument("action", choices=["export"], help="what to do with the requests")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="its name ends in .jsonl, .csv or .parquet (extra: eval)"
    )
    parser.add_argument("--with-prompts", action="store_true", help="requests with a kept prompt only, with its text")
    add_ledger_arguments(parser)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    check_writable(arguments.output)
    names = [*(["prompt"] if arguments.with_prompts else []), *_STORED]
    engine = open_given(arguments)
    found = [dict(zip(names, row, strict=True)) for row in rows(engine, selection(arguments), names)]
    engine.dispose()
    if arguments.with_prompts:
        kept = [row for row in found if row["prompt"] is not None]
        if found and not kept:
            raise DataError(
                f"None of the {len(found):,} requests has a kept prompt, so nothing is written. A server keeps prompts where "
                f"its configuration has `prompts: true` under gateway: ledger:."
            )
        if len(kept) < len(found):
            sys.stderr.write(f"routellm: note: left out {len(found) - len(kept):,} requests without a kept prompt\n")
        found = kept
    if not found:
        raise DataError("No requests are selected, so nothing is written. Give a longer --since, or less to select by.")
    write_table(arguments.output, _as_columns(found))
    sys.stdout.write(f"Wrote {len(found):,} requests to {arguments.output}\n")


def _as_columns(found: list[dict[str, Any]]) -> dict[str, list[Any]]:
    table = {name: [row[name] for row in found] for name in found[0]}
    table["at"] = [_time(value) for value in table["at"]]
    prices = table.pop("nanodollars")
    table["dollars"] = [None if price is None else float(dollars(price)) for price in prices]
    table["nanodollars"] = prices
    for router in sorted({name for name in table["router"] if name is not None} - set(table)):
        scored = zip(table["router"], table["win_rate"], strict=True)
        table[router] = [win_rate if name == router else None for name, win_rate in scored]
    return table


def _time(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


if __name__ == "__main__":
    sys.exit(main())
