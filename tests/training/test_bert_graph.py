"""The graph that a fine-tuned encoder is served as, against the classifier in torch that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from routellm.errors import CheckpointError
from routellm.training.bert_graph import quantise_columns, quantise_table
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


Outputs: TypeAlias = dict[str, np.ndarray[Any, Any]]
"""Of `PROMPTS`, by name of the graph's output, with one row a prompt."""


def exact(classifier: Any) -> Outputs:
    """By torch: the logits, and what its last layer reads."""
    import torch

    logits: list[np.ndarray[Any, Any]] = []
    pooled: list[np.ndarray[Any, Any]] = []
    hook = classifier.head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0][0].double().numpy()))
    with torch.inference_mode():
        for ids in PROMPTS:
            row = torch.from_numpy(ids.astype(np.int64))[None]
            logits.append(classifier(row, torch.ones_like(row))[0].double().numpy())
    hook.remove()
    return {"logits": np.array(logits), "sentence_embedding": np.array(pooled)}


def served(classifier: Any, encoder: Path, out: Path) -> Outputs:
    """By onnxruntime, of the exported graph."""
    import onnxruntime

    from routellm.training.bert_export import export_classifier

    files = export_classifier(classifier, encoder, classifier.head.bias.detach().double().numpy(), out)
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(names, {"input_ids": ids.astype(np.int64)[None]}) for ids in PROMPTS]
    assert all(output.shape[0] == 1 and output.dtype == np.float32 for row in rows for output in row)
    return {name: np.array([row[place][0] for row in rows]) for place, name in enumerate(names)}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("bert", {}),
        ("bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "num_hidden_layers": 1}),
        ("bert", {"hidden_size": 16}),
        ("roberta", {"pad_token_id": 1}),  # its first two positions are no token's
    ],
)
def test_the_graph_says_what_the_classifier_says(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    classifier = make_classifier(tmp_path, kind, **config)
    wanted, found = exact(classifier), served(classifier, tmp_path, tmp_path / "out")
    assert list(found) == ["logits", "sentence_embedding"]
    assert found["sentence_embedding"].shape == (len(PROMPTS), config.get("hidden_size", 96))
    for name, rows in wanted.items():
        difference = np.abs(found[name] - rows) / rows.std(axis=0)
        assert difference.mean() < 0.05, name
        assert difference.max() < 0.3, name


def test_the_logits_are_read_from_the_vector_that_is_given_beside_them(tmp_path: Path) -> None:
    classifier = make_classifier(tmp_path)
    found = served(classifier, tmp_path, tmp_path / "out")
    weight, bias = (parameter.detach().numpy() for parameter in (classifier.head.weight, classifier.head.bias))
    np.testing.assert_allclose(found["sentence_embedding"] @ weight.T + bias, found["logits"], atol=1e-4)


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
