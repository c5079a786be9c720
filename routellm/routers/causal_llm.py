"""A language model that rates how good the weak model's answer would be, 1 to 5 (paper, section 4.2).

The model is asked for a rating in a chat message, and answers with one of five special tokens. With p the softmax over those
five at the first generated position that is one of them:

    P(strong wins | q) = 1 - sum of p(rating) over rating >= score_threshold

Where no rating comes, the strong model is called. Two kinds of folders are served: ours (`router.json`: a low-rank adapter and
the rating tokens' rows, over a base model that is known by its hashes), and a whole fine-tuned model as transformers saves it,
such as the published Llama-3-8B.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.truncation import HEAD, what_is_read
from routellm.errors import CheckpointError, ConfigError
from routellm.hub import resolve_folder
from routellm.routers.causal.base import PATTERNS, BaseModel
from routellm.routers.causal.llama_config import CONFIG_FILE
from routellm.routers.causal.loading import load_language_model, needs_torch, stop_tokens
from routellm.routers.causal.lora import Adapter
from routellm.routers.causal.model import Placement
from routellm.routers.causal.prompt import CLASSIFIER_FILE, SYSTEM_FILE, RatingPrompt, read_texts
from routellm.routers.causal.rater import LanguageModel, Rater
from routellm.routers.causal.tokenizer import ChatTokenizer
from routellm.routers.checkpoint import META_FILE, Checkpoint, load_checkpoint
from routellm.routers.routers import Router

_MODEL_TYPE = "causal"
_DATA = files("routellm.routers") / "data"

SCORE_THRESHOLD = 4
"""The least rating at which the weak model's answer will do, as published."""


