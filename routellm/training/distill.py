"""Make the bundled static token table from the pinned weights of all-MiniLM-L6-v2.

::

    python -m routellm.training.distill --model DIR --out routellm/embeddings/data

Each token of the vocabulary goes through the encoder on its own; its mean-pooled vector is reduced to 256 dimensions by
principal components and weighted by the smooth inverse of its frequency, which Zipf's law estimates from its place in the
vocabulary (Minish's `model2vec`). A prompt's vector is then a sum of table rows. Takes about a minute on one core.

The result depends on no seed: nothing in it is drawn at random, and one thread adds in one order. Another version of a
library, or another processor, may still round a few values in a hundred thousand the other way.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routellm.embeddings.table import MANIFEST, TABLE, TOKENIZER, write_table
from routellm.errors import MissingExtraError, RouteLLMError
from routellm.training.pinned import SOURCE, check_pinned

DIM = 256
SIF_COEFFICIENT = 1e-4


def distil(model: Path) -> tuple[NDArray[np.float32], str]:
    """Token vectors, float32, shape (tokens, 256), and the text of the tokenizer whose ids index them.

    Raises:
        MissingExtraError: model2vec, threadpoolctl, torch or transformers is not installed.
    """
    try:
        import torch
        from model2vec.distill.distillation import distill_from_model
        from threadpoolctl import threadpool_limits
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("Distilling the static table", "distill") from error

    torch.set_num_threads(1)
    with threadpool_limits(1):  # numpy's, for the principal components
        static = distill_from_model(
            AutoModel.from_pretrained(model, local_files_only=True, dtype=torch.float32),
            AutoTokenizer.from_pretrained(model, local_files_only=True),
            device="cpu",
            pca_dims=DIM,
            sif_coefficient=SIF_COEFFICIENT,
            quantize_to="float32",
        )
    return np.asarray(static.embedding, dtype=np.float32), plain_tokenizer(json.loads(static.tokenizer.to_str()))


def plain_tokenizer(description: dict[str, Any]) -> str:
    """The JSON of a tokenizer that only splits text: no padding, no truncation, no special tokens.

    Without special tokens, a prompt that spells one out ("[PAD]") is text like any other.
    """
    description |= {"truncation": None, "padding": None, "added_tokens": [], "post_processor": None, "decoder": None}
    return json.dumps(description, ensure_ascii=False, separators=(",", ":"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m routellm.training.distill", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder with the pinned weights of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, such as routellm/embeddings/data")
    options = parser.parse_args(arguments)
    try:
        check_pinned(options.model)
        vectors, tokenizer = distil(options.model)
    except RouteLLMError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    about = {"method": f"model2vec, {DIM} principal components, SIF {SIF_COEFFICIENT}", "source": SOURCE}
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as scratch:
        write_table(Path(scratch), vectors, tokenizer, about)
        for name in (TABLE, TOKENIZER, MANIFEST):
            (Path(scratch) / name).replace(options.out / name)
    size = (options.out / TABLE).stat().st_size
    sys.stdout.write(f"Wrote {options.out}: {len(vectors):,} tokens x {DIM}, {size / 1e6:.1f} MB.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
