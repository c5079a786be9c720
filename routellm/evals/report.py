"""The report: one HTML file with nothing outside of it, which a reader can trust and run again."""

from __future__ import annotations

import io
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import routellm
from routellm.errors import DataError
from routellm.evals import plots
from routellm.evals.costs import CallCosts
from routellm.evals.records import level, saving, shown
from routellm.evals.runner import TARGETS, BenchmarkResult, RouterResult
from routellm.metrics.curves import apgr

MISSES = 12
"""Costliest misses shown for each router."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
td { white-space: nowrap; } td.text { white-space: normal; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } td.text { text-align: left; max-width: 34rem; }
tbody tr:hover { background: var(--soft); }
figure { margin: 1rem 0; background: #fff; border-radius: 6px; padding: .5rem; } figure svg { width: 100%; height: auto; }
code, pre { background: var(--soft); border-radius: 4px; padding: .1rem .3rem; font-size: .9em; }
pre { padding: .7rem; overflow-x: auto; } .note { opacity: .75; } details { margin: .8rem 0; } summary { cursor: pointer; }
.wide { overflow-x: auto; }
"""


@dataclass(frozen=True, slots=True)
class Miss:
    """A prompt on which a router's choice at CPT50 cost quality: which model it took, and what the other would have added."""

    prompt: str
    win_rate: float
    taken: str
    lost: float


def write_report(results: Sequence[tuple[BenchmarkResult, CallCosts | None]], path: Path, command: str) -> None:
    """Write the report of one or several benchmarks.

    Args:
        results: each benchmark's result, and what its calls cost where that is known.
        command: the command that gives the same again.

    Raises:
        DataError: the file can't be written.
        MissingExtraError: the extra `eval` is not installed.
    """
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Routers on {escape(', '.join(result.name for result, _ in results))}</title><style>{_STYLE}</style></head>",
        "<body><h1>Routers, measured</h1>",
        "<p>Intervals are 95% percentile intervals of a bootstrap over prompts, the same draws for every router. APGR .500 is "
        "chance. CPT is the share of calls, in percent, that must go to the strong model to recover that much of the gap "
        "between both models; less is better.</p>",
        *(_benchmark(result, costs) for result, costs in results),
        _reproduce(results, command),
        "</body></html>",
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(parts), encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"The report can't be written to {str(path)!r}: {error.strerror or error}.") from error


