"""Routers that are a sum of parts (`routellm.routers.parts`): how their checkpoints are read, and how they score.

Everything is numpy; what other routers' scores go into the sum cost what those routers cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.form import FORM_VERSION
from routellm.embeddings.words import BUCKETS, WORDS_VERSION
from routellm.errors import CheckpointError
from routellm.routers.checkpoint import Checkpoint, load_checkpoint
from routellm.routers.checkpoint_features import features_meta, read_features
from routellm.routers.neighbours import neighbours_tensors, read_neighbours
from routellm.routers.odds import sigmoid
from routellm.routers.padding import PADDING_VERSION, padding_tensors, read_padding
from routellm.routers.parts import Parts, Trees, trees_fit
from routellm.routers.routers import Router, build_router
from routellm.routers.views import Viewer

_TENSORS = (
    *("form_mean", "form_scale", "embedding", "form", "words", "prior", "bias"),
    *("trees.feature", "trees.threshold", "trees.value"),
)


class PartsRouter(Router):
    """A router that is a sum of parts. A subclass says what its checkpoints are called.

    Attributes:
        kind: the name in `router.json`.
        remedy: what to do where a checkpoint does not fit this release any more.
        embedding_model: names the embedder, as `load_embedder` takes it.
    """

    kind: ClassVar[str]
    remedy: ClassVar[str]
    embedding_model: str | dict[str, Any]

    def __init__(self, checkpoint_path: str | Path) -> None:
        checkpoint = load_checkpoint(checkpoint_path, self.kind)
        for name, version in (("form_version", FORM_VERSION), ("words_version", WORDS_VERSION)):
            if checkpoint.field(name, (int, type(None))) not in (version, None):
                raise CheckpointError(
                    f"{checkpoint.path}: needs {name} {checkpoint.field(name, int)}; this release has {version}. {self.remedy}"
                )
        priors = _read_priors(checkpoint, self.remedy)
        features = _shared_features(checkpoint, priors.values()) or read_features(checkpoint)
        self.embedding_model = checkpoint.field("embedder", (str, dict))
        words = checkpoint.field("words_version", (int, type(None))) is not None
        viewer = Viewer(features, priors, words=words, padding=read_padding(checkpoint, features, self.remedy))
        self._bind(_read_parts(checkpoint, viewer, self.remedy), viewer)
        self.quantiles = checkpoint.quantiles()

    @classmethod
    def from_parts(cls, parts: Parts, viewer: Viewer) -> Self:
        """A router of parts that are at hand, as a trainer has them."""
        router = cls.__new__(cls)
        router._bind(parts, viewer)
        return router

    @property
    def features(self) -> PromptFeatures:
        """The features that the embedding and the surface features come from."""
        return self._viewer.features

    def _bind(self, parts: Parts, viewer: Viewer) -> None:
        self._parts, self._viewer = parts, viewer
        self._quick = parts.compiled(viewer.features)
        self.blocking = viewer.blocking
        tensors = tensors_of(parts) | padding_tensors(viewer.padding)
        digest = hashlib.sha256(b"".join(tensor.tobytes() for _, tensor in sorted(tensors.items())))
        embedder = viewer.features.embedder.fingerprint
        priors = ",".join(str(router.fingerprint) for router in viewer.priors.values())
        versions = f"{viewer.features.surface_version}.{FORM_VERSION}.{WORDS_VERSION}"
        self.fingerprint = f"{self.kind}:{digest.hexdigest()[:16]}:{embedder}:{versions}:{priors}"

    def calculate_strong_win_rate(self, prompt: str) -> float:
        if self._quick is None:
            return sigmoid(self._parts.log_odds(self._viewer.see(prompt)))
        prompt = self._viewer.read(prompt)
        return sigmoid(self._parts.with_rest(self._quick(prompt), *self._viewer.rest(prompt)))

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        # Row by row: a matrix product may round otherwise, and a batch must equal singles.
        if self._quick is None:
            views = self._viewer.see_batch(prompts)
            logits = [self._parts.log_odds(views.row(row)) for row in range(len(prompts))]
        else:
            prompts = [self._viewer.read(prompt) for prompt in prompts]
            rests = zip(*self._viewer.rest_batch(prompts), strict=True)
            logits = [self._parts.with_rest(self._quick(prompt), *rest) for prompt, rest in zip(prompts, rests, strict=True)]
        return np.array([sigmoid(logit) for logit in logits], dtype=np.float64)

    def blocks(self, prompt: str) -> bool:
        return super().blocks(prompt) or self._viewer.blocks(prompt)

    def explain(self, prompt: str) -> dict[str, float]:
        return self._parts.explain(self._viewer.see(prompt), self._viewer.form_names, tuple(self._viewer.priors))


def meta_of(viewer: Viewer) -> dict[str, Any]:
    """What a checkpoint's `router.json` holds of what its router looks at, without the prior routers' arguments."""
    return {
        **features_meta(viewer.features),
        "form_version": FORM_VERSION,
        "words_version": WORDS_VERSION if viewer.words else None,
        "padding_version": PADDING_VERSION if viewer.padding else None,
        "padding_fingerprint": viewer.padding.features.embedder.fingerprint if viewer.padding else None,
    }


def tensors_of(parts: Parts) -> dict[str, NDArray[Any]]:
    """What a checkpoint holds of `parts`."""
    neighbours = {} if parts.neighbours is None else neighbours_tensors(parts.neighbours)
    return {
        "form_mean": parts.form_mean,
        "form_scale": parts.form_scale,
        "embedding": parts.embedding,
        "form": parts.form,
        "words": parts.words,
        "prior": parts.prior,
        "bias": parts.bias,
        "trees.feature": parts.trees[0].feature,
        "trees.threshold": parts.trees[0].threshold,
        "trees.value": np.stack([trees.value for trees in parts.trees]),
        **neighbours,
    }


def _shared_features(checkpoint: Checkpoint, priors: Iterable[Router]) -> PromptFeatures | None:
    """The needed features, on the embedder of a prior router that has the same: a table of embeddings is loaded once."""
    wanted = (checkpoint.field("embedder_fingerprint", str), checkpoint.field("surface_version", (int, type(None))))
    for router in priors:
        features = getattr(router, "features", None)
        if isinstance(features, PromptFeatures) and (features.embedder.fingerprint, features.surface_version) == wanted:
            # A viewer leaves courtesies out by itself, before all else.
            return features if features.courtesies else PromptFeatures(features.embedder, features.surface_version)
    return None


def _read_parts(checkpoint: Checkpoint, viewer: Viewer, remedy: str) -> Parts:
    found = checkpoint.tensors
    for name in _TENSORS:
        if name not in found:
            raise CheckpointError(f"{checkpoint.path}: the tensor {name!r} is missing. {remedy}")
    feature, threshold, values = (found[f"trees.{name}"] for name in ("feature", "threshold", "value"))
    n_form, rows = len(viewer.form_names), found["bias"].size
    if rows not in (1, 2):
        raise CheckpointError(
            f"{checkpoint.path}: the tensor 'bias' has {rows} rows; there must be 1, or 2, the second for prompts that list "
            f"options. {remedy}"
        )
    wanted = {
        "form_mean": (n_form,), "form_scale": (n_form,),
        "embedding": (rows, viewer.features.embedder.dim), "form": (rows, n_form), "bias": (rows,),
        "words": (BUCKETS if viewer.words else 0,), "prior": (len(viewer.priors),),
    }  # fmt: skip
    fits = [found[name].shape == shape for name, shape in wanted.items()]
    if not all(fits) or len(values) != rows or not all(trees_fit(feature, threshold, value) for value in values):
        shapes = {name: tensor.shape for name, tensor in found.items()}
        raise CheckpointError(f"{checkpoint.path}: the tensors' shapes don't fit together: {shapes}. {remedy}")
    if not trees_fit(feature, threshold, values[0], n_form) or not np.all(found["form_scale"] > 0):
        raise CheckpointError(f"{checkpoint.path}: its trees ask for features that there are not, or a scale is not above 0.")
    return Parts(
        form_mean=found["form_mean"],
        form_scale=found["form_scale"],
        embedding=found["embedding"],
        form=found["form"],
        words=found["words"],
        prior=found["prior"],
        trees=tuple(Trees(feature, threshold, value) for value in values),
        bias=found["bias"],
        neighbours=read_neighbours(checkpoint, viewer.features.embedder.dim + n_form, remedy),
    )


def _read_priors(checkpoint: Checkpoint, remedy: str) -> dict[str, Router]:
    """The routers that this one was fitted on top of, built as they were then.

    Raises:
        CheckpointError: one of them computes something else by now.
    """
    priors = {}
    for entry in checkpoint.field("priors", list):
        try:
            name, arguments, fingerprint = entry["router"], dict(entry["arguments"]), entry["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{checkpoint.path}: the field 'priors' can't be read: {error!r}.") from error
        router = build_router(name, arguments)
        if router.fingerprint != fingerprint:
            raise CheckpointError(
                f"{checkpoint.path}: was fitted on top of the router {name!r} as {fingerprint!r}, which is now "
                f"{router.fingerprint!r}. {remedy}"
            )
        priors[name] = router
    return priors
