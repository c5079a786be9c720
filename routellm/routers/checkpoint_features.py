"""The features that a checkpoint's router was trained on, or an error where other ones are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import Checkpoint


def read_features(checkpoint: Checkpoint, embedding_model: str | Mapping[str, Any] | None = None) -> PromptFeatures:
    """The features by which a checkpoint's router tells prompts apart.

    Args:
        checkpoint: its `router.json` has `embedder`, `embedder_fingerprint`, `surface_version`, and `courtesies` where these
            are not read.
        embedding_model: an embedder to take in place of the one that the checkpoint names; it must compute the same.

    Raises:
        CheckpointError: the embedder is another one, or this release does not compute the checkpoint's surface features.
    """
    embedder = load_embedder(embedding_model or checkpoint.field("embedder", (str, dict)))
    trained_on = checkpoint.field("embedder_fingerprint", str)
    if embedder.fingerprint != trained_on:
        raise CheckpointError(
            f"{checkpoint.path}: was trained on vectors of {trained_on!r}, not of {embedder.fingerprint!r}: its scores would "
            f"mean nothing. Leave embedding_model out, or train the router on that embedder."
        )
    courtesies = "courtesies" not in (checkpoint.meta or {}) or checkpoint.field("courtesies", bool)
    return PromptFeatures(embedder, checkpoint.field("surface_version", (int, type(None))), courtesies=courtesies)


def features_meta(features: PromptFeatures) -> dict[str, Any]:
    """What `read_features` needs to find in `router.json`, but for the embedder's name: only the caller knows what it was
    constructed from."""
    meta = {"embedder_fingerprint": features.embedder.fingerprint, "surface_version": features.surface_version}
    return meta if features.courtesies else {**meta, "courtesies": False}
