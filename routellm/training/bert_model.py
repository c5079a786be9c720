"""The classifier that is fine-tuned: an encoder of BERT's kind, the mean of its last hidden states, and a linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routellm.embeddings.onnx import TOKENIZER
from routellm.errors import CheckpointError, ConfigError
from routellm.hub import resolve_folder
from routellm.training import pinned
from routellm.training.bert_graph import ACTIVATIONS, Shape, parameter_names

DROPOUT = 0.1
FILES = ("config.json", "model.safetensors", TOKENIZER)
LICENCE = "LICENSE"


class PromptClassifier(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Logits of strong wins, tie and weak wins.

    The last layer starts at zero: before the first step every prompt gets its source's base rate.

    Args:
        encoder: of transformers, with hidden states of width `encoder.config.hidden_size`.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(encoder.config.hidden_size, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits, shape (prompts, 3), of ids and mask of shape (prompts, tokens)."""
        logits: Tensor = self.head(self.dropout(self.pooled(input_ids, attention_mask)))
        return logits

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean of the last hidden states, shape (prompts, width)."""
        types = torch.zeros_like(input_ids)
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean: Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return mean


def find_encoder(where: str | None) -> Path:
    """The folder of an encoder: a given one, a hub repository's, or for None that of all-MiniLM-L6-v2, whose hashes are
    checked.

    Raises:
        CheckpointError: it is not there, lacks a file, or is not the pinned one.
        MissingExtraError: it lies on the hub and the extra `hub` is not installed.
    """
    folder = resolve_folder(where or pinned.MODEL, [*FILES, LICENCE], None if where else pinned.REVISION)
    if where is None:
        pinned.check_pinned(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: an encoder needs {', '.join(FILES)}; {name} is missing.")
    return folder


def load_encoder(folder: Path, layers: int | None) -> Any:
    """The encoder in float32, without pooler.

    Args:
        layers: how many of its layers are kept, from below; None keeps all.

    Raises:
        CheckpointError: it can't be loaded, or is not of BERT's kind: what is computed otherwise could not be served.
        ConfigError: it has fewer layers.
    """
    from transformers import AutoModel

    try:
        with _quiet():
            encoder = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, attn_implementation="sdpa", add_pooling_layer=False
            ).float()
        held = encoder.encoder.layer
    except Exception as error:  # transformers raises what each of a dozen file formats does
        raise CheckpointError(f"{folder}: is not an encoder of BERT's kind that can be loaded: {error}") from error
    _check_kind(encoder, folder)
    if layers is not None:
        if not 1 <= layers <= len(held):
            raise ConfigError(f"--layers is {layers}; the encoder has {len(held)}.")
        encoder.encoder.layer = held[:layers]
        encoder.config.num_hidden_layers = layers
    return encoder


def _check_kind(encoder: Any, folder: Path) -> None:
    names, expected = {name for name, _ in encoder.named_parameters()}, parameter_names(len(encoder.encoder.layer))
    if names != expected:
        raise CheckpointError(
            f"{folder}: is not an encoder of BERT's kind: of its parameters {', '.join(sorted(names ^ expected)[:5])} are not "
            f"shared by both. BERT, RoBERTa and XLM-RoBERTa are of that kind."
        )
    if encoder.config.hidden_act not in ACTIVATIONS:
        raise CheckpointError(
            f"{folder}: has the activation {encoder.config.hidden_act!r}; it must be one of: {', '.join(ACTIVATIONS)}."
        )


def shape_of(encoder: Any) -> Shape:
    """What the graph that is served needs to know of the encoder beside its weights."""
    table, config = encoder.embeddings.position_embeddings, encoder.config
    return Shape(
        layers=len(encoder.encoder.layer),
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        first_position=table.num_embeddings - max_positions(encoder),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its list of the pooler's weights, which are left out on purpose."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def max_positions(encoder: Any) -> int:
    """How many tokens the encoder can read."""
    table = encoder.embeddings.position_embeddings
    # RoBERTa's first positions belong to the padding.
    return int(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))


def freeze(model: PromptClassifier, layers: int) -> None:
    """Keep the token table, and so many layers from below, as they are.

    The table holds half of MiniLM's parameters, of which a step touches few rows: training it slows a step down by a fifth of
    a second.

    Raises:
        ConfigError: the encoder has fewer layers.
    """
    held = model.encoder.encoder.layer
    if not 0 <= layers <= len(held):
        raise ConfigError(f"--frozen-layers is {layers}; it must be from 0 to the encoder's {len(held)} layers.")
    for part in (model.encoder.embeddings, *held[:layers]):
        for parameter in part.parameters():
            parameter.requires_grad = False
