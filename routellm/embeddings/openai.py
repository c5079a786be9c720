"""Vectors from OpenAI, or from any endpoint that answers `/v1/embeddings` as OpenAI does."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from routellm.config import read_environment
from routellm.embeddings.base import Embedder, Vector, valid_utf8
from routellm.embeddings.cache import SqliteVectorCache, VectorCache
from routellm.errors import ConfigError, EmbeddingError, MissingKeyError

if TYPE_CHECKING:
    from openai import OpenAI

OPENAI_BASE_URL = "https://api.openai.com/v1"

NATURAL_DIMS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""OpenAI's models and the widths that they give unasked."""

_REQUEST_BYTES = 300_000  # OpenAI takes 300,000 tokens a request, and no token is shorter than a byte


class OpenAIEmbedder(Embedder):
    """Asks an endpoint for vectors, in batches, each distinct text once.

    A text of white space alone, which OpenAI refuses, has a vector of zeros. Safe to share between threads.

    Args:
        model: the model's name at the endpoint.
        dim: the width of a vector. OpenAI's third-generation models shorten their vectors to it; of any other model it must
            be the natural width. None takes the natural width; where that is not known, the first use asks the endpoint.
        base_url: the endpoint, up to and with `/v1`; None for the variable OPENAI_BASE_URL, or else OpenAI's own.
        api_key: None takes the variable OPENAI_API_KEY, but not for a `base_url` on another host than OpenAI's: nobody else
            gets a key that was not given for them.
        timeout: seconds that one request may take.
        max_retries: how often a request is repeated after a failed connection, a 429 or a 5xx, with growing pauses.
        batch_size: texts in one request, at most.
        max_bytes: longer texts are cut after so many bytes of UTF-8. The default never goes over the 8,191 tokens that
            OpenAI's models take, whatever the script, since no token is shorter than a byte.
        cache: True for a cache in the user's cache folder, a path for one elsewhere, or a `VectorCache`.

    Raises:
        ConfigError: an argument is out of range.
        MissingKeyError: no key is known for OpenAI's own endpoint.
    """

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dim: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        batch_size: int = 256,
        max_bytes: int = 8191,
        cache: bool | str | Path | VectorCache | None = None,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise ConfigError(f"The embedding model is {model!r}; it must be a name such as 'text-embedding-3-small'.")
        _check_number("timeout", timeout, 0.001, whole=False)
        for name, value, least in (("max_retries", max_retries, 0), ("batch_size", batch_size, 1), ("max_bytes", max_bytes, 1)):
            _check_number(name, value, least)
        if dim is not None:
            _check_number("dim", dim, 1)
        self.model = model
        self.base_url, self._key = _endpoint(base_url, api_key)
        self._dim, self._dimensions = _widths(model, dim)
        self._timeout, self._max_retries = timeout, max_retries
        self._batch_size, self._max_bytes = batch_size, max_bytes
        self._cache = _open_cache(cache)
        self._client: OpenAI | None = None
        self._lock = threading.Lock()
        self.fingerprint = f"openai:{model}" if self._dimensions is None else f"openai:{model}:{self._dimensions}"

    @property
    def dim(self) -> int:  # type: ignore[override]  # of most models it is known only from an answer
        """The width of a vector. May ask the endpoint, once."""
        if self._dim is None:
            self._embed_texts(["a"])
        assert self._dim is not None
        return self._dim

    def embed_batch(self, prompts: Sequence[str]) -> Vector:
        texts = [self._cut(prompt) for prompt in prompts]
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        vectors = self._embed_texts(distinct) if distinct else {}
        nothing = np.zeros(self.dim, dtype=np.float32)
        return np.array([vectors.get(text, nothing) for text in texts], dtype=np.float32).reshape(len(texts), self.dim)

    def close(self) -> None:
        """Close pooled connections. The embedder can still be used."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _cut(self, prompt: str) -> str:
        data = valid_utf8(prompt[: self._max_bytes]).encode()
        return data[: self._max_bytes].decode("utf-8", "ignore")

    def _embed_texts(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Vectors of distinct texts, from the cache or else from the endpoint."""
        if self._cache is None:
            return self._ask(texts)
        keys = {text: self._cache_key(text) for text in texts}
        known = self._cache.get_many(list(keys.values()))
        found = {text: known[key] for text, key in keys.items() if key in known and known[key].shape == (self.dim,)}
        asked = self._ask([text for text in texts if text not in found])
        if asked:
            self._cache.put_many({keys[text]: vector for text, vector in asked.items()})
        return found | asked
