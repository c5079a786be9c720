"""What `operations.py` collects, and whether it agrees: the clients' books, the ledger, `routellm usage`, and `/metrics`."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from benchmarks.operations_load import Entry

LAST_SECONDS = 1.0
"""What a worker that is killed may take with it."""

ROW = (
    *("request_id", "outcome", "status", "model", "input_tokens", "output_tokens", "cached_input_tokens", "estimated"),
    *("nanodollars", "attempts", "own_ms"),
)


@dataclass
class Books:
    """Everything that was counted, by everybody."""

    entries: list[Entry] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    metrics: str = ""
    upstream_calls: int = 0
    spent: int | None = None
    killed_at: float | None = None
    seconds: float = 0.0
    stop_seconds: float = 0.0
    exit_code: int | None = None
    log: list[str] = field(default_factory=list)


@dataclass
class Sums:
    """Of some requests."""

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    nanodollars: int = 0

    @classmethod
    def of_rows(cls, rows: Iterable[dict[str, Any]]) -> Sums:
        names = ("input_tokens", "cached_input_tokens", "output_tokens", "nanodollars")
        rows = list(rows)
        return cls(len(rows), *(sum(row[name] or 0 for row in rows) for name in names))

    @classmethod
    def of_entries(cls, entries: Iterable[Entry]) -> Sums:
        entries = list(entries)
        names = ("input", "cached", "output", "nanodollars")
        return cls(len(entries), *(sum(getattr(entry, name) or 0 for entry in entries) for name in names))

    def cells(self) -> str:
        tokens = " | ".join(f"{value:,}" for value in (self.requests, self.input, self.cached, self.output))
        return f"{tokens} | {self.nanodollars // 10**9:,}.{self.nanodollars % 10**9:09d}"


class Report:
    """What is printed, and whether everything held."""

    def __init__(self) -> None:
        self.wrong = 0

    def line(self, text: str = "") -> None:
        print(text)

    def check(self, what: str, holds: bool, told: str = "") -> None:
        self.wrong += not holds
        self.line(f"- {what}: {'yes' if holds else 'NO'}{f' ({told})' if told else ''}")


def report(args: argparse.Namespace, books: Books) -> int:
    """Print what was found; how much of it was wrong."""
    told = Report()
    rate = len(books.entries) / books.seconds
    database = "PostgreSQL" if args.database else "SQLite"
    told.line(
        f"{datetime.now(UTC):%Y-%m-%d}: {len(books.entries):,} requests, {args.workers} workers, {database}"
        f"{', keys' if args.keys else ''}{', one worker killed' if args.kill else ''}; seed {args.seed}; "
        f"{books.seconds:.0f} s, {rate:,.0f} requests/s; SIGTERM to the end: {books.stop_seconds:.1f} s\n"
    )
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in books.rows:
        rows.setdefault(row["request_id"], []).append(row)
    compare_answered(told, books, rows)
    told.line()
    compare_rows(told, books, rows)
    compare_sums(told, books)
    told.check("the server ended with exit code 0", books.exit_code == 0)
    worse = [line for line in books.log if " ERROR " in line or "Traceback" in line]
    told.check("no error in the log", not worse, "; ".join(worse[:3]))
    return told.wrong


def compare_answered(told: Report, books: Books, rows: dict[str, list[dict[str, Any]]]) -> None:
    """A table by kind and model: what the clients counted, and what the ledger has of the same requests."""
    told.line("| requests | counted by | requests | input | of it cached | output | dollars |")
    told.line("|---|---|---|---|---|---|---|")
    groups: dict[str, list[Entry]] = {}
    for entry in books.entries:
        if entry.status is None:
            continue
        how = "status " + str(entry.status) if entry.status != 200 else "estimated" if entry.estimated else "told"
        groups.setdefault(f"{entry.model or 'no model'}, {how}", []).append(entry)
    for name, entries in sorted(groups.items()):
        told.line(f"| {name} | clients | {Sums.of_entries(entries).cells()} |")
        found = Sums.of_rows(row for entry in entries for row in rows.get(entry.id, ()))
        told.line(f"| | ledger | {found.cells()} |")


def compare_rows(told: Report, books: Books, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Each entry against its row."""
    answered = [entry for entry in books.entries if entry.status is not None]
    missing = [entry for entry in answered if entry.id not in rows]
    wrong = [entry.id for entry in answered if entry.id in rows and not agrees(entry, rows[entry.id][0])]
    told.check("no request has two rows", len(books.rows) == len(rows))
    told.check(
        f"the rows of {len(answered) - len(missing):,} answered requests say what their clients saw",
        not wrong,
        "; ".join(map(str, wrong[:5])),
    )
    if books.killed_at is None:
        told.check("no answered request is without a row", not missing, f"{len(missing)} are" if missing else "")
    else:
        ages = [books.killed_at - entry.ended for entry in missing]
        span = f"ended {min(ages) * 1e3:.0f} to {max(ages) * 1e3:.0f} ms before the worker was killed" if ages else "none"
        late = [age for age in ages if not -0.1 <= age <= LAST_SECONDS]
        told.check(f"answered requests without a row: {len(missing)}, all of the killed worker's last second", not late, span)
        cut = [entry for entry in books.entries if entry.kind == "cut"]
        told.line(f"- requests that were cut with the worker: {len(cut)}, {sum(entry.id in rows for entry in cut)} with a row")
    left = [entry for entry in books.entries if entry.status is None and entry.kind != "cut"]
    gone = [rows[entry.id][0] for entry in left if entry.id in rows]
    states = Counter(
        f"{row['outcome']}, {row['status']}, {'no' if row['input_tokens'] is None else 'estimated'} tokens" for row in gone
    )
    right = set(states) <= {"client-gone, 499, no tokens", "client-gone, 200, estimated tokens"}
    lost = len(left) - len(gone)
    told.check(
        f"each of {len(left):,} requests whose client left has a row that says so",
        right and (not lost or books.killed_at is not None),
        "; ".join(f"{count:,} {state}" for state, count in states.most_common()),
    )
    strange = set(rows) - {entry.id for entry in books.entries}
    told.check("no row is of a request that nobody sent", not strange)


