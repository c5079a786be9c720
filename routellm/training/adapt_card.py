"""The model card that `routellm adapt` writes: what was fitted to what, and whether that helped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routellm.training.card import table, with_interval


def adapted_card(meta: Mapping[str, Any]) -> str:
    """Markdown of an adapted checkpoint's `router.json`."""
    training, metrics = meta["training"], meta["metrics"]
    shipped = meta["priors"][0]["router"]
    lines = [
        f"# `adapted`: `{shipped}` fitted to {training['prompts']:,} labelled prompts",
        "",
        f"Made by `routellm adapt` of routellm {training['routellm_version']} for {meta['strong_model']} over "
        f"{meta['weak_model']}. Embedder: `{meta['embedder_fingerprint']}`.",
        "",
        *_warning(metrics, shipped),
        "## Labels",
        "",
        *table(("file", "hash"), training["labels"].items()),
        f"{training['prompts']:,} prompts, of which the strong model won {training['won']:,}; its mean lead is "
        f"{training['mean_gap']:.3f}. Seed {training['seed']}.",
        "",
        *(f"- {note}." for note in training["notes"]),
        *([""] if training["notes"] else []),
        *_test_prompts(training["test_prompts"]),
        "## Is it better?",
        "",
        "APGR by five-fold cross-validation, each prompt scored by what other prompts' labels gave; 95% intervals over "
        "resampled prompts, the difference resampled in pairs.",
        "",
        *table(("router", "APGR"), ((_name(name, shipped), with_interval(ends)) for name, ends in metrics["apgr"].items())),
        *table(("alone", "APGR"), ((name, f"{value:.3f}") for name, value in metrics["apgr_alone"].items())),
        *table(("what moves the score", "share"), ((name, f"{value:.0%}") for name, value in metrics["influence"].items())),
        "## Routers that it stands on",
        "",
        *table(("router", "fingerprint"), ((f"`{each['router']}`", f"`{each['fingerprint']}`") for each in meta["priors"])),
        "## Limits",
        "",
        "It ranks prompts like the labelled ones, for this pair of models. On other traffic it may be worse than the router "
        "that it stands on: label some of that too. Score quantiles are those of the labelled prompts.",
    ]
    return "\n".join(lines) + "\n"


def _warning(metrics: Mapping[str, Any], shipped: str) -> list[str]:
    if metrics["better"]:
        return []
    return [f"**Not shown to be better than `{shipped}`: it was saved by --force. Prefer `{shipped}`.**", ""]


def _test_prompts(found: Mapping[str, int]) -> list[str]:
    if not found:
        return []
    named = ", ".join(f"{count:,} of {benchmark}" for benchmark, count in found.items())
    return [f"**Labelled prompts hold test prompts of benchmarks ({named}): figures on those are not to be trusted.**", ""]


def _name(name: str, shipped: str) -> str:
    return {"shipped": f"`{shipped}`", "adapted": "adapted", "difference": "difference"}[name]
