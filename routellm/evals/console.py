"""Results on a terminal, and progress while they are computed. rich is imported when something is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routellm.evals.costs import CallCosts
from routellm.evals.records import level, plain, saving, shown
from routellm.evals.runner import TARGETS, BenchmarkResult
from routellm.metrics.curves import apgr

if TYPE_CHECKING:
    from rich.progress import Progress


def progress() -> Progress:
    """A progress display on stderr; nothing is drawn where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def show(result: BenchmarkResult, costs: CallCosts | None) -> None:
    """Print one benchmark's tables to stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)  # a file or a pipe has no width to fit into
    left_out = ", ".join(f"{count:,} left out: {reason}" for reason, count in result.data.dropped.items())
    console.print(
        Text(f"\n{result.name}: {len(result.data):,} prompts" + (f" ({left_out})" if left_out else ""), style="bold")
    )
    strong, weak = result.outcomes.strong.mean(), result.outcomes.weak.mean()
    console.print(Text(f"strong {result.pair.strong}: {strong:.4f}    weak {result.pair.weak}: {weak:.4f}"))
    if strong <= weak:
        console.print(Text("The strong model is no better than the weak one here: PGR, APGR and CPT say little or nothing."))

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("router")
    for name in ("APGR [95%]", *(f"CPT{level(target)} % [95%]" for target in TARGETS), "AUC"):
        table.add_column(name, justify="right")
    for router in sorted(result.routers, key=lambda router: -router.apgr.value):
        shares = [shown(router.cpt[target], 1, 100) for target in TARGETS]
        table.add_row(router.name, shown(router.apgr), *shares, f"{router.auc.value:.4f}")
    table.add_row("oracle", plain(apgr(result.oracle)), "", "", "", "")
    console.print(table)

    published = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("published protocol", "CPT50 / CPT80 / APGR", "AUC", "calls saved at CPT50 / CPT80"):
        published.add_column(name, justify="left" if name == "published protocol" else "right")
    if costs is not None:
        published.add_column("$ per 1,000 calls at CPT80 (all strong)", justify="right")
    for router in result.routers:
        fifty, eighty = (saving(result, router, target, costs) for target in TARGETS[1:])
        numbers = router.published
        row = [
            router.name,
            f"{100 * numbers.cpt[0.5]:.2f} / {100 * numbers.cpt[0.8]:.2f} / {plain(numbers.apgr)}",
            f"{numbers.auc:.4f}",
            f"{fifty.ratio:.2f}x / {eighty.ratio:.2f}x",
        ]
        if costs is not None:
            row.append("" if eighty.dollars is None else f"{eighty.dollars:.3f} ({eighty.always_strong:.3f})")
        published.add_row(*row)
    console.print(published)
    if costs is not None and costs.estimated:
        console.print(Text(f"Dollars are estimates: {costs.estimated}.", style="dim"))
    for each in result.comparisons:
        console.print(Text(f"{each.better} over {each.other}: APGR +{shown(each.difference)}"))
