"""Probabilities as log-odds, and back."""

from __future__ import annotations

from math import exp, log

CLIP = 6.0
"""Log-odds of a prior router's score are cut off there: a score of 0 or 1 has none that are finite."""


def log_odds(score: float) -> float:
    """log(score / (1 - score)), cut off at `CLIP`."""
    if score <= 0.0 or score >= 1.0:
        return CLIP if score >= 1.0 else -CLIP
    return min(max(log(score / (1.0 - score)), -CLIP), CLIP)


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), for any finite logit."""
    return 1.0 / (1.0 + exp(-logit)) if logit >= 0 else exp(logit) / (1.0 + exp(logit))
