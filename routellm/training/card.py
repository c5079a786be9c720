"""The model card that a trainer writes beside the weights: what went in, what came out, and what it can't do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from routellm.calibration.quantiles import ScoreQuantiles

_SHOWN_APART = ("routellm_version", "command", "reading")


def model_card(router: str, meta: Mapping[str, Any], quantiles: ScoreQuantiles, notes: str | None = None) -> str:
    """Markdown of a checkpoint's `router.json`.

    Args:
        router: the kind of router ("mf").
        meta: what `router.json` holds.
        quantiles: of the router's scores.
        notes: a paragraph on the data's sources and licences, which no trainer can know by itself.
    """
    training = meta["training"]
    lines = [
        f"# `{router}`: {meta['strong_model']} over {meta['weak_model']}",
        "",
        *_warning(training["test_prompts"]),
        *_paragraph(f"A router of routellm {training['routellm_version']}.{_embedder(meta)} Trained by"),
        *_paragraph(f"```sh\n{training['command']}\n```"),
        "## Data",
        "",
        *_paragraph(notes or "The trainer was given no notes on the data's sources and licences."),
        *table(("file", "hash"), training["data"].items()),
        *table(("list of prompts left out", "hash"), training["excluded"].items()),
        *table(("source", "comparisons read"), training["rows_by_source"].items()),
        *table(("rows left out because", "rows"), training["rows_left_out"].items()),
        *_list(training["reading"]),
        "## Settings",
        "",
        *table(("setting", "value"), _plain(training)),
        *_results(meta["metrics"]),
        "## Calibration",
        "",
        f"Score quantiles were computed on {quantiles.prompts:,} prompts: {quantiles.source}.",
        "",
        "## Limits",
        "",
        "Scores rank prompts for the pair of models above, on prompts like those of the sources above. On a source that it "
        "has not seen a router is much nearer to chance than on its validation prompts: measure it on prompts of your own "
        "before you rely on it.",
    ]
    return "\n".join(lines) + "\n"


def _warning(test_prompts: Mapping[str, int]) -> list[str]:
    if not test_prompts:
        return []
    counted = ", ".join(f"{count:,} of {benchmark}" for benchmark, count in sorted(test_prompts.items()))
    return _paragraph(
        f"**Trained on test prompts of benchmarks** (`--allow-contaminated`): {counted}. What those benchmarks say of this "
        f"router means nothing."
    )


def _embedder(meta: Mapping[str, Any]) -> str:
    if "embedder_fingerprint" not in meta:
        return ""
    surface = meta.get("surface_version")
    joined = f", joined with surface features version {surface}" if surface is not None else ""
    return f" Embedder: `{meta['embedder_fingerprint']}`{joined}."


def _results(metrics: Mapping[str, Any]) -> list[str]:
    """What was measured on the validation prompts, overall and by source."""
    rows = [
        (source, f"{found['prompts']:,}", with_interval(found.get("auc")), with_interval(found.get("apgr")))
        for source, found in metrics["validation_by_source"].items()
    ]
    return [
        "## Results on the validation prompts",
        "",
        "Validation prompts are a random share of the training sources' prompts; no prompt is on both sides. AUC: how often a "
        "prompt that the strong model won scores above one that the weak model won. APGR: the area under the share of the "
        "strong model's advantage that is recovered, over the share of calls that go to it. Chance is 0.5 for both; in "
        "brackets are 95% intervals over prompts. There is no value where a source lacks wins of either model, or the "
        "advantage.",
        "",
        *table(("source", "prompts", "AUC", "APGR"), rows),
        *table(("metric", "value"), ((name, _rounded(value)) for name, value in _plain(metrics))),
    ]


def with_interval(found: Sequence[float | None] | None) -> str:
    """A measure with its interval, "0.568 [0.495, 0.638]", or "-" where there is none."""
    if found is None:
        return "-"
    value, low, high = found
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def _plain(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in values.items() if not isinstance(value, Mapping) and key not in _SHOWN_APART]


def _paragraph(text: str) -> list[str]:
    return [text, ""]


def _list(lines: Sequence[str]) -> list[str]:
    return [*(f"- {line}" for line in lines), *([""] if lines else [])]


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Lines of a Markdown table and the empty one after it; none without rows."""
    rows = list(rows)
    if not rows:
        return []
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows),
        "",
    ]


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
