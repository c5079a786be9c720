"""`routellm usage`: the ledger's requests, tokens and dollars by day, model, key, router or reason, and what routing saved."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from routellm.commands import CommandParser, command_parser, run_command
from routellm.costs import NANO
from routellm.errors import ConfigError
from routellm.ledger.options import add_ledger_arguments, open_given, selection
from routellm.ledger.queries import BY, Sums, sums, total
from routellm.tables import check_writable, write_table

RULE = "an answer that was not seen is taken to have as many tokens as the one that was given"
"""How savings are estimated."""

_DESCRIPTION = f"""\
Sum up the ledger: requests, tokens, dollars, the share of the strong model, and what routing saved.

Dollars are of requests whose price is known; the others are counted apart. Savings are an estimate, over routed requests: what
the strong model alone would have cost, where {RULE}."""

_EXAMPLES = """
routellm usage
routellm usage --since 7d --by model
routellm usage --since 2026-01-01 --by key --format csv > keys.csv
routellm usage --by day --plot spend.png
routellm usage --ledger postgresql://reader@db.internal/routellm --by router --format json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own arguments) and return its exit code."""
    return run_command(build_parser, argv)


def build_parser(prog: str = "python -m routellm.ledger.usage") -> CommandParser:
    """The command's parser."""
    parser = command_parser(prog, _DESCRIPTION, _EXAMPLES, _run)
    parser.add_argument("--by", choices=BY, default="day", help="what the sums are by; days are in UTC (default: day)")
    add_ledger_arguments(parser)
    parser.add_argument(
        "--format",
        choices=["table", "csv", "json", "parquet"],
        default="table",
        help="parquet goes to --output (default: %(default)s)",
    )
    parser.add_argument("--output", metavar="FILE", help="write csv or parquet there; its name ends in .csv or .parquet")
    parser.add_argument("--plot", metavar="FILE", help="draw dollars by group too: .png, .svg or .pdf (extra: eval)")
    return parser


def record(one: Sums, by: str) -> dict[str, Any]:
    """A group's sums under the names of the exported columns; dollars are exact."""
    has_prices = one.compared > 0
    return {
        by: one.group,
        "requests": one.requests,
        "failed": one.failed,
        "strong_share": one.strong_share,
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        "cached_input_tokens": one.cached_input_tokens,
        "estimated_requests": one.estimated,
        "dollars": dollars(one.nanodollars),
        "unpriced_requests": one.unpriced,
        "compared_requests": one.compared,
        "compared_dollars": dollars(one.compared_nanodollars) if has_prices else None,
        "always_strong_dollars": dollars(one.strong_nanodollars) if has_prices else None,
        "always_weak_dollars": dollars(one.weak_nanodollars) if has_prices else None,
        "saved_dollars": dollars(one.saved_nanodollars) if has_prices else None,
    }


def dollars(nanodollars: int) -> Decimal:
    """Exactly as many."""
    return Decimal(nanodollars) / NANO


def notes(whole: Sums) -> list[str]:
    """What to know before trusting the figures, one sentence each."""
    found = []
    if whole.compared:
        against = whole.strong_nanodollars
        share = f" ({whole.saved_nanodollars / against:.0%})" if against else ""
        means = [
            f"{name} {tokens / count:,.0f}"
            for name, tokens, count in (
                ("strong", whole.strong_output, whole.strong),
                ("weak", whole.weak_output, whole.weak),
            )
            if count
        ]
        found.append(
            f"Estimate over {whole.compared:,} routed requests with known prices, which cost "
            f"{_money(whole.compared_nanodollars)}: the strong model alone would have cost {_money(against)}, so routing "
            f"saved {_money(whole.saved_nanodollars)}{share}; the weak model alone, {_money(whole.weak_nanodollars)}."
        )
        found.append(f"Rule: {RULE}. Mean tokens of the answers seen: {', '.join(means)}.")
    if whole.unpriced:
        found.append(
            f"Requests without a known price, which are in no sum of dollars: {whole.unpriced:,}; see gateway: prices."
        )
    if whole.estimated:
        found.append(
            f"Requests whose tokens are estimated from their text, since the model did not tell them: {whole.estimated:,}."
        )
    return found


def _run(arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        if arguments.format not in ("csv", "parquet"):
            raise ConfigError("--output goes with --format csv or parquet; a table and JSON are printed.")
        if not arguments.output.endswith(f".{arguments.format}"):
            raise ConfigError(f"--output is {arguments.output!r}; with --format {arguments.format} it must end so.")
        check_writable(arguments.output)
    elif arguments.format == "parquet":
        raise ConfigError("--format parquet needs a file: give --output FILE.parquet.")
    engine = open_given(arguments)
    found = sums(engine, selection(arguments), arguments.by)
    engine.dispose()
    if arguments.plot is not None:
        from routellm.ledger.plot import save_plot

        save_plot(found, arguments.by, arguments.plot)
    _SHOW[arguments.format](found, arguments)


def _table(found: list[Sums], arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if not found:
        console.print("No requests.")
        return
    whole = total(found)
    table = Table(arguments.by, box=None, pad_edge=False, header_style="bold")
    for name in ("requests", "failed", "strong", "input", "output", "dollars", "saved (est.)"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row("-" if one.group is None else escape(_visible(one.group)), *_cells(one))
    if len(found) > 1:
        table.add_section()
        table.add_row("all", *_cells(whole), style="bold")
    console.print(table)
    for note in notes(whole):
        console.print(note)


def _cells(one: Sums) -> list[str]:
    return [
        *(f"{number:,}" for number in (one.requests, one.failed)),
        "-" if one.strong_share is None else f"{one.strong_share:.1%}",
        *(f"{number:,}" for number in (one.input_tokens, one.output_tokens)),
        _money(one.nanodollars) if one.nanodollars or not one.unpriced else "unknown",
        _money(one.saved_nanodollars) if one.compared else "-",
    ]


def _csv(found: list[Sums], arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        _file(found, arguments)
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_names(arguments.by))
    writer.writerows(record(one, arguments.by).values() for one in found)


def _json(found: list[Sums], arguments: argparse.Namespace) -> None:
    content = {"rule": RULE, "notes": notes(total(found)), "groups": [record(one, arguments.by) for one in found]}
    encoded = msgspec.json.Encoder(decimal_format="number").encode(content)
    sys.stdout.write(msgspec.json.format(encoded).decode() + "\n")


def _file(found: list[Sums], arguments: argparse.Namespace) -> None:
    records = [record(one, arguments.by) for one in found]
    write_table(arguments.output, {name: [one[name] for one in records] for name in _names(arguments.by)})


def _names(by: str) -> list[str]:
    return list(record(total([]), by))


def _money(nanodollars: int) -> str:
    """Cents, or for sums that have none two digits that count."""
    value = nanodollars / NANO
    text = (
        f"{abs(value):,.2f}"
        if abs(value) >= 0.1 or value == 0
        else f"{abs(value):.2g}"
        if abs(value) < 1e-4
        else f"{abs(value):.4f}"
    )
    return f"{'-' if value < 0 else ''}${text}"


def _visible(text: str) -> str:
    """A client's own text can't steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


_SHOW = {"table": _table, "csv": _csv, "json": _json, "parquet": _file}

if __name__ == "__main__":
    sys.exit(main())
