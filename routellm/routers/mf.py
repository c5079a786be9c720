"""Matrix factorisation: a bilinear score of model and prompt, trained by Bradley-Terry loss (paper, section 4.2).

    s(M, q) = w2^T (v_M * (W1^T v_q)),    P(a beats b | q) = sigmoid(s(a, q) - s(b, q))

For a fixed pair of models the difference of scores is linear in v_q, so the three matrices collapse, when a checkpoint is
loaded, into one weight vector: a decision is the prompt's features and a single dot product.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.base import Vector
from routellm.embeddings.factory import load_embedder
from routellm.embeddings.features import PromptFeatures
from routellm.embeddings.linear import LinearScore
from routellm.embeddings.surface import SURFACE_NAMES
from routellm.errors import CheckpointError, ConfigError, did_you_mean
from routellm.routers.checkpoint import Checkpoint, load_checkpoint
from routellm.routers.checkpoint_features import read_features
from routellm.routers.odds import sigmoid
from routellm.routers.routers import Router

PUBLISHED_STRONG = "gpt-4-1106-preview"
PUBLISHED_WEAK = "mixtral-8x7b-instruct-v0.1"
PUBLISHED_EMBEDDING = "text-embedding-3-small"

_DATA = files("routellm.routers") / "data"


@dataclass(frozen=True, slots=True)
class FactorWeights:
    """The learned matrices.

    Attributes:
        models: v_M before it is normalised, float32, shape (n_models, d).
        projection: W1 as (d, text_dim), or None where prompts are used as they come (then text_dim = d).
        classifier: w2, float32, shape (d,).
        model_ids: the name of each row of `models`.
    """

    models: NDArray[np.float32]
    projection: NDArray[np.float32] | None
    classifier: NDArray[np.float32]
    model_ids: tuple[str, ...]

    @property
    def text_dim(self) -> int:
        """The width of a prompt's vector."""
        return int(self.classifier.shape[0] if self.projection is None else self.projection.shape[1])

    def row(self, model: str) -> NDArray[np.float32]:
        """v_M, of length 1.

        Raises:
            ConfigError: the checkpoint does not know `model`.
        """
        if model not in self.model_ids:
            raise ConfigError(
                f"The mf checkpoint does not know the model {model!r}{did_you_mean(model, self.model_ids)}. "
                f"It knows: {', '.join(self.model_ids)}."
            )
        vector = self.models[self.model_ids.index(model)]
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def pair_weights(self, strong: str, weak: str) -> Vector:
        """The vector u, shape (text_dim,), for which s(strong, q) - s(weak, q) = u . v_q."""
        latent = self.classifier * (self.row(strong) - self.row(weak))
        return np.asarray(latent if self.projection is None else latent @ self.projection, dtype=np.float32)

    def sha256(self, strong: str, weak: str) -> str:
        """A hash of what decides for this pair."""
        return hashlib.sha256(self.pair_weights(strong, weak).tobytes()).hexdigest()[:16]

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The matrices by the names that the published checkpoints use."""
        named = {"P.weight": self.models, "classifier.0.weight": self.classifier[None, :]}
        return named if self.projection is None else {**named, "text_proj.0.weight": self.projection}


class MatrixFactorizationRouter(Router):
    """Scores a prompt by a matrix-factorisation checkpoint.

    Args:
        checkpoint_path: a folder, or a hub repository such as `routellm/mf_gpt4_augmented`; None takes the shipped one.
        strong_model, weak_model: which two of the checkpoint's models to compare; None takes the checkpoint's own pair. They
            need not be the models that a request is sent to.
        embedding_model: the embedder, where the checkpoint does not say: a name, or a mapping with `type` and arguments.
        hidden_size, num_models, text_dim, num_classes, use_proj: what the checkpoint's shapes must be. Only checked: the
            file itself knows.

    Raises:
        CheckpointError: the checkpoint can't be read, or its shapes are not as they should be.
        ConfigError: it does not know one of the models.
    """

    def __init__(
        self,
        checkpoint_path: str | None = None,
        strong_model: str | None = None,
        weak_model: str | None = None,
        embedding_model: str | Mapping[str, Any] | None = None,
        hidden_size: int | None = None,
        num_models: int | None = None,
        text_dim: int | None = None,
        num_classes: int | None = None,
        use_proj: bool | None = None,
    ) -> None:
        checkpoint = load_checkpoint(Path(str(_DATA / "mf")) if checkpoint_path is None else checkpoint_path, "mf")
        weights = read_weights(checkpoint)
        _check_shapes(
            checkpoint,
            given={
                "hidden_size": hidden_size,
                "num_models": num_models,
                "text_dim": text_dim,
                "num_classes": num_classes,
                "use_proj": use_proj,
            },
            found={
                "hidden_size": weights.classifier.shape[0],
                "num_models": len(weights.model_ids),
                "text_dim": weights.text_dim,
                "num_classes": 1,
                "use_proj": weights.projection is not None,
            },
        )
        if checkpoint.meta is None:
            pair = (PUBLISHED_STRONG, PUBLISHED_WEAK)
            features = PromptFeatures(load_embedder(embedding_model or PUBLISHED_EMBEDDING), surface_version=None)
        else:
            pair = (checkpoint.field("strong_model", str), checkpoint.field("weak_model", str))
            features = read_features(checkpoint, embedding_model)
        self._bind(weights, features, strong_model or pair[0], weak_model or pair[1])
        self.quantiles = checkpoint.quantiles() if (self.strong_model, self.weak_model) == pair else None

    @classmethod
    def from_weights(
        cls, weights: FactorWeights, features: PromptFeatures, strong: str, weak: str
    ) -> MatrixFactorizationRouter:
        """A router of matrices that are at hand, as a trainer has them."""
        router = cls.__new__(cls)
        router._bind(weights, features, strong, weak)
        return router

    def _bind(self, weights: FactorWeights, features: PromptFeatures, strong: str, weak: str) -> None:
        if features.dim != weights.text_dim:
            raise CheckpointError(
                f"The mf checkpoint takes vectors of {weights.text_dim} numbers, but its features have {features.dim} "
                f"(embedder {features.embedder.fingerprint}). Set embedding_model to the embedder it was trained with."
            )
        self.strong_model, self.weak_model = strong, weak
        self.blocking = features.embedder.blocking
        self.fingerprint = f"mf:{weights.sha256(strong, weak)}:{features.fingerprint}"
        self.features = features
        self._weights = weights.pair_weights(strong, weak)
        self._logit = LinearScore(features, self._weights)

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return sigmoid(self._logit.of(prompt))

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([sigmoid(logit) for logit in self._logit.of_batch(prompts)], dtype=np.float64)

    def explain(self, prompt: str) -> dict[str, float]:
        """What each part of the prompt's vector adds to the logit of the win rate; the values sum to the logit."""
        parts = self._weights * self.features.encode(prompt)
        width = self.features.embedder.dim
        explained = {"embedding": float(parts[:width].sum())}
        return explained | {name: float(part) for name, part in zip(SURFACE_NAMES, parts[width:], strict=False)}


