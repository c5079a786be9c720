"""A sequence classifier with three classes: the strong model wins, a tie, the weak model wins (paper, section 4.2).

    P(strong wins | q) = 1 - P(tie | q) - P(weak wins | q)

Two kinds of folders are served, told apart by what they hold: ours (`router.json`, an int8 ONNX graph and its tokenizer; one
core, no torch), and any classifier of three labels that transformers saved (`config.json`), such as the published one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.onnx import TOKENIZER, TextModel
from routellm.embeddings.truncation import HEAD
from routellm.errors import CheckpointError, ConfigError
from routellm.hub import resolve_folder
from routellm.routers.checkpoint import META_FILE, load_checkpoint
from routellm.routers.routers import Router
from routellm.routers.transformers_classifier import CONFIG, DTYPES, LABELS, TransformersClassifier

MODEL = "model.onnx"
LOGITS, VECTOR = "logits", "sentence_embedding"
"""The outputs of our graphs: the classifier's, and what its last layer reads, the mean of the encoder's last hidden states."""

_SHIPPED = str(files("routellm.routers") / "data" / "bert")


class Classifier(Protocol):
    """What this router needs of whatever computes the three logits.

    Attributes:
        fingerprint: identifies the exact function.
    """

    fingerprint: str

    def logits(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Logits of strong wins, tie and weak wins: shape (len(prompts), 3)."""


