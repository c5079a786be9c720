"""From a fine-tuned classifier to the two files that are served: an int8 ONNX graph and its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from routellm.embeddings.onnx import TOKENIZER
from routellm.routers.bert import MODEL, OnnxClassifier, win_rates
from routellm.training.bert_graph import write_graph
from routellm.training.bert_model import LICENCE, PromptClassifier, shape_of


def serving_offset(logits: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """The offset of the three logits at which the mean of softmax(logits + offset) is `rates`: float64, shape (3,).

    Training gives each source of data its own offset; a prompt that comes to be served has no source, and gets this one.

    Args:
        logits: shape (n, 3).
        rates: how often each class should occur, shape (3,), none of them 0.
    """
    offset = np.log(rates)
    for _ in range(200):
        powers = np.exp(logits + offset - (logits + offset).max(axis=1, keepdims=True))
        offset = offset + np.log(rates) - np.log((powers / powers.sum(axis=1, keepdims=True)).mean(axis=0))
    return np.asarray(offset - offset.mean())


def export_classifier(model: PromptClassifier, encoder: Path, offset: NDArray[np.float64], out: Path) -> dict[str, Path]:
    """Write the graph, with the offset in its last layer, the tokenizer, and the encoder's licence where it comes with one.

    Args:
        encoder: the folder that the encoder was loaded from.
        out: the folder to write to.

    Returns:
        Name of a file -> where it is.
    """
    with torch.no_grad():
        model.head.bias.copy_(torch.from_numpy(offset))
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    out.mkdir(parents=True, exist_ok=True)
    write_graph(weights, shape_of(model.encoder), out / MODEL)
    copied = [name for name in (TOKENIZER, LICENCE) if (encoder / name).is_file()]
    for name in copied:
        shutil.copyfile(encoder / name, out / name)
    return {name: out / name for name in (MODEL, *copied)}


def agreement(served: OnnxClassifier, prompts: list[str], exact: NDArray[np.float64]) -> dict[str, float]:
    """How near the served classifier comes to the one that was trained, on prompts.

    Args:
        exact: the trained classifier's logits, the offset included, shape (len(prompts), 3).

    Returns:
        The mean and the largest difference of the win rates, and their rank correlation.
    """
    ours, theirs = win_rates(served.logits(prompts)), win_rates(exact)
    ranks = np.array([np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (ours, theirs)])
    return {
        "int8_mean_difference": float(np.abs(ours - theirs).mean()),
        "int8_largest_difference": float(np.abs(ours - theirs).max()),
        "int8_rank_correlation": float(np.corrcoef(ranks)[0, 1]),
    }