class CausalLLMRouter(Router):
    """Scores a prompt by a language model's rating.

    A Llama model, as the shipped one is, runs on a CPU in numpy. A GPU, 16 bits, flash attention and other architectures need
    the extra `torch`. A server keeps it off its event loop.

    Args:
        checkpoint_path: a folder, or a hub repository such as `routellm/causal_llm_gpt4_augmented`; None takes the shipped
            one, whose base model is fetched once.
        score_threshold: the least rating at which the weak model's answer will do.
        special_tokens: the rating tokens from worst to best; None for `[[1]]`, `[[2]]`, ... They are added to the tokenizer,
            in this order.
        num_outputs: how many there are.
        model_type: only "causal". Of published configurations.
        model_id: the published configurations' name of the model that was fine-tuned. Not needed: the folder has it all.
        flash_attention_2: use that implementation of attention; needs the package flash-attn and a GPU.
        base_model: of a checkpoint of ours: a folder with the base model, where it can't be fetched.
        device: "auto" (a GPU where there is one and torch is installed), "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 on a GPU, float32 on a CPU), "float32", "bfloat16" or "float16".
        batch_size: how many prompts go through the model at once in torch; None for 1 on a CPU, 8 on a GPU. With 1, and in
            numpy with any, a batch equals singles to the bit; else padding moves a score by rounding (about 1e-6 in float32,
            1e-2 in 16 bits).
        max_length: the most tokens of a prompt with its template. None for what the checkpoint was trained on, 2048 for
            published ones. A longer question loses its end, or where a checkpoint of ours says so, its middle.

    Raises:
        CheckpointError: the checkpoint or its base can't be read or had, or they don't fit together.
        ConfigError: an argument is out of range.
        MissingExtraError: what is asked for takes torch and transformers, and one is not installed.
    """

    def __init__(
        self,
        checkpoint_path: str | None = None,
        score_threshold: int = SCORE_THRESHOLD,
        special_tokens: Sequence[str] | None = None,
        num_outputs: int = 5,
        model_type: str = _MODEL_TYPE,
        model_id: str | None = None,
        flash_attention_2: bool = False,
        base_model: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        max_length: int | None = None,
    ) -> None:
        tokens = _rating_tokens(special_tokens, num_outputs)
        _check_arguments(score_threshold, len(tokens), model_type, batch_size, max_length)
        placement = Placement(device, dtype, flash_attention_2)
        place, kind = placement.names()
        self.batch_size = batch_size or (1 if place == "cpu" else 8)
        self._passing = score_threshold - 1
        where = Path(str(_DATA / "causal_llm")) if checkpoint_path is None else checkpoint_path
        if (resolve_folder(where, [META_FILE]) / META_FILE).is_file():
            checkpoint = load_checkpoint(where, "causal_llm")
            self._load_adapter(checkpoint, base_model, placement, tokens, max_length)
            settings = f"{self._passing}:{tokens}:{what_is_read(self._max_length, self._truncation)}:{place}:{kind}"
            self.fingerprint = f"causal_llm:{_digest(checkpoint, settings)}"
            as_trained = score_threshold == SCORE_THRESHOLD and max_length in (None, checkpoint.field("max_length", int))
            self.quantiles = checkpoint.quantiles() if as_trained else None
        else:
            self._load_whole(where, placement, tokens, max_length or 2048)

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return float(self.calculate_strong_win_rates([prompt])[0])

    def calculate_strong_win_rates(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        ids = [self._prompt.ids(prompt) for prompt in prompts]
        scores = np.ones(len(ids))
        # Prompts of like length go together, so that little is padded.
        order = np.argsort([len(each) for each in ids], kind="stable")
        for start in range(0, len(ids), self.batch_size):
            rows = order[start : start + self.batch_size]
            good = self._rater.probabilities([ids[row] for row in rows])[:, self._passing :].sum(axis=1)
            scores[rows] = np.where(np.isnan(good), 1.0, np.clip(1.0 - good, 0.0, 1.0))
        return scores

    def _load_adapter(
        self, checkpoint: Checkpoint, base_model: str | None, placement: Placement, tokens: list[str], max_length: int | None
    ) -> None:
        texts = read_texts(checkpoint.file(SYSTEM_FILE).parent)
        checkpoint.file(CLASSIFIER_FILE)
        self._max_length = max_length or checkpoint.field("max_length", int)
        self._truncation = checkpoint.field("truncation", str) if "truncation" in (checkpoint.meta or {}) else HEAD
        trained = checkpoint.field("special_tokens", list)
        if tokens != trained:
            raise CheckpointError(
                f"{checkpoint.path}: was trained with the special tokens {trained}, not {tokens}. Leave special_tokens and "
                f"num_outputs out."
            )
        adapter = Adapter.read(checkpoint.tensors, len(tokens), str(checkpoint.path))
        base = BaseModel.read(checkpoint.field("base", dict), checkpoint.path / META_FILE)
        folder = base.find(base_model)
        with ThreadPoolExecutor(1) as beside:
            checking = beside.submit(base.check, folder)
            try:
                tokenizer = ChatTokenizer(folder, tokens)
                model = load_language_model(folder, placement, adapter, tokenizer.first_rating)
            finally:
                checking.result()  # another base explains whatever else went wrong
        self._bind(model, tokenizer, texts, len(tokens), folder, checkpoint.path)

    def _load_whole(self, where: str | Path, placement: Placement, tokens: list[str], max_length: int) -> None:
        self._max_length, self._truncation = max_length, HEAD
        needs_torch(resolve_folder(where, [CONFIG_FILE]), placement)  # before gigabytes are fetched
        folder = resolve_folder(where, PATTERNS)
        texts = read_texts(folder)
        tokenizer = ChatTokenizer(folder, tokens)
        model = load_language_model(folder, placement)
        end = tokenizer.first_rating + len(tokens)
        if end > model.vocabulary:
            raise CheckpointError(
                f"{folder}: the model has rows for {model.vocabulary} tokens, where the tokenizer has {end} with "
                f"{', '.join(tokens)}: it was not trained on them. Give a model that was, or train an adapter."
            )
        self._bind(model, tokenizer, texts, len(tokens), folder, folder)

    def _bind(
        self, model: LanguageModel, tokenizer: ChatTokenizer, texts: tuple[str, str], ratings: int, folder: Path, where: Path
    ) -> None:
        self._prompt = RatingPrompt(tokenizer, *texts, self._max_length, where, self._truncation)
        model.remember(self._prompt.head)
        stop = stop_tokens(folder) | ({tokenizer.eos} if tokenizer.eos is not None else set())
        self._rater = Rater(model, tokenizer.first_rating, ratings, stop)


def _rating_tokens(given: object, count: object) -> list[str]:
    if not _is_count(count):
        raise ConfigError(f"num_outputs of causal_llm is {count!r}; it must be a whole number from 1.")
    tokens = [f"[[{rating}]]" for rating in range(1, count + 1)] if given is None else given
    texts = isinstance(tokens, (list, tuple)) and all(isinstance(token, str) and token for token in tokens)
    if not isinstance(tokens, (list, tuple)) or not texts or len(set(tokens)) != count:
        raise ConfigError(f"special_tokens of causal_llm are {given!r}; they must be num_outputs = {count} different texts.")
    return list(tokens)


def _check_arguments(score_threshold: object, ratings: int, model_type: object, *sizes: object) -> None:
    if not _is_count(score_threshold) or score_threshold > ratings:
        raise ConfigError(f"score_threshold of causal_llm is {score_threshold!r}; it must be a whole number, 1 to {ratings}.")
    if model_type != _MODEL_TYPE:
        raise ConfigError(f"model_type of causal_llm is {model_type!r}; only {_MODEL_TYPE!r} is known.")
    for name, size in zip(("batch_size", "max_length"), sizes, strict=True):
        if size is not None and not _is_count(size):
            raise ConfigError(f"{name} of causal_llm is {size!r}; it must be a whole number from 1.")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _digest(checkpoint: Checkpoint, settings: str) -> str:
    meta: Mapping[str, Any] = checkpoint.meta or {}
    identity = [meta.get(key) for key in ("weights_sha256", "files", "base")]
    return hashlib.sha256(f"{json.dumps(identity, sort_keys=True)}:{settings}".encode()).hexdigest()[:16]
