"""The plot of `routellm usage`: dollars by group. matplotlib is imported here."""

from __future__ import annotations

from pathlib import Path

from routellm.costs import NANO
from routellm.errors import DataError, MissingExtraError
from routellm.ledger.queries import Sums

_SPENT, _STRONG, _WEAK = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's, which everyone can tell apart
_KINDS = (".png", ".svg", ".pdf")


def save_plot(found: list[Sums], by: str, path: str) -> None:
    """Draw dollars by group: what was spent, and the estimates for either model alone.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the file is of another kind, or can't be written.
    """
    if Path(path).suffix not in _KINDS:
        raise DataError(f"{path!r} is of no kind that can be drawn; its name must end in {' or '.join(_KINDS)}.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("Plots", "eval") from error
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    places = list(range(len(found)))
    axes.bar(places, [one.nanodollars / NANO for one in found], color=_SPENT, label="spent")
    compared = [(place, one) for place, one in zip(places, found, strict=True) if one.compared]
    for colour, name, marker in ((_STRONG, "strong", "^"), (_WEAK, "weak", "v")):
        heights = [getattr(one, f"{name}_nanodollars") / NANO for _, one in compared]
        label = f"routed requests with the {name} model alone (estimate)"
        axes.plot([place for place, _ in compared], heights, color=colour, marker=marker, linestyle="none", label=label)
    labels = ["-" if one.group is None else one.group.replace("$", r"\$")[:40] for one in found]
    axes.set_xticks(places, labels, rotation=0 if len(found) < 6 else 60, ha="center" if len(found) < 6 else "right")
    axes.set_ylabel("dollars")
    axes.set_xlabel(by)
    axes.legend(frameon=False, fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise DataError(f"The plot can't be written to {path!r}: {error.strerror or error}.") from error
