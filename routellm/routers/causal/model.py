"""A causal language model that rates, run by torch and transformers (extra `torch`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 6
"""So many tokens are generated, greedily, until one is a rating. A model that was trained on ratings gives one at once."""

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a model runs.

    Attributes:
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 on a GPU, float32 on a CPU), or one of `DTYPES`.
        flash_attention_2: use that implementation of attention; needs the package flash-attn and a GPU.
    """

    device: str = "auto"
    dtype: str = "auto"
    flash_attention_2: bool = False

    def resolve(self) -> tuple[torch.device, torch.dtype]:
        """Device and type.

        Raises:
            ConfigError: there is no such device or type.
            MissingExtraError: torch is not installed.
        """
        torch, _ = libraries()
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype of causal_llm is {self.dtype!r}; it must be one of {', '.join(DTYPES)}.")
        gpu = torch.cuda.is_available()
        try:
            device = torch.device(("cuda" if gpu else "cpu") if self.device == "auto" else self.device)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"device of causal_llm is {self.device!r}; it must be auto, cpu, cuda or cuda:N.") from error
        if device.type == "cuda" and not gpu:
            raise ConfigError(f"device of causal_llm is {self.device!r}, but torch finds no GPU here. Set it to cpu, or auto.")
        name = self.dtype if self.dtype != "auto" else "float32" if device.type == "cpu" else "bfloat16"
        return device, getattr(torch, name)


def libraries() -> tuple[Any, Any]:
    """The modules torch and transformers.

    Raises:
        MissingExtraError: one is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError("The router 'causal_llm'", "torch") from error
    return torch, transformers


def load_model(folder: Path, placement: Placement) -> Any:
    """The language model in a folder, ready to score. Reads safetensors only, and runs no code of the folder's.

    Raises:
        CheckpointError: the folder holds no such model.
        ConfigError: the placement can't be had.
    """
    _, transformers = libraries()
    device, dtype = placement.resolve()
    attention = {"attn_implementation": "flash_attention_2"} if placement.flash_attention_2 else {}
    try:
        with quiet(transformers):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **attention
            )
    except Exception as error:  # transformers and safetensors raise many kinds
        if attention:
            raise ConfigError(f"{folder}: can't be loaded with flash_attention_2: {error}") from error
        raise CheckpointError(
            f"{folder}: holds no language model in safetensors that transformers can load: {error}"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        names = [*report["missing_keys"], *report["mismatched_keys"]]
        raise CheckpointError(f"{folder}: these weights are missing or of another shape: {', '.join(map(str, names[:5]))}.")
    return model.to(device).eval()


def load_tokenizer(folder: str | Path, special_tokens: Sequence[str]) -> tuple[Any, int]:
    """The tokenizer in a folder with the rating tokens added, and the id of the first of them; the others follow it.

    Raises:
        CheckpointError: there is no fast tokenizer, or it knows some of the tokens in another order.
    """
    _, transformers = libraries()
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise many kinds
        raise CheckpointError(f"{folder}: holds no tokenizer that transformers can load: {error}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{folder}: its tokenizer has no tokenizer.json, which is what can be read here.")
    tokenizer.add_tokens(list(special_tokens), special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(list(special_tokens))
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise CheckpointError(f"{folder}: the ids of {', '.join(special_tokens)} don't follow each other: {ids}.")
    return tokenizer, ids[0]


class quiet:  # noqa: N801 - reads as a statement: `with quiet(transformers)`
    """Keeps transformers' bars and advice off the terminal while it loads."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._level = self._logging.get_verbosity()
        self._bars = self._logging.is_progress_bar_enabled()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._level)
        if self._bars:
            self._logging.enable_progress_bar()


class Rater:
    """Reads the distribution over ratings off a language model.

    Args:
        model: of transformers, in evaluation mode.
        first_token: id of the first rating token.
        n_ratings: how many there are.
        stop: ids of tokens that end an answer.
    """

    def __init__(self, model: Any, first_token: int, n_ratings: int, stop: frozenset[int]) -> None:
        self._model, self._stop = model, stop
        self._ratings = slice(first_token, first_token + n_ratings)
        self._n = n_ratings

    def probabilities(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """The softmax over the ratings at the first greedily generated position that is one of them.

        Args:
            prompts: token ids, which go through the model as one batch.

        Returns:
            shape (len(prompts), n_ratings); a row of NaN where no rating came within `MAX_NEW_TOKENS` tokens.

        Raises:
            CheckpointError: the model's logits are not finite.
        """
        found = np.full((len(prompts), self._n), np.nan)
        texts = {index: list(ids) for index, ids in enumerate(prompts)}
        for _ in range(MAX_NEW_TOKENS):
            if not texts:
                break
            # The prompt is read again where no rating came at once: rare enough that keeping its state would not pay.
            logits = self._last_logits(list(texts.values()))
            for index, row in zip(list(texts), logits, strict=True):
                token = int(row.argmax())
                if self._ratings.start <= token < self._ratings.stop:
                    ratings = row[self._ratings]
                    weights = np.exp(ratings - ratings.max())
                    found[index] = weights / weights.sum()
                if token in self._stop or not np.isnan(found[index]).any():
                    del texts[index]
                else:
                    texts[index].append(token)
        return found

    def _last_logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        import torch

        with torch.inference_mode():
            logits = last_logits(self._model, texts).double().cpu().numpy()
        if not np.isfinite(logits).all():
            raise CheckpointError(
                "The language model's logits are not finite. In float16 they overflow: set dtype to bfloat16 or float32. "
                "Otherwise its weights are damaged."
            )
        return np.asarray(logits, dtype=np.float64)


def last_logits(model: Any, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each text, shape (len(texts), vocabulary). Shorter texts are padded on the left."""
    import torch

    longest = max(map(len, texts))
    ids = torch.zeros((len(texts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, longest - len(text) :] = torch.tensor(text)
        mask[row, longest - len(text) :] = 1
    more: dict[str, torch.Tensor] = {}
    if not bool(mask.all()):  # positions count from a text's own first token
        more = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    more = {name: tensor.to(model.device) for name, tensor in {"input_ids": ids, **more}.items()}
    output: torch.Tensor = model(**more, use_cache=False, logits_to_keep=1).logits[:, -1]
    return output