class BertRouter(Router):
    """Scores a prompt by a three-way sequence classifier.

    Args:
        checkpoint_path: a folder, or a hub repository such as `routellm/bert_gpt4_augmented`; None takes the shipped one.
        num_labels: how many labels the classifier must have. Only checked: it is 3.
        max_length: longer prompts are cut to this many tokens, the special ones included; None takes what the classifier was
            trained on. Which tokens those are, a checkpoint of ours says; of a transformers classifier, the first.
        threads: of a checkpoint of ours: how many prompts of a batch are scored at once, each on one core.
        device: of a transformers classifier: "cpu", "cuda", "cuda:1", ...; None takes a GPU where torch finds one.
        dtype: of a transformers classifier: "float32", "bfloat16" or "float16".
        batch_size: of a transformers classifier: how many prompts go through it at once. Padding then moves a score by
            rounding (about 1e-7 in float32, 1e-2 in 16 bits); a batch of our own checkpoint equals singles to the bit.

    Raises:
        CheckpointError: the checkpoint can't be read, or does not hold a classifier of three labels.
        ConfigError: an argument is out of range.
        MissingExtraError: onnxruntime, or torch and transformers, is not installed.
    """

    def __init__(
        self,
        checkpoint_path: str | None = None,
        num_labels: int = LABELS,
        max_length: int | None = None,
        threads: int = 1,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 16,
    ) -> None:
        if num_labels != LABELS:
            raise ConfigError(f"num_labels of the router 'bert' is {num_labels!r}; its classes are three: strong, tie, weak.")
        if dtype not in DTYPES:
            raise ConfigError(f"dtype of the router 'bert' is {dtype!r}; it must be one of: {', '.join(DTYPES)}.")
        _check_whole("threads", threads, 1)
        _check_whole("batch_size", batch_size, 1)
        if max_length is not None:
            _check_whole("max_length", max_length, 3)
        where = _SHIPPED if checkpoint_path is None else checkpoint_path
        folder = resolve_folder(where, [META_FILE, CONFIG])
        if (folder / META_FILE).is_file():
            served = _Served.read(where, max_length)
            self._bind(OnnxClassifier(served.model, served.tokenizer, served.max_tokens, threads, served.truncation))
            self.quantiles = served.quantiles
            self.batches = threads > 1
        elif (folder / CONFIG).is_file():
            folder = resolve_folder(where, ["*.json", "*.txt", "*.model", "*.safetensors"])
            self._bind(TransformersClassifier(folder, max_length, device, dtype, batch_size))
        else:
            raise CheckpointError(
                f"{folder}: holds neither {META_FILE}, as `routellm train bert` writes it, nor {CONFIG}, as transformers does."
            )

    @classmethod
    def from_classifier(cls, classifier: Classifier) -> BertRouter:
        """A router of a classifier that is at hand, as a trainer has it."""
        router = cls.__new__(cls)
        router._bind(classifier)
        return router

    def _bind(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.fingerprint = f"bert:{classifier.fingerprint}"

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return float(self.calculate_strong_win_rates([prompt])[0])

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        if not prompts:
            return np.empty(0)
        return win_rates(self._classifier.logits(prompts))


class BertEmbedder(Embedder):
    """What a `bert` router's encoder makes of a prompt: the mean of its last hidden states. The router itself reads nothing
    else, but by a single layer for all kinds of prompts.

    Prompts go through the encoder one by one, also in a batch. Safe to share between threads.

    Args:
        checkpoint_path: a folder that `routellm train bert` wrote, or a hub repository; None takes the shipped one.
        max_length: longer prompts are cut to this many tokens; None takes what the encoder was trained on.

    Raises:
        CheckpointError: the checkpoint can't be read, or its graph has no such output.
        ConfigError: an argument is out of range.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, checkpoint_path: str | None = None, max_length: int | None = None) -> None:
        if max_length is not None:
            _check_whole("max_length", max_length, 3)
        served = _Served.read(_SHIPPED if checkpoint_path is None else checkpoint_path, max_length)
        self._encoder = TextModel(served.model, served.tokenizer, VECTOR, served.max_tokens, truncation=served.truncation)
        if VECTOR not in self._encoder.outputs:
            raise CheckpointError(
                f"{served.model}: gives {', '.join(self._encoder.outputs)}, and no {VECTOR}. Train the bert router again."
            )
        self.dim = self._encoder.probe("width")[0]
        self.fingerprint = f"bert:{self._encoder.digest}"
        self._last: tuple[str | None, Vector] = (None, np.empty(0, dtype=np.float32))

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        vectors = np.empty((len(prompts), self.dim), dtype=np.float32)
        for vector, prompt in zip(vectors, prompts, strict=True):
            vector[:] = self.embed(prompt)
        return vectors

    def embed(self, prompt: str) -> Vector:
        # A router that was adapted to one's labels asks for the same prompt twice: for itself, and for the router below it.
        known, vector = self._last
        if known != prompt:
            vector = self._encoder.run(prompt)
            self._last = prompt, vector
        return vector.copy()


@dataclass(frozen=True, slots=True)
class _Served:
    """What a checkpoint of ours holds.

    Attributes:
        model, tokenizer: files.
        max_tokens: longer prompts are cut, as `truncation` says.
        quantiles: of its scores; None for prompts that are cut elsewhere than in training.
    """

    model: Path
    tokenizer: Path
    max_tokens: int
    truncation: str
    quantiles: ScoreQuantiles | None

    @classmethod
    def read(cls, where: str, max_length: int | None) -> _Served:
        checkpoint = load_checkpoint(where, "bert")
        if checkpoint.meta is None:
            raise CheckpointError(f"{checkpoint.path}: holds no {META_FILE}, as `routellm train bert` writes it.")
        trained, positions = checkpoint.field("max_length", int), checkpoint.field("max_positions", int)
        if max_length is not None and max_length > positions:
            raise ConfigError(f"max_length is {max_length}; the checkpoint {where!r} reads {positions} tokens at most.")
        truncation = checkpoint.field("truncation", str) if "truncation" in checkpoint.meta else HEAD
        quantiles = checkpoint.quantiles() if max_length in (None, trained) else None
        return cls(checkpoint.file(MODEL), checkpoint.file(TOKENIZER), max_length or trained, truncation, quantiles)


class OnnxClassifier:
    """A classifier as an ONNX graph with the output `logits`, float32 of shape (prompts, 3), run by onnxruntime.

    Args:
        model, tokenizer: the two files.
        max_tokens: longer prompts are cut.
        threads: how many prompts of a batch are scored at once. Each runs alone on one thread: dynamic quantisation measures
            the range of activations over a whole call, so prompts that share a call would change each other's score.
        truncation: where longer prompts are cut; see `TokenIds`.

    Raises:
        CheckpointError: a file is corrupt, or no such model.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, model: Path, tokenizer: Path, max_tokens: int, threads: int = 1, truncation: str = HEAD) -> None:
        self._model = TextModel(model, tokenizer, LOGITS, max_tokens, truncation=truncation)
        self._model.probe(LABELS)
        self._threads = threads
        self.fingerprint = f"onnx:{self._model.digest}"

    def logits(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        if self._threads == 1 or len(prompts) == 1:
            rows = [self._model.run(prompt) for prompt in prompts]
        else:
            with ThreadPoolExecutor(min(self._threads, len(prompts))) as pool:
                rows = list(pool.map(self._model.run, prompts))
        return np.array(rows, dtype=np.float64)


def win_rates(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(strong wins) = 1 - P(tie) - P(weak wins), of logits of shape (n, 3): float64, shape (n,)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    wins: NDArray[np.float64] = powers[:, 0] / powers.sum(axis=1)
    return wins


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} of 'bert' is {value!r}; it must be a whole number from {least}.")
