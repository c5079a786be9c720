"""What an embedder is, and the names that configurations use for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routellm.registry import Registry

Vector: TypeAlias = NDArray[np.float32]


class Embedder(ABC):
    """Turns prompts into vectors.

    Any Python string is a valid prompt: an empty one, one with lone surrogates or NUL bytes, a megabyte of text.

    Attributes:
        dim: the width of a vector.
        fingerprint: identifies the exact function that this embedder computes (a file's hash, a remote model's name). A
            checkpoint records it, so that a router never scores vectors of another embedder than it was trained on.
        blocking: whether a call may take over a millisecond (a network round trip, an encoder): a server then keeps it off
            its event loop.
    """

    dim: int
    fingerprint: str
    blocking: bool = True

    @abstractmethod
    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        """Embed prompts.

        Returns:
            float32, shape (len(prompts), dim), rows in the order of the prompts. No prompts give shape (0, dim).

        Raises:
            EmbeddingError: a remote endpoint failed or answered with something else.
        """

    def embed(self, prompt: str) -> Vector:
        """Embed one prompt: float32, shape (dim,). Equal to the row that `embed_batch` gives."""
        vector: Vector = self.embed_batch([prompt])[0]
        return vector


EMBEDDERS: Registry[Embedder] = Registry(
    "embedder",
    "routellm.embedders",
    {
        "static": "routellm.embeddings.static:StaticEmbedder",
        "bert": "routellm.routers.bert:BertEmbedder",
        "onnx": "routellm.embeddings.onnx:OnnxEmbedder",
        "openai": "routellm.embeddings.openai:OpenAIEmbedder",
    },
)


def valid_utf8(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer or wire format takes, replaced by '?'."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
