"""Low-rank adapters (LoRA) and the rows of the rating tokens, in plain torch (extra `torch`).

An adapter of a linear layer with weight W is the pair A (r, in), B (out, r), and stands for W + B A. That is all there is to
it, so no library of adapters is needed: when a checkpoint is loaded the product is added to W, and serving costs what the base
costs. The usual factor alpha / r is part of B.

The rating tokens are only ever predicted, never read, so they need rows in the output layer alone. `RatingHead` holds those
five beside the base's own, which stay as they are, also where they are shared with the input embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError

if TYPE_CHECKING:
    import torch

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and MLP layers, by the names that Llama, Mistral, Qwen, Gemma and their kin share."""

ROWS = "rating_rows"


def targets(model: Any) -> dict[str, Any]:
    """The linear layers that are adapted, by their full names, in the model's order."""
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in TARGETS}


def merge(model: Any, tensors: Mapping[str, NDArray[Any]], first_token: int, where: str) -> None:
    """Add an adapter to a model's weights, and its rating rows to the output layer.

    Args:
        tensors: as `adapter_tensors` names them.
        first_token: the id of the first rating token; the others follow it.
        where: the checkpoint, for messages.

    Raises:
        CheckpointError: the tensors don't fit the model.
    """
    import torch

    layers = targets(model)
    names = {name.rpartition(".")[0] for name in tensors if name.endswith((".lora_A", ".lora_B"))}
    if ROWS not in tensors or not names <= set(layers):
        missing = ", ".join(sorted(names - set(layers))[:3]) or ROWS
        raise CheckpointError(f"{where}: the adapter does not fit the base model: {missing} has no counterpart.")
    try:
        with torch.no_grad():
            for name in names:
                weight = layers[name].weight
                update = _tensor(tensors[f"{name}.lora_B"]) @ _tensor(tensors[f"{name}.lora_A"])
                if update.shape != weight.shape:
                    raise ValueError(f"{name} is {tuple(weight.shape)}, the adapter's {tuple(update.shape)}")
                weight += update.to(weight)
            head = model.get_output_embeddings()
            rows = _tensor(tensors[ROWS]).to(head.weight)
            model.set_output_embeddings(rating_head(head.weight, rows, first_token))
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where}: the adapter does not fit the base model: {error}.") from error


def rating_head(weight: torch.Tensor, rows: torch.Tensor, first_token: int) -> Any:
    """An output layer: logits of the base's tokens below `first_token`, then those of the rating tokens.

    Args:
        weight: the base's output embeddings, shape (vocabulary, width); used as it is, and not trained.
        rows: of the rating tokens, shape (n, width).
    """
    import torch
    from torch.nn.functional import linear

    if rows.ndim != 2 or rows.shape[1] != weight.shape[1] or first_token > len(weight):
        raise ValueError(f"rating rows of shape {tuple(rows.shape)} for embeddings of {tuple(weight.shape)}")

    class RatingHead(torch.nn.Module):  # type: ignore[misc]  # torch is not read by mypy here
        def __init__(self) -> None:
            super().__init__()
            # In a tuple it is no parameter of this layer: it stays the embeddings' own.
            self._base = (weight.detach()[:first_token],)
            self.rows = torch.nn.Parameter(rows)

        @property
        def weight(self) -> torch.Tensor:
            return self.rows  # transformers asks the output layer for its type and device

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.cat([linear(hidden, self._base[0]), linear(hidden, self.rows)], dim=-1)

    return RatingHead()


def adapt(model: Any, rank: int, alpha: float, layers: int | None, seed: int) -> dict[str, tuple[Any, Any]]:
    """Put trainable adapters on a model whose own weights are frozen: name of a layer -> A and B.

    A is drawn at random and B is zero, so that training starts from the base.

    Args:
        layers: adapt the last so many transformer layers only; None for all.
    """
    import torch

    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    scale = alpha / rank
    pairs: dict[str, tuple[Any, Any]] = {}
    chosen = _of_last_layers(targets(model), layers)
    for name, layer in chosen.items():
        out, width = layer.weight.shape
        a = torch.nn.Parameter((torch.randn(rank, width, generator=generator) * width**-0.5).to(layer.weight.device))
        b = torch.nn.Parameter(torch.zeros(out, rank, device=layer.weight.device))

        def add(_: Any, inputs: tuple[Any], output: Any, a: Any = a, b: Any = b) -> Any:
            return output + (inputs[0] @ a.T.to(output)) @ b.T.to(output) * scale

        layer.register_forward_hook(add)
        pairs[name] = (a, b)
    return pairs


def adapter_tensors(
    pairs: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], scale: float, rows: NDArray[Any]
) -> dict[str, NDArray[np.float16]]:
    """What goes into `model.safetensors`; the factor of the adapters' output becomes part of B."""
    held: dict[str, NDArray[np.float16]] = {ROWS: rows.astype(np.float16)}
    for name, (a, b) in pairs.items():
        held[f"{name}.lora_A"], held[f"{name}.lora_B"] = a.astype(np.float16), (b * scale).astype(np.float16)
    return held


def _of_last_layers(layers: dict[str, Any], last: int | None) -> dict[str, Any]:
    def number(name: str) -> int:
        return next((int(part) for part in name.split(".") if part.isdigit()), 0)

    least = 0 if last is None else max(map(number, layers), default=0) + 1 - last
    return {name: layer for name, layer in layers.items() if number(name) >= least}


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
