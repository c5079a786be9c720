"""A tiny encoder as an ONNX file, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.conftest import require

WIDTH = 8
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{chr(97 + letter): 4 + letter for letter in range(26)}}
VOCABULARY |= {f"##{letter}": len(VOCABULARY) + place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}


def embedding_rows() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What the encoder gives for each token, whatever stands around it: shape (tokens, WIDTH)."""
    return np.random.default_rng(0).standard_normal((len(VOCABULARY), WIDTH)).astype(np.float32)


def write_tokenizer(path: Path) -> None:
    """A BERT-like tokenizer with fixed padding and a short truncation, as the files on the hub have them."""
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    )
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(16)
    tokenizer.save(str(path))


def write_encoder(folder: Path, *, name: str = "model.onnx", output: str = "last_hidden_state", pooled: bool = False) -> Path:
    """A folder with an encoder that looks each token up; `pooled` gives the mean over tokens instead, which is no encoder."""
    onnx = require("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Gather", ["rows", "input_ids"], ["hidden" if pooled else output])]
    if pooled:
        nodes.append(helper.make_node("ReduceMean", ["hidden"], [output], axes=[1], keepdims=0))
    # The mask is asked for, as real encoders do, and only passed through.
    nodes.append(helper.make_node("Identity", ["attention_mask"], ["mask"]))
    free = ["prompts", "tokens"]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(each, types.INT64, free) for each in ("input_ids", "attention_mask")],
        [
            helper.make_tensor_value_info(output, types.FLOAT, [free[0], WIDTH] if pooled else [*free, WIDTH]),
            helper.make_tensor_value_info("mask", types.INT64, free),
        ],
        [onnx.numpy_helper.from_array(embedding_rows(), "rows")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / name)
    write_tokenizer(folder / "tokenizer.json")
    return folder
