"""Make a folder for the onnx embedder from the pinned weights of all-MiniLM-L6-v2.

::

    python -m routellm.training.onnx_export --model DIR --out minilm-int8 --int8

Writes model.onnx, tokenizer.json, LICENSE where the source has one, and export.json: source, licence, hashes, and the cosines
to the original on a few sentences. Float32 is exact (90 MB); int8 weights (23 MB) run 1.4 times as fast at a cosine of .99.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.downloads import sha256
from routellm.embeddings.onnx import TOKENIZER, OnnxEmbedder
from routellm.errors import MissingExtraError, RouteLLMError
from routellm.training.pinned import SOURCE, check_pinned

MODEL = "model.onnx"
OPSET = 18
SENTENCES = (
    "Hi",
    "What is the capital of Australia?",
    "Write a Python function that returns the n-th Fibonacci number in O(log n) time, and explain why it works.",
    "A train leaves at 14:05 and arrives at 17:50. Its average speed is 96 km/h. How far does it go?\nA. 300 km\nB. 360 km",
    "Traduisez en anglais : « Le vif renard brun saute par-dessus le chien paresseux. »",
    "请用三句话总结《红楼梦》的主要情节。",
)


def export(model: Path, out: Path, *, int8: bool) -> dict[str, Any]:
    """Write the folder `out`; returns what export.json holds.

    Raises:
        CheckpointError: `model` does not hold the pinned files.
        MissingExtraError: torch, transformers, onnx, onnxscript or onnxruntime is not installed.
    """
    check_pinned(model)
    encoder = _load_encoder(model)
    out.mkdir(parents=True, exist_ok=True)
    (out / "export.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        exported = Path(scratch) / MODEL
        write_onnx(_hidden_states(encoder), exported, "last_hidden_state")
        if int8:
            exported = quantise(exported)
        drop_traces(exported)
        exported.replace(out / MODEL)
    for name in (TOKENIZER, "LICENSE"):
        if (model / name).is_file():
            shutil.copyfile(model / name, out / name)
    report = {
        "source": SOURCE,
        "weights": "int8" if int8 else "float32",
        "sha256": {name: sha256(out / name) for name in (MODEL, TOKENIZER)},
        "cosine_to_source": dict(zip(SENTENCES, _cosines(encoder, out), strict=True)),
    }
    (out / "export.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _load_encoder(model: Path) -> Any:
    try:
        import onnx  # noqa: F401 - both exporters need it
        import onnxruntime  # noqa: F401 - quantises, and checks the result
        import onnxscript  # noqa: F401 - torch exports through it
        import torch
        from transformers import AutoModel
    except ImportError as error:
        raise MissingExtraError("The ONNX export", "distill") from error
    return AutoModel.from_pretrained(
        model, local_files_only=True, dtype=torch.float32, attn_implementation="eager", add_pooling_layer=False
    ).eval()


def _hidden_states(encoder: Any) -> Any:
    """The encoder as a module of ids and mask alone."""
    import torch

    class HiddenStates(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            types = torch.zeros_like(input_ids)
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types).last_hidden_state

    return HiddenStates()


def write_onnx(module: Any, path: Path, output: str) -> None:
    """Export a module that takes `input_ids` and `attention_mask`, both int64 of shape (prompts, tokens), as float32.

    Args:
        output: the name that its output gets.
    """
    import torch

    # Two different tensors: the exporter takes one tensor given twice for one input.
    ids, mask = torch.arange(14).reshape(2, 7), torch.ones(2, 7, dtype=torch.int64)
    free = {0: torch.export.Dim("prompts"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        module,
        (ids, mask),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=[output],
        dynamic_shapes={"input_ids": free, "attention_mask": free},
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def quantise(path: Path) -> Path:
    """Write the model beside itself with int8 weights, whose activations are quantised as it runs; returns where."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = path.with_name("int8.onnx")
    # One scale a column keeps the cosine at .993 where one a matrix gives .95; the reduced range costs nothing and keeps
    # processors without VNNI from saturating.
    quantize_dynamic(path, quantised, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    return quantised


def drop_traces(path: Path) -> None:
    """Take out what the exporter notes of the Python code behind each node, paths of this machine included."""
    import onnx

    model = onnx.load(path)
    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        del part.metadata_props[:]
    onnx.save(model, path)


def _cosines(encoder: Any, out: Path) -> list[float]:
    """Cosine of the exported model's vectors to torch's, for each of `SENTENCES`."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    ours: NDArray[np.float32] = OnnxEmbedder(out).embed_batch(SENTENCES)
    cosines = []
    for sentence, vector in zip(SENTENCES, ours, strict=True):
        ids = torch.tensor([tokenizer.encode(sentence).ids])
        with torch.inference_mode():
            hidden = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        theirs = hidden.mean(dim=0).numpy()
        cosines.append(round(float(vector @ theirs / np.linalg.norm(theirs)), 6))
    return cosines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m routellm.training.onnx_export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder with the pinned weights of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--int8", action="store_true", help="quantise the weights to 8 bits")
    options = parser.parse_args(arguments)
    try:
        report = export(options.model, options.out, int8=options.int8)
    except RouteLLMError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    worst = min(report["cosine_to_source"].values())
    size = (options.out / MODEL).stat().st_size / 1e6
    sys.stdout.write(f"Wrote {options.out}: {report['weights']}, {size:.0f} MB, least cosine to the source {worst:.4f}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