def read_weights(checkpoint: Checkpoint) -> FactorWeights:
    """The matrices of a checkpoint, ours or a published one.

    Raises:
        CheckpointError: a tensor is missing or of a wrong shape.
    """
    tensors, path = checkpoint.tensors, checkpoint.path
    for name in ("P.weight", "classifier.0.weight"):
        if name not in tensors or tensors[name].ndim != 2:
            raise CheckpointError(f"{path}: needs a two-dimensional tensor {name!r}; found: {', '.join(tensors) or 'none'}.")
    models, classifier, projection = tensors["P.weight"], tensors["classifier.0.weight"], tensors.get("text_proj.0.weight")
    width = models.shape[1]
    if classifier.shape != (1, width) or (projection is not None and (projection.ndim != 2 or projection.shape[0] != width)):
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        raise CheckpointError(f"{path}: the tensors' shapes don't fit together: {shapes}.")
    ids = _published_model_ids() if checkpoint.meta is None else checkpoint.field("model_ids", list)
    if len(ids) != models.shape[0]:
        raise CheckpointError(f"{path}: has {models.shape[0]} models' rows for {len(ids)} model names.")
    return FactorWeights(models, projection, classifier[0], tuple(ids))


def _published_model_ids() -> list[str]:
    content = json.loads((_DATA / "published_mf_models.json").read_text(encoding="utf-8"))
    return [str(name) for name in content["model_ids"]]


def _check_shapes(checkpoint: Checkpoint, given: Mapping[str, int | bool | None], found: Mapping[str, int | bool]) -> None:
    for name, value in given.items():
        if value is not None and value != found[name]:
            raise CheckpointError(f"{checkpoint.path}: {name} is {found[name]!r}, where the configuration says {value!r}.")