def costliest_misses(result: BenchmarkResult, router: RouterResult, most: int = MISSES) -> list[Miss]:
    """The prompts on which `router`, at the threshold of its CPT50, lost the most quality by its choice.

    Of equal losses those come first on which the router was surest of itself. A router that draws its scores has none to show.
    """
    share = router.cpt[0.5].value
    if len(router.scores) > 1 or not np.isfinite(share):
        return []
    scores = router.scores[0]
    strong = np.zeros(len(scores), dtype=bool)
    strong[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    lost = np.where(strong, -result.outcomes.gain, result.outcomes.gain)
    threshold = scores[strong].min() if strong.any() else 1.0
    order = np.lexsort((-np.abs(scores - threshold), -lost))[:most]
    return [
        Miss(
            result.data.prompts[row],
            float(scores[row]),
            result.pair.strong if strong[row] else result.pair.weak,
            float(lost[row]),
        )
        for row in order
        if lost[row] > 0
    ]


def _benchmark(result: BenchmarkResult, costs: CallCosts | None) -> str:
    left_out = ", ".join(f"{count:,} left out ({escape(reason)})" for reason, count in result.data.dropped.items())
    strong, weak = result.outcomes.strong.mean(), result.outcomes.weak.mean()
    return "\n".join(
        [
            f"<h2>{escape(result.name)}</h2>",
            f"<p>{len(result.data):,} prompts{'; ' + left_out if left_out else ''}. Strong: <code>{escape(result.pair.strong)}"
            f"</code> {strong:.4f}. Weak: <code>{escape(result.pair.weak)}</code> {weak:.4f}.</p>",
            f"<figure>{_svg(result)}</figure>",
            _metrics(result, costs),
            _comparisons(result),
            *(_groups(result, grouping) for grouping in result.data.groups),
            *(_misses(result, router) for router in result.routers),
        ]
    )


def _metrics(result: BenchmarkResult, costs: CallCosts | None) -> str:
    header = ["router", "APGR", *(f"CPT{level(target)} %" for target in TARGETS), "AUC", "published APGR"]
    header += [f"calls saved at CPT{level(target)}" for target in TARGETS[1:]]
    header += ["$ / 1,000 calls at CPT80"] if costs is not None else []
    rows = []
    for router in sorted(result.routers, key=lambda router: -router.apgr.value):
        savings = [saving(result, router, target, costs) for target in TARGETS[1:]]
        row = [router.name, shown(router.apgr), *(shown(router.cpt[target], 1, 100) for target in TARGETS)]
        row += [f"{router.auc.value:.4f}", f"{router.published.apgr:.3f}", *(f"{each.ratio:.2f}x" for each in savings)]
        if costs is not None:
            dollars, most = savings[-1].dollars, savings[-1].always_strong
            row.append("" if dollars is None else f"{dollars:.3f} of {most:.3f}")
        rows.append(row)
    rows.append(["oracle", f"{apgr(result.oracle):.3f}", *[""] * (len(header) - 2)])
    note = f"<p class=note>Dollars are estimates: {escape(costs.estimated)}.</p>" if costs and costs.estimated else ""
    return f"<div class=wide>{_table(header, rows)}</div>{note}"


def _comparisons(result: BenchmarkResult) -> str:
    if not result.comparisons:
        return ""
    rows = [[f"{each.better} over {each.other}", f"+{shown(each.difference)}"] for each in result.comparisons]
    return _table(["difference in APGR", "with its paired interval"], rows)


def _groups(result: BenchmarkResult, grouping: str) -> str:
    header = [grouping, "prompts", *(router.name for router in result.routers)]
    rows = []
    for label, (_, count) in result.routers[0].groups[grouping].items():
        values = [router.groups[grouping][label][0] for router in result.routers]
        rows.append([label, f"{count:,}", *("" if np.isnan(value) else f"{value:.3f}" for value in values)])
    return f"<details><summary>APGR by {escape(grouping)}</summary>{_table(header, rows)}</details>"


def _misses(result: BenchmarkResult, router: RouterResult) -> str:
    misses = costliest_misses(result, router)
    if not misses:
        return ""
    rows = [[_short(miss.prompt), f"{miss.win_rate:.3f}", miss.taken, f"{miss.lost:g}"] for miss in misses]
    table = _table(["prompt", "win rate", "model taken", "quality lost"], rows, text_first=True)
    summary = f"Where <b>{escape(router.name)}</b> is wrong: its costliest misses at CPT50"
    return f"<details><summary>{summary}</summary>{table}</details>"


def _reproduce(results: Sequence[tuple[BenchmarkResult, Any]], command: str) -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "tokenizers", "matplotlib"))
    rows = [[result.name, result.data.sha256] for result, _ in results]
    fingerprints = [[router.name, router.fingerprint] for router in results[0][0].routers if router.fingerprint]
    return "\n".join(
        [
            "<h2>To do it again</h2>",
            f"<pre>{escape(command)}</pre>",
            f"<p>routellm {routellm.__version__}, Python {platform.python_version()}, {libraries}; "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC.</p>",
            _table(["benchmark", "sha256 of its data"], rows),
            _table(["router", "fingerprint"], fingerprints) if fingerprints else "",
        ]
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text_first: bool = False) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    first = "<td class=text>" if text_first else "<td>"
    body = "".join(
        "<tr>" + "".join((first if i == 0 else "<td>") + f"{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _svg(result: BenchmarkResult) -> str:
    text = io.StringIO()
    plots.draw(result).savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _short(prompt: str, most: int = 300) -> str:
    flat = " ".join(prompt.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
