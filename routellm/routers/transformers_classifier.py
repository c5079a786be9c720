"""A classifier of three labels that transformers saved, such as the published one, run by torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import sha256
from routellm.embeddings.base import valid_utf8
from routellm.embeddings.truncation import CHARACTERS_A_TOKEN
from routellm.errors import CheckpointError, ConfigError, MissingExtraError

LABELS = 3
"""Strong wins, tie, weak wins, in this order."""

CONFIG = "config.json"
MAX_TOKENS = 512
"""Of a prompt, as it was trained (paper, appendix); fewer where it reads fewer."""

DTYPES = ("float32", "bfloat16", "float16")


class TransformersClassifier:
    """A classifier that transformers saved, run by torch.

    Args:
        folder: its `config.json`, safetensors and tokenizer. Weights in pickles are refused, code is never run.
        max_tokens, device, dtype, batch_size: see `BertRouter`.

    Raises:
        CheckpointError: it can't be read, lacks the classification head, or has another number of labels.
        ConfigError: torch knows no such device, or `max_tokens` is more than the model reads.
        MissingExtraError: torch or transformers is not installed.
    """

    def __init__(self, folder: Path, max_tokens: int | None, device: str | None, dtype: str, batch_size: int) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtraError(f"The transformers classifier in {str(folder)!r}", "torch") from error
        config = _read(folder, transformers.AutoConfig)
        if config.num_labels != LABELS:
            raise CheckpointError(f"{folder / CONFIG}: the classifier has {config.num_labels} labels; it must have {LABELS}.")
        self._tokenizer = _read(folder, transformers.AutoTokenizer)
        model, report = _read(
            folder, transformers.AutoModelForSequenceClassification, use_safetensors=True, output_loading_info=True
        )
        if report["missing_keys"]:
            raise CheckpointError(f"{folder}: its weights lack {', '.join(sorted(report['missing_keys']))}.")
        self._tokenizing = Lock()
        self._max_tokens = _cut(folder, config, self._tokenizer.model_max_length, max_tokens)
        self._batch_size = batch_size
        try:
            self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self._model = model.to(device=self._device, dtype=getattr(torch, dtype)).eval()
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise ConfigError(f"device of the router 'bert' is {device!r}; torch can't use it: {error}") from error
        if not np.isfinite(self.logits(["a"])).all():
            raise CheckpointError(f"{folder}: its weights give logits that are not finite in {dtype}.")
        self.fingerprint = f"transformers:{_digest(folder)}:{self._max_tokens}:{self._device.type}:{dtype}"

    def logits(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        # By length, so that little of a batch is padding.
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        logits = np.empty((len(prompts), LABELS))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            logits[rows] = self._run([prompts[row] for row in rows])
        return logits

    def _run(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        import torch

        cut = [valid_utf8(prompt[: CHARACTERS_A_TOKEN * self._max_tokens]) for prompt in prompts]
        with self._tokenizing:  # it sets padding and truncation on a shared object
            fed = self._tokenizer(cut, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt")
        with torch.inference_mode():
            logits: NDArray[np.float64] = self._model(**fed.to(self._device)).logits.double().cpu().numpy()
        return logits


def _read(folder: Path, kind: Any, **arguments: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **arguments)
    except Exception as error:  # transformers raises what each of a dozen file formats does
        raise CheckpointError(f"{folder}: {kind.__name__} can't be loaded: {error}") from error


def _cut(folder: Path, config: Any, tokenizer_max: int, asked: int | None) -> int:
    """How many tokens of a prompt are read."""
    positions = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    if "roberta" in config.model_type:
        positions -= (config.pad_token_id or 0) + 1  # its first positions belong to the padding
    most = min(positions, tokenizer_max)
    if asked is not None and asked > most:
        raise ConfigError(f"max_length is {asked}; the classifier in {str(folder)!r} reads {most} tokens at most.")
    return asked or min(most, MAX_TOKENS)


def _digest(folder: Path) -> str:
    """A hash of the files that decide."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model", ".safetensors"):
            digest.update(f"{path.name} {sha256(path)} ".encode())
    return digest.hexdigest()[:16]
