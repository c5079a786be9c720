"""The plot of a benchmark: quality over the share of strong calls. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routellm.errors import DataError, MissingExtraError
from routellm.evals.records import plain
from routellm.evals.runner import BenchmarkResult

# Okabe and Ito's palette, which readers with any kind of colour vision can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#777777"


def draw(result: BenchmarkResult) -> Any:
    """A matplotlib figure: each router with its 95% band, random, the oracle, and both models' lines.

    Raises:
        MissingExtraError: the extra `eval` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("Plots", "eval") from error
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    axes = figure.subplots()
    weak, strong = result.outcomes.weak.mean(), result.outcomes.strong.mean()
    axes.axhline(strong, color=_GREY, linewidth=0.9, linestyle=(0, (6, 3)))
    axes.axhline(weak, color=_GREY, linewidth=0.9, linestyle=(0, (2, 2)))
    axes.plot([0, 100], [weak, strong], color=_GREY, linewidth=1.2, label="random, in expectation (APGR .500)")
    axes.plot(100 * result.oracle.share, result.oracle.quality, color=_GREY, linewidth=1.2, linestyle="-.", label="oracle")
    ranked = sorted(result.routers, key=lambda router: -router.apgr.value)
    for router, colour in zip(ranked, _COLOURS * len(ranked), strict=False):
        share = 100 * router.curve.share
        label = f"{router.name} (APGR {plain(router.apgr.value)})"
        axes.plot(share, router.curve.quality, color=colour, linewidth=1.8, label=label)
        axes.fill_between(share, *router.band, color=colour, alpha=0.13, linewidth=0)
    _label_models(axes, result, weak, strong)
    axes.set_xlim(0, 100)
    axes.set_xlabel("calls sent to the strong model (%)")
    axes.set_ylabel("mean quality of the answers")
    axes.set_title(f"{result.name}, {len(result.data):,} prompts", loc="left", fontsize=11)
    axes.legend(loc="lower right", framealpha=0.9, edgecolor="none", fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    return figure


def save(result: BenchmarkResult, directory: Path) -> list[Path]:
    """Write the plot as PNG (200 dots an inch) and SVG; returns both paths."""
    figure = draw(result)
    paths = [directory / f"{result.name}{suffix}" for suffix in (".png", ".svg")]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figure.savefig(path, dpi=200)
    except OSError as error:
        raise DataError(f"The plot can't be written to {str(directory)!r}: {error.strerror or error}.") from error
    return paths


def _label_models(axes: Any, result: BenchmarkResult, weak: float, strong: float) -> None:
    for name, quality, offset, side in (
        (result.pair.strong, strong, 3, "bottom"),
        (result.pair.weak, weak, -3, "top"),
    ):
        axes.annotate(name, (0, quality), xytext=(4, offset), textcoords="offset points", fontsize=8, color=_GREY, va=side)
