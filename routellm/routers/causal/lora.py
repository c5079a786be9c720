"""Low-rank adapters (LoRA) and the rows of the rating tokens: as they are saved, and in plain torch (extra `torch`) to train.

An adapter of a linear layer with weight W is the pair A (r, in), B (out, r), and stands for W + B A. That is all there is to
it, so no library of adapters is needed: when a checkpoint is loaded the product is added to W, and serving costs what the base
costs. The usual factor alpha / r is part of B.

The rating tokens are only ever predicted, never read, so they need rows in the output layer alone. `RatingHead` holds those
five beside the base's own, which stay as they are, also where they are shared with the input embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError

if TYPE_CHECKING:
    import torch

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and MLP layers, by the names that Llama, Mistral, Qwen, Gemma and their kin share."""

ROWS = "rating_rows"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained adapter, in float32.

    Attributes:
        pairs: name of a layer -> A, shape (r, in), and B, shape (out, r).
        rows: output rows of the rating tokens, shape (n, width).
        where: the checkpoint, for messages.
    """

    pairs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    rows: NDArray[np.float32]
    where: str

    @classmethod
    def read(cls, tensors: Mapping[str, NDArray[Any]], n_ratings: int, where: str) -> Adapter:
        """From a checkpoint's tensors, as `adapter_tensors` names them.

        Raises:
            CheckpointError: one is missing, or A and B don't go together, or there are not as many rows as ratings.
        """
        held = {name: np.asarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
        names = {name.rpartition(".")[0] for name in held if name.endswith((".lora_A", ".lora_B"))}
        try:
            pairs = {name: (held[f"{name}.lora_A"], held[f"{name}.lora_B"]) for name in sorted(names)}
            rows = held[ROWS]
        except KeyError as error:
            raise CheckpointError(f"{where}: the adapter has no {error}.") from error
        wrong = [name for name, (a, b) in pairs.items() if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0]]
        if wrong or rows.ndim != 2 or len(rows) != n_ratings:
            raise CheckpointError(
                f"{where}: the adapter's shapes don't go together: {', '.join(wrong[:3]) or f'{ROWS}: {rows.shape}'}."
            )
        return cls(pairs, rows, where)

    def check(self, layers: Mapping[str, tuple[int, ...]], head: tuple[int, ...], first_token: int) -> None:
        """That it fits a model.

        Args:
            layers: the model's linear layers: name -> shape (out, in).
            head: shape of its output layer, (vocabulary, width).
            first_token: id of the first rating token; the others follow it.

        Raises:
            CheckpointError: it doesn't.
        """
        wrong = [
            f"{name} is {layers.get(name, 'missing')}, the adapter's {(len(b), a.shape[1])}"
            for name, (a, b) in self.pairs.items()
            if layers.get(name) != (len(b), a.shape[1])
        ]
        if self.rows.shape[1] != head[1] or first_token > head[0]:
            wrong.append(f"{ROWS} of shape {self.rows.shape} from token {first_token} on, for an output layer of {head}")
        if wrong:
            raise CheckpointError(f"{self.where}: the adapter does not fit the base model: {'; '.join(wrong[:3])}.")

    def update(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """What is added to a layer's weight, shape (out, in), or to some of its rows."""
        a, b = self.pairs[name]
        return b[rows] @ a


def targets(model: Any) -> dict[str, Any]:
    """The linear layers that are adapted, by their full names, in the model's order."""
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in TARGETS}


def merge(model: Any, adapter: Adapter, first_token: int) -> None:
    """Add an adapter to a model's weights in torch, and its rating rows to the output layer.

    Args:
        first_token: the id of the first rating token; the others follow it.

    Raises:
        CheckpointError: it doesn't fit the model.
    """
    import torch

    layers, head = targets(model), model.get_output_embeddings().weight
    adapter.check({name: tuple(layer.weight.shape) for name, layer in layers.items()}, tuple(head.shape), first_token)
    with torch.no_grad():
        for name in adapter.pairs:
            weight = layers[name].weight
            weight += torch.from_numpy(adapter.update(name)).to(weight)
        model.set_output_embeddings(rating_head(head, torch.from_numpy(adapter.rows).to(head), first_token))


def rating_head(weight: torch.Tensor, rows: torch.Tensor, first_token: int) -> Any:
    """An output layer: logits of the base's tokens below `first_token`, then those of the rating tokens.

    Args:
        weight: the base's output embeddings, shape (vocabulary, width); used as it is, and not trained.
        rows: of the rating tokens, shape (n, width).
    """
    import torch
    from torch.nn.functional import linear

    class RatingHead(torch.nn.Module):  # type: ignore[misc]  # torch is not read by mypy here
        def __init__(self) -> None:
            super().__init__()
            # In a tuple it is no parameter of this layer: it stays the embeddings' own.
            self._base = (weight.detach()[:first_token],)
            self.rows = torch.nn.Parameter(rows)
            self.out_features = first_token + len(rows)

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
