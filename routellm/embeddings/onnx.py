"""Sentence encoders as ONNX files, run by onnxruntime on the CPU (extra `onnx`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import sha256
from routellm.embeddings.base import Embedder, Vector
from routellm.embeddings.truncation import HEAD, TokenIds, what_is_read
from routellm.errors import CheckpointError, ConfigError, MissingExtraError
from routellm.hub import resolve_folder

TOKENIZER = "tokenizer.json"
MODELS = ("model.onnx", "onnx/model.onnx")
"""Where a model is looked for in its folder: as our export writes it, and as most repositories of the hub have it."""

_INPUTS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "input_ids": np.asarray,
    "attention_mask": np.ones_like,
    "token_type_ids": np.zeros_like,
}
"""What a model of text may take -> the same made of the token ids of one prompt."""

_SLOWER_FUSION = "SkipLayerNormFusion"
"""onnxruntime joins an addition and a normalisation into one operator, which takes longer than the two: two layers of MiniLM
take 4.6 ms with it and 4.1 ms without (68 tokens, onnxruntime 1.32, AVX2)."""


class TextModel:
    """A tokenizer and an ONNX model that takes its ids: what an encoder and a classifier of prompts have in common.

    Prompts go through it one by one. On one thread that is the faster way, since nothing is padded, and the only one in which
    an int8 model's output does not depend on a prompt's neighbours: the range of the activations is measured over a whole
    call. Safe to share between threads.

    Args:
        model: the ONNX file. It takes `input_ids`, and may take `attention_mask` and `token_type_ids`.
        tokenizer: a `tokenizers` file; its own padding and truncation are overridden.
        output: which of the model's outputs is wanted; where it has none of that name, its first.
        max_tokens: longer prompts are cut, the special tokens included.
        threads: onnxruntime's threads within one call.
        truncation: where they are cut; see `TokenIds`.

    Attributes:
        outputs: the names of all that the model gives.
        digest: a hash of all that decides what comes out.

    Raises:
        CheckpointError: a file is corrupt, or no such model.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(
        self, model: Path, tokenizer: Path, output: str, max_tokens: int, threads: int = 1, truncation: str = HEAD
    ) -> None:
        self._model = model
        self._session = _open_session(model, threads)
        inputs = [each.name for each in self._session.get_inputs()]
        if not {"input_ids"} <= set(inputs) <= set(_INPUTS):
            raise CheckpointError(f"{str(model)!r} takes {inputs}; a model of text takes some of {sorted(_INPUTS)}.")
        self._inputs = {name: _INPUTS[name] for name in inputs}
        self.outputs = [each.name for each in self._session.get_outputs()]
        self._output = output if output in self.outputs else self.outputs[0]
        self._ids = TokenIds(tokenizer, max_tokens, truncation)
        read = what_is_read(max_tokens, truncation)
        self.digest = hashlib.sha256(f"{sha256(model)} {sha256(tokenizer)} {read}".encode()).hexdigest()[:16]

    def run(self, prompt: str) -> NDArray[np.float32]:
        """The output for one prompt, without the axis of prompts."""
        ids = np.array([self._ids.of(prompt)], dtype=np.int64)
        feed = {name: make(ids) for name, make in self._inputs.items()}
        output: NDArray[np.float32] = self._session.run([self._output], feed)[0][0]
        return output

    def probe(self, *axes: str | int) -> tuple[int, ...]:
        """Run the model once and check the form of what comes out.

        Args:
            axes: what follows the axis of prompts: the name of an axis of any size, or a size.

        Returns:
            The sizes of those axes.

        Raises:
            CheckpointError: the model can't be run, or its output is not finite float32 numbers of that form.
        """
        try:
            output = self.run("a")
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise CheckpointError(f"{str(self._model)!r} can't be run on a prompt: {error}") from error
        fits = np.ndim(output) == len(axes) and output.dtype == np.float32
        if not fits or any(isinstance(axis, int) and axis != size for axis, size in zip(axes, output.shape, strict=True)):
            raise CheckpointError(
                f"The output {self._output!r} of {str(self._model)!r} is {output.dtype} of shape {(1, *output.shape)}; "
                f"it must be float32 of shape ({', '.join(map(str, ('prompts', *axes)))})."
            )
        if not np.isfinite(output).all():
            raise CheckpointError(
                f"The output {self._output!r} of {str(self._model)!r} is not finite; its weights are damaged."
            )
        return output.shape


class OnnxEmbedder(Embedder):
    """Mean-pooled hidden states of an encoder such as all-MiniLM-L6-v2, normalised to length 1.

    `python -m routellm.training.onnx_export` makes a folder for it from the pinned weights: float32 (90 MB) or int8 (23 MB).
    Neither is bundled. An int8 file gives slightly other vectors on processors with other instructions.

    Prompts go through the encoder one by one, also in a batch (31 ms a prompt on one thread, against 46 in batches of 32);
    see `TextModel`.

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
        self._encoder = TextModel(model, folder / TOKENIZER, "last_hidden_state", max_tokens, threads)
        self.dim = self._encoder.probe("tokens", "width")[1]
        self.fingerprint = f"onnx:{self._encoder.digest}"

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        vectors = np.zeros((len(prompts), self.dim), dtype=np.float32)
        for vector, prompt in zip(vectors, prompts, strict=True):
            pooled = self._encoder.run(prompt).mean(axis=0)
            norm = np.linalg.norm(pooled)
            if norm > 0.0:
                np.divide(pooled, norm, out=vector)
        return vectors


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
        raise MissingExtraError("An ONNX model", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; they come as exceptions too
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=[_SLOWER_FUSION]
        )
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise CheckpointError(f"{str(model)!r} is not a model that onnxruntime can read: {error}") from error
