"""Three-way classifiers small enough to be made within a test, in both formats that the router `bert` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from routellm.calibration.quantiles import ScoreQuantiles
from routellm.routers.checkpoint import save_checkpoint
from tests.conftest import require
from tests.embeddings.encoders import VOCABULARY, embedding_rows, write_tokenizer

QUANTILES = ScoreQuantiles(tuple(np.linspace(0.1, 0.9, 1001).tolist()), "a test", 1001)
MAX_LENGTH, MAX_POSITIONS = 12, 20


def token_logits(labels: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What each token says, shape (tokens, labels); a prompt's logits are the mean over its tokens."""
    return np.random.default_rng(5).normal(0.0, 3.0, (len(VOCABULARY), labels)).astype(np.float32)


def write_checkpoint(folder: Path, *, labels: int = 3, encodes: bool = True, **meta: Any) -> Path:
    """A checkpoint as the trainer writes it; `encodes`: with the output that the embedder `bert` reads."""
    scratch = folder.with_name(f"{folder.name}-files")
    scratch.mkdir(parents=True)
    write_graph(scratch / "model.onnx", token_logits(labels), embedding_rows() if encodes else None)
    write_tokenizer(scratch / "tokenizer.json")
    files = {path.name: path for path in scratch.iterdir()}
    fields = {"max_length": MAX_LENGTH, "max_positions": MAX_POSITIONS, **meta}
    return save_checkpoint(folder, "bert", {}, fields, QUANTILES, files)


def write_graph(path: Path, rows: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any] | None = None) -> None:
    """An ONNX classifier of input_ids that looks each token up in `rows` and takes the mean; with `vectors`, shape
    (tokens, width), it gives their mean as well."""
    onnx = require("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    tables = {"logits": rows} if vectors is None else {"logits": rows, "sentence_embedding": vectors}
    nodes = []
    for output in tables:
        nodes.append(helper.make_node("Gather", [f"rows of {output}", "input_ids"], [f"each of {output}"]))
        nodes.append(helper.make_node("ReduceMean", [f"each of {output}"], [output], axes=[1], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input_ids", types.INT64, ["prompts", "tokens"])],
        [helper.make_tensor_value_info(output, types.FLOAT, ["prompts", table.shape[1]]) for output, table in tables.items()],
        [onnx.numpy_helper.from_array(table, f"rows of {output}") for output, table in tables.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_transformers(folder: Path, *, labels: int = 3) -> Any:
    """A folder with a random XLM-RoBERTa classifier as transformers saves it; returns the model."""
    torch, transformers = require("torch"), require("transformers")
    torch.manual_seed(3)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=34, type_vocab_size=1, pad_token_id=0, bos_token_id=2, eos_token_id=3, num_labels=labels,
        initializer_range=0.5,
    )  # fmt: skip
    model = transformers.XLMRobertaForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special).save_pretrained(folder)
    return model
