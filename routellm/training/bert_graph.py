"""The ONNX graph that a fine-tuned encoder is served as: 8-bit weights, and onnxruntime's own operators for the rest.

Written node by node, since what an exporter makes of the encoder's code pads, masks and reshapes for batches that are never
served: prompts go through it one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from routellm.routers.bert import LOGITS, VECTOR

Array: TypeAlias = NDArray[np.floating[Any]]
Weights: TypeAlias = Mapping[str, Array]
"""A `PromptClassifier`'s parameters by name."""

INPUT = "input_ids"
OPERATORS = "com.microsoft"
ACTIVATIONS = {"gelu": "Gelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu", "gelu_fast": "FastGelu"}
"""What transformers calls an activation -> the operator that computes it."""

_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_QUERY, _KEY, _VALUE = (f"attention.self.{name}" for name in ("query", "key", "value"))
_DENSE = (_QUERY, _KEY, _VALUE, "attention.output.dense", "intermediate.dense", "output.dense")
_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
_OPSET, _IR = 18, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the weights don't say of an encoder.

    Attributes:
        layers, heads: how many.
        activation: one of `ACTIVATIONS`.
        epsilon: of its normalisations.
        first_position: the row of the position table that the first token gets.
    """

    layers: int
    heads: int
    activation: str
    epsilon: float
    first_position: int = 0


def parameter_names(layers: int) -> set[str]:
    """The names of the parameters of an encoder that can be served, without the prefix `encoder.`."""
    embeddings = {f"embeddings.{name}.weight" for name in _EMBEDDINGS}
    parts = {f"encoder.layer.{layer}.{part}" for layer in range(layers) for part in (*_DENSE, *_NORMS)}
    return embeddings | {f"{part}.{kind}" for part in (*parts, "embeddings.LayerNorm") for kind in ("weight", "bias")}


def write_graph(weights: Weights, shape: Shape, path: Path) -> None:
    """Write the graph: `input_ids`, int64 of shape (1, tokens), to `logits`, float32 of shape (1, 3), and to what these are
    read from, the mean of the last hidden states, `sentence_embedding`, float32 of shape (1, width)."""
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    hidden = _embed(graph, weights, shape)
    for layer in range(shape.layers):
        name = f"encoder.encoder.layer.{layer}"
        attended = _attend(graph, weights, shape, name, hidden)
        wide = graph.dense(attended, *_linear(weights, f"{name}.intermediate.dense"))
        active = graph.add(ACTIVATIONS[shape.activation], [wide], domain=OPERATORS)
        out = graph.dense(active, *_linear(weights, f"{name}.output.dense"))
        hidden = graph.normalise([out, attended], weights, f"{name}.output.LayerNorm", shape.epsilon)
    pooled = graph.add("ReduceMean", [hidden, graph.axes(1)], keepdims=0, name=VECTOR)
    matrix, bias = _linear(weights, "head")
    graph.add("Add", [graph.add("MatMul", [pooled, graph.floats(matrix)]), graph.floats(bias)], name=LOGITS)
    made = helper.make_graph(
        graph.nodes,
        "classifier",
        [helper.make_tensor_value_info(INPUT, TensorProto.INT64, [1, "tokens"])],
        [
            helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [1, len(bias)]),
            helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, [1, len(matrix)]),
        ],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(OPERATORS, 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=_IR), path)


class _Graph:
    """Nodes and constants, in the making. Tensors are told apart by numbered names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def floats(self, value: Array | float) -> str:
        return self.constant(np.asarray(value, dtype=np.float32))

    def quantised(self, parts: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> list[str]:
        return [self.constant(part) for part in parts]

    def axes(self, *axes: int) -> str:
        return self.constant(np.array(axes, dtype=np.int64))

    def add(self, operator: str, inputs: Sequence[str], *, outputs: int = 1, name: str = "", **attributes: Any) -> str:
        """Add a node; its outputs are called by its name, the second and later ones with a number behind it."""
        from onnx import helper

        name = name or f"{operator}_{len(self.nodes)}"
        names = [name, *(f"{name}:{place}" for place in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return name

    def dense(self, rows: str, matrix: Array, bias: Array | None = None) -> str:
        """`rows` @ `matrix` + `bias` in 8 bits: the range of `rows` is measured as it runs."""
        inputs = [rows, *self.quantised(quantise_columns(matrix))]
        return self.add("DynamicQuantizeMatMul", inputs + ([] if bias is None else [self.floats(bias)]), domain=OPERATORS)

    def normalise(self, terms: Sequence[str], weights: Weights, name: str, epsilon: float) -> str:
        scale, shift = (self.floats(weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return self.add("LayerNormalization", [self.add("Add", terms), scale, shift], axis=-1, epsilon=epsilon)


def quantise_columns(matrix: Array) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int8]]:
    """The matrix as 8-bit integers, one scale a column, and zero points, which are all 0.

    One scale a column keeps the cosine of MiniLM's vectors at .993 where one a matrix gives .95. Integers from -64 to 64 cost
    nothing in accuracy and keep processors without VNNI from saturating.
    """
    scale = np.abs(matrix).max(axis=0) / 64.0
    scale[scale == 0.0] = 1.0
    return np.round(matrix / scale).astype(np.int8), scale.astype(np.float32), np.zeros(len(scale), dtype=np.int8)


def quantise_table(table: Array) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """The table as 8-bit integers, its scale and its zero point."""
    low, high = min(0.0, float(table.min())), max(0.0, float(table.max()))
    scale = (high - low) / 255.0 or 1.0
    zero = round(-low / scale)
    codes = np.clip(np.round(table / scale) + zero, 0, 255).astype(np.uint8)
    return codes, np.array(scale, dtype=np.float32), np.array(zero, dtype=np.uint8)


def _linear(weights: Weights, name: str) -> tuple[Array, Array]:
    return weights[f"{name}.weight"].T, weights[f"{name}.bias"]


def _embed(graph: _Graph, weights: Weights, shape: Shape) -> str:
    words, positions, types = (weights[f"encoder.embeddings.{name}.weight"] for name in _EMBEDDINGS)
    codes, scale, zero = graph.quantised(quantise_table(words))
    word = graph.add("DequantizeLinear", [graph.add("Gather", [codes, INPUT]), scale, zero])
    # A prompt is all of one type, so that type's vector may as well stand in the table of positions.
    places = graph.floats(positions[shape.first_position :] + types[0])
    length = graph.add("Shape", [INPUT], start=1, end=2)
    place = graph.add("Slice", [places, graph.axes(0), length, graph.axes(0)])
    return graph.normalise([word, place], weights, "encoder.embeddings.LayerNorm", shape.epsilon)


def _attend(graph: _Graph, weights: Weights, shape: Shape, name: str, hidden: str) -> str:
    """Self-attention with what follows it up to the feed-forward network."""
    linear = [_linear(weights, f"{name}.{part}") for part in (_QUERY, _KEY, _VALUE)]
    codes, scales, zeros = graph.quantised(quantise_columns(np.hstack([matrix for matrix, _ in linear])))
    bias = graph.floats(np.concatenate([bias for _, bias in linear]))
    rows = graph.add("DynamicQuantizeLinear", [hidden], outputs=3)
    attention = graph.add(
        "QAttention",
        [rows, codes, bias, f"{rows}:1", scales, "", f"{rows}:2", zeros],
        domain=OPERATORS,
        num_heads=shape.heads,
    )
    out = graph.dense(attention, *_linear(weights, f"{name}.attention.output.dense"))
    return graph.normalise([out, hidden], weights, f"{name}.attention.output.LayerNorm", shape.epsilon)
