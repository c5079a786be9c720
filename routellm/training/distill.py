"""Make the bundled static token table from the pinned weights of all-MiniLM-L6-v2 and a language model's states of prompts.

::

    python -m routellm.training.language_states --prompts prompts.jsonl --output states.parquet
    python -m routellm.training.distill --model DIR --states states.parquet --out routellm/embeddings/data

Three things are known of each token of the vocabulary, and `token_table` makes one row of them. Two are the encoder's: what
it makes of the token on its own, mean-pooled, reduced to 256 dimensions by principal components and weighted by the smooth
inverse of its frequency, which Zipf's law estimates from its place in the vocabulary (Minish's `model2vec`); and its input
embedding. The third is what the token adds to a prediction of the language model's states. A prompt's vector is then a sum of
table rows. Takes a minute or two on one core, once there are states.

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

from routellm.downloads import sha256
from routellm.embeddings.base import Vector
from routellm.embeddings.table import MANIFEST, TABLE, TOKENIZER, write_table
from routellm.embeddings.wordpiece import WordPiece
from routellm.errors import MissingExtraError, RouteLLMError
from routellm.training.language_states import States, read_states
from routellm.training.pinned import SOURCE, check_pinned
from routellm.training.token_table import STATE_COMPONENTS, Means, explained, join, predict_states

DIM = 256
SIF_COEFFICIENT = 1e-4
_POSITIONS = 64
"""Input embeddings are those at an average position among so many."""


def distil(model: Path, states: States) -> tuple[Vector, str, float]:
    """Token vectors, float32, shape (tokens, 256); the text of the tokenizer whose ids index them; and the share of the
    states' variance that means of token vectors explain on prompts that they were not fitted to.

    Raises:
        MissingExtraError: model2vec, threadpoolctl, torch, transformers or scipy is not installed.
    """
    sentence, tokenizer = sentence_vectors(model)
    pieces = WordPiece(tokenizer)
    means = Means([np.frombuffer(pieces.packed_ids(prompt), dtype=np.intp) for prompt in states.prompts], len(sentence))
    inputs = input_vectors(model, tokenizer)
    components = states.components(STATE_COMPONENTS)
    state, _ = predict_states(means, inputs, components)
    return join(means, (sentence, inputs, state), DIM), tokenizer, explained(means, inputs, components)


def input_vectors(model: Path, tokenizer: str) -> Vector:
    """The encoder's input embeddings of the tokenizer's tokens, float32, shape (tokens, width)."""
    from safetensors.numpy import load_file

    weights = {name.removeprefix("bert."): tensor for name, tensor in load_file(model / "model.safetensors").items()}
    places: dict[str, int] = json.loads((model / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
    vocabulary: dict[str, int] = json.loads(tokenizer)["model"]["vocab"]
    rows = [places[token] for token in sorted(vocabulary, key=lambda token: vocabulary[token])]
    vectors = weights["embeddings.word_embeddings.weight"][rows].astype(np.float32)
    vectors += weights["embeddings.token_type_embeddings.weight"][0]
    vectors += weights["embeddings.position_embeddings.weight"][:_POSITIONS].mean(axis=0)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.sqrt(np.square(vectors).mean(axis=1, keepdims=True) + 1e-12)
    gain, shift = (weights[f"embeddings.LayerNorm.{name}"] for name in ("weight", "bias"))
    return np.asarray(vectors * gain + shift, dtype=np.float32)


def sentence_vectors(model: Path) -> tuple[Vector, str]:
    """What the encoder makes of each token alone, float32, shape (tokens, 256), and the text of the tokenizer.

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
    parser.add_argument(
        "--states", required=True, metavar="FILE", help="as `python -m routellm.training.language_states` wrote it"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, such as routellm/embeddings/data")
    options = parser.parse_args(arguments)
    try:
        check_pinned(options.model)
        states = read_states(options.states)
        vectors, tokenizer, share = distil(options.model, states)
    except RouteLLMError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    about = {
        "method": f"model2vec (SIF {SIF_COEFFICIENT}), input embeddings and predicted states; {DIM} principal components",
        "source": SOURCE,
        "states": {"prompts": len(states.prompts), "sha256": sha256(Path(options.states)), "explained": round(share, 4)},
    }
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
