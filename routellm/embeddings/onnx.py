"""Sentence encoders as ONNX files, run by onnxruntime on the CPU (extra `onnx`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from routellm.embeddings.base import Embedder, Vector, valid_utf8
from routellm.errors import CheckpointError, ConfigError, MissingExtraError
from routellm.hub import resolve_folder

TOKENIZER = "tokenizer.json"
MODELS = ("model.onnx", "onnx/model.onnx")
"""Where a model is looked for in its folder: as our export writes it, and as most repositories of the hub have it."""

MAX_CHARACTERS = 16_384
"""Longer prompts are cut before they are tokenised: 256 tokens end long before."""

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class OnnxEmbedder(Embedder):
    """Mean-pooled hidden states of an encoder such as all-MiniLM-L6-v2, normalised to length 1.

    `python -m routellm.training.onnx_export` makes a folder for it from the pinned weights: float32 (90 MB) or int8 (23 MB).
    Neither is bundled. An int8 file gives slightly other vectors on processors with other instructions.

    Prompts go through the encoder one by one, also in a batch. On one thread that is the faster way, since nothing is padded
    (31 ms a prompt against 46 in batches of 32), and the only one in which int8 vectors do not depend on their neighbours:
    the range of the activations is measured over a whole call.

    Args:
        path: a folder with a tokenizer.json and a model, or a repository of the Hugging Face hub (extra `hub`).
        file: the model's place in the folder; None looks for model.onnx and onnx/model.onnx.
        revision: branch, tag or commit, where `path` is a repository.
        max_tokens: longer prompts are cut, the two special tokens included.
        threads: onnxruntime's threads within one call.

    Raises:
        CheckpointError: a file is missing, corrupt, or no such model.
        ConfigError: an argument is out of range.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        file: str | None = None,
        revision: str | None = None,
        max_tokens: int = 256,
        threads: int = 1,
    ) -> None:
        for name, value, least in (("max_tokens", max_tokens, 3), ("threads", threads, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} of the onnx embedder is {value!r}; it must be a whole number from {least}.")
        folder = resolve_folder(path, [TOKENIZER, *(MODELS if file is None else [file])], revision)
        model = _find_model(folder, file)
        self._session = _open_session(model, threads)
        self._inputs = [each.name for each in self._session.get_inputs()]
        outputs = [each.name for each in self._session.get_outputs()]
        self._output = "last_hidden_state" if "last_hidden_state" in outputs else outputs[0]
        self._tokenizer = _open_tokenizer(folder / TOKENIZER, max_tokens)
        self.dim = self._probe(model)
        digest = hashlib.sha256(f"{_sha256(model)} {_sha256(folder / TOKENIZER)} {max_tokens}".encode())
        self.fingerprint = f"onnx:{digest.hexdigest()[:16]}"

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        vectors = np.zeros((len(prompts), self.dim), dtype=np.float32)
        for vector, prompt in zip(vectors, prompts, strict=True):
            pooled = self._hidden_states(prompt).mean(axis=0)
            norm = np.linalg.norm(pooled)
            if norm > 0.0:
                np.divide(pooled, norm, out=vector)
        return vectors

    def _hidden_states(self, prompt: str) -> NDArray[np.float32]:
        """The last layer's output, shape (tokens, dim)."""
        tokens = self._tokenizer.encode(valid_utf8(prompt[:MAX_CHARACTERS]))
        values = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
        feed = {name: np.array([values[name]], dtype=np.int64) for name in self._inputs}
        hidden: NDArray[np.float32] = self._session.run([self._output], feed)[0][0]
        return hidden

    def _probe(self, model: Path) -> int:
        """Run the model once; the width of what comes out."""
        if not {"input_ids"} <= set(self._inputs) <= _INPUTS:
            raise CheckpointError(f"{str(model)!r} takes {self._inputs}; an encoder takes some of {sorted(_INPUTS)}.")
        try:
            hidden = self._hidden_states("a")
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise CheckpointError(f"{str(model)!r} can't be run on a prompt: {error}") from error
        if hidden.ndim != 2 or hidden.dtype != np.float32:
            raise CheckpointError(
                f"The output {self._output!r} of {str(model)!r} is {hidden.dtype} of shape {(1, *hidden.shape)}; "
                f"it must be float32 of shape (prompts, tokens, width)."
            )
        return int(hidden.shape[1])


def _find_model(folder: Path, file: str | None) -> Path:
    names = MODELS if file is None else (file,)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"The folder {str(folder)!r} has no {' or '.join(names)}. "
        f"`python -m routellm.training.onnx_export --out FOLDER` makes a folder that has."
    )


def _open_session(model: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("The onnx embedder", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; they come as exceptions too
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise CheckpointError(f"{str(model)!r} is not a model that onnxruntime can read: {error}") from error


def _open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise CheckpointError(f"{str(path)!r} is not a tokenizer that can be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
