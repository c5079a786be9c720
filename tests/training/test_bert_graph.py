"""The graph that a fine-tuned encoder is served as, against the classifier in torch that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm.errors import CheckpointError
from routellm.training.bert_graph import Readout, Shape, quantise_columns, quantise_table, write_graph
from tests.conftest import require
from tests.embeddings.encoders import VOCABULARY, write_tokenizer

PROMPTS = [np.random.default_rng(length).integers(5, len(VOCABULARY), length).astype(np.int32) for length in range(3, 33)]


@pytest.fixture(autouse=True)
def libraries() -> None:
    for name in ("torch", "transformers", "onnx", "onnxruntime"):
        require(name)


def make_classifier(folder: Path, kind: str = "bert", **config: Any) -> Any:
    """A random classifier, whose encoder is saved to the folder and read back as the trainer reads it."""
    import torch
    import transformers

    from routellm.training.bert_model import PromptClassifier, load_encoder

    torch.manual_seed(0)
    settings = {
        "vocab_size": len(VOCABULARY), "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 40, "initializer_range": 0.05, **config,
    }  # fmt: skip
    made: Any = {"bert": transformers.BertModel, "roberta": transformers.RobertaModel, "ernie": transformers.ErnieModel}
    made[kind](made[kind].config_class(**settings)).save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    classifier = PromptClassifier(load_encoder(folder, None)).eval()
    torch.nn.init.normal_(classifier.head.weight)
    return classifier


def logits_of(classifier: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of `PROMPTS`, by torch."""
    import torch

    found = []
    with torch.inference_mode():
        for ids in PROMPTS:
            row = torch.from_numpy(ids.astype(np.int64))[None]
            found.append(classifier(row, torch.ones_like(row))[0].double().numpy())
    return np.array(found), np.std(found, axis=0)


def served(path: Path) -> np.ndarray[Any, Any]:
    """Of `PROMPTS`, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.array([session.run(["logits"], {"input_ids": ids.astype(np.int64)[None]})[0][0] for ids in PROMPTS])


def export(classifier: Any, encoder: Path, out: Path) -> np.ndarray[Any, Any]:
    from routellm.training.bert_export import export_classifier

    return served(
        export_classifier(classifier, encoder, classifier.head.bias.detach().double().numpy(), PROMPTS, out)["model.onnx"]
    )


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("bert", {}),
        ("bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "num_hidden_layers": 1}),
        ("bert", {"hidden_size": 16}),  # as many directions as the output has: the length is exact
        ("roberta", {"pad_token_id": 1}),  # its first two positions are no token's
    ],
)
def test_the_graph_says_what_the_classifier_says(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    classifier = make_classifier(tmp_path, kind, **config)
    exact, spread = logits_of(classifier)
    difference = np.abs(export(classifier, tmp_path, tmp_path / "out") - exact) / spread
    assert difference.mean() < 0.05
    assert difference.max() < 0.3


def test_the_length_of_the_last_output_comes_from_the_readout(tmp_path: Path) -> None:
    from routellm.training.bert_model import shape_of

    classifier = make_classifier(tmp_path)
    exact, spread = logits_of(classifier)
    weights = {name: tensor.detach().double().numpy() for name, tensor in classifier.state_dict().items()}
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(96, 3)))
    write_graph(weights, shape_of(classifier.encoder), Readout(basis, 0.0), tmp_path / "blind.onnx")
    assert (np.abs(served(tmp_path / "blind.onnx") - exact) / spread).mean() > 0.2
    write_graph(weights, shape_of(classifier.encoder), Readout(np.eye(96), 1e6), tmp_path / "long.onnx")
    assert (served(tmp_path / "long.onnx").std(axis=0) < 0.02 * spread).all()


def test_a_readout_of_all_directions_leaves_no_rest() -> None:
    random = np.random.default_rng(4)
    name = "encoder.encoder.layer.0.output"
    for width, rank in ((12, 12), (96, 16), (384, 64)):
        weights = {
            f"{name}.dense.weight": random.normal(size=(width, 200)), f"{name}.dense.bias": random.normal(size=width),
            f"{name}.LayerNorm.weight": random.normal(size=width), "head.weight": random.normal(size=(3, width)),
        }  # fmt: skip
        shape = Shape(layers=1, heads=1, activation="gelu", epsilon=1e-12)
        readout = Readout.fit(weights, shape, random.normal(size=(300, width)), random.normal(size=(300, 200)))
        assert readout.basis.shape == (width, rank)
        np.testing.assert_allclose(readout.basis.T @ readout.basis, np.eye(rank), atol=1e-9)
        directions = weights[f"{name}.LayerNorm.weight"][:, None] * weights["head.weight"].T
        directions -= directions.mean(axis=0)
        np.testing.assert_allclose(readout.basis @ (readout.basis.T @ directions), directions, atol=1e-9)
        assert (abs(readout.rest) < 1e-9) == (rank == width)


def test_matrices_and_tables_are_rounded_to_the_nearest_of_their_steps() -> None:
    matrix = np.random.default_rng(1).normal(size=(40, 6)) * np.array([1e-3, 1.0, 5.0, 0.2, 30.0, 0.0])
    codes, scale, zero = quantise_columns(matrix)
    assert np.abs(codes).max(axis=0).tolist() == [64, 64, 64, 64, 64, 0]
    assert not zero.any()
    assert (np.abs(codes * scale - matrix) <= 0.5001 * scale).all()
    for table in (matrix, matrix + 100.0, np.zeros((2, 2))):
        rows, step, middle = quantise_table(table)
        assert (np.abs((rows.astype(np.float64) - middle) * step - table) <= 0.5001 * step).all()


@pytest.mark.parametrize(
    ("kind", "config", "named"),
    [
        ("ernie", {"use_task_id": True}, r"of its parameters embeddings\.task_type_embeddings\.weight are not shared by both"),
        ("bert", {"hidden_act": "silu"}, "has the activation 'silu'; it must be one of: gelu"),
    ],
)
def test_an_encoder_that_computes_otherwise_is_refused(tmp_path: Path, kind: str, config: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        make_classifier(tmp_path, kind, **config)
