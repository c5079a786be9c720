"""The model card that a trainer writes beside the weights: what went in, what came out, and what it can't do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routellm.calibration.quantiles import ScoreQuantiles


def model_card(router: str, meta: Mapping[str, Any], quantiles: ScoreQuantiles, notes: str | None = None) -> str:
    """Markdown of a checkpoint's `router.json`.

    Args:
        router: the kind of router ("mf").
        meta: what `router.json` holds.
        quantiles: of the router's scores.
        notes: a paragraph on the data's sources and licences, which no trainer can know by itself.
    """
    training, metrics = meta["training"], meta["metrics"]
    lines = [
        f"# `{router}`: {meta['strong_model']} over {meta['weak_model']}",
        "",
        f"A router of routellm {training['routellm_version']}, trained by `python -m routellm.training.{router}`. Embedder: "
        f"`{meta['embedder_fingerprint']}`, surface features version {meta['surface_version']}.",
        "",
        "## Data",
        "",
        *_paragraph(notes or "The trainer was given no notes on the data's sources and licences."),
        *_table(("file", "hash"), training["data"].items()),
        *_table(("list of prompts left out", "hash"), training["excluded"].items()),
        *_table(("source", "comparisons read"), training["rows_by_source"].items()),
        *_table(("rows left out because", "rows"), training["rows_left_out"].items()),
        "## Settings",
        "",
        *_table(
            ("setting", "value"),
            ((key, value) for key, value in training.items() if not isinstance(value, Mapping) and key != "routellm_version"),
        ),
        "## Results on the validation prompts",
        "",
        "Validation prompts are a random share of the training sources' prompts; no prompt is on both sides.",
        "",
        *_table(
            ("metric", "value"), ((key, _rounded(value)) for key, value in metrics.items() if not isinstance(value, Mapping))
        ),
        *_table(("source", "AUC of won against lost comparisons (chance: 0.5)"), metrics["validation_auc_by_source"].items()),
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


def _paragraph(text: str) -> list[str]:
    return [text, ""]


def _table(head: tuple[str, str], rows: Any) -> list[str]:
    rows = list(rows)
    if not rows:
        return []
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows), ""]


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