def agrees(entry: Entry, row: dict[str, Any]) -> bool:
    """Whether a row says what the client saw."""
    refused = row["outcome"] == "refused" and row["model"] is None and entry.kind == "refused"
    seen = (entry.status, entry.model or None, entry.input, entry.output, entry.cached, entry.estimated, entry.nanodollars)
    names = ("status", "model", "input_tokens", "output_tokens", "cached_input_tokens", "estimated", "nanodollars")
    said = tuple(bool(row[name]) if name == "estimated" and row[name] is not None else row[name] for name in names)
    return (refused or row["outcome"] == "answered") and seen == said


def compare_sums(told: Report, books: Books) -> None:
    """All rows against `routellm usage`, `/metrics`, the key's budget, and the upstream's own count."""
    told.line("\n| all requests, those that were left too | requests | input | of it cached | output | dollars |")
    told.line("|---|---|---|---|---|---|")
    whole = Sums.of_rows(books.rows)
    told.line(f"| ledger, SQL | {whole.cells()} |")
    names = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "dollars")
    by_usage = [sum(Decimal(group[name]) for group in books.usage) for name in names]
    of_usage = Sums(*(int(value) for value in by_usage[:4]), int(by_usage[4] * 10**9))
    told.line(f"| `routellm usage` | {of_usage.cells()} |")
    kinds = {
        kind: int(metric(books.metrics, "routellm_tokens_total", kind=kind)) for kind in ("input", "cached_input", "output")
    }
    dollars = metric(books.metrics, "routellm_cost_dollars_total")
    of_metrics = Sums(
        int(metric(books.metrics, "routellm_requests_total")),
        kinds["input"] + kinds["cached_input"],
        kinds["cached_input"],
        kinds["output"],
        round(dollars * 1e9),
    )
    told.line(f"| `/metrics` | {of_metrics.cells()} |\n")
    told.check("`routellm usage` says what the rows say", of_usage == whole)
    calls, made = int(metric(books.metrics, "routellm_upstream_calls_total")), sum(row["attempts"] for row in books.rows)
    said = f"upstream {books.upstream_calls:,}, ledger {made:,}, `/metrics` {calls:,}"
    if books.killed_at is None:
        cent = abs(of_metrics.nanodollars - whole.nanodollars) < 10**7 // 2
        told.check(
            "`/metrics` says so too, dollars (binary fractions) to the cent", tokens(of_metrics) == tokens(whole) and cent
        )
        told.check("calls to the upstream", books.upstream_calls == made == calls, said)
        if books.spent is not None:
            compare_budget(told, books, whole)
    else:
        told.line(f"- calls to the upstream: {said}")
    own = sorted(row["own_ms"] for row in books.rows if row["outcome"] == "answered")
    told.line(f"- milliseconds in this server: p50 {own[len(own) // 2]:.2f}, p99 {own[int(len(own) * 0.99)]:.2f}")


def compare_budget(told: Report, books: Books, whole: Sums) -> None:
    """The key's budget has the price of each row; of a request without tokens that a model may have answered, the estimate."""
    assert books.spent is not None
    unknown = sum(row["outcome"] == "client-gone" and row["nanodollars"] is None for row in books.rows)
    more = books.spent - whole.nanodollars
    least, most = 1000 * 600, 2000 * 2500 + 1000 * 10_000  # 1,000 tokens of the weak model's output; a long one of the strong
    told.check(
        "the key's budget is what the rows say, and the estimates of those left before any reply",
        unknown * least <= more <= unknown * most,
        f"{more / 10**9:.9f} dollars for {unknown:,} of them",
    )


def tokens(of: Sums) -> tuple[int, ...]:
    """Requests and tokens."""
    return of.requests, of.input, of.cached, of.output


def metric(text: str, name: str, **labels: str) -> float:
    """The sum over all rows of a metric with these labels."""
    lines = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    return sum(float(value) for own, value in lines if all(f'{label}="{wanted}"' in own for label, wanted in labels.items()))
