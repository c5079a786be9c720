"""Vectors from OpenAI, or from any endpoint that answers `/v1/embeddings` as OpenAI does."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
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


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int


class _Answer(msgspec.Struct):
    data: list[_Item]


_decode_answer = msgspec.json.Decoder(_Answer).decode


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
        for name, value, least in (
            ("max_retries", max_retries, 0),
            ("batch_size", batch_size, 1),
            ("max_bytes", max_bytes, 1),
        ):
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
            self._ask(["a"])
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

    def _cache_key(self, text: str) -> bytes:
        return hashlib.sha256(msgspec.json.encode([self.model, self._dimensions, self.base_url, text])).digest()

    def _ask(self, texts: Sequence[str]) -> dict[str, Vector]:
        answers: dict[str, Vector] = {}
        for batch in _batches(texts, self._batch_size):
            answers.update(zip(batch, self._read(self._request(batch), len(batch)), strict=True))
        return answers

    def _request(self, texts: Sequence[str]) -> bytes:
        """The body of the endpoint's answer."""
        import openai

        # Floats rather than base64, which not every compatible endpoint knows.
        arguments: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        if self._dimensions is not None:
            arguments["dimensions"] = self._dimensions
        if self._key is None:
            arguments["extra_headers"] = {"Authorization": openai.omit}
        try:
            return bytes(self._open().embeddings.with_raw_response.create(**arguments).content)
        except openai.APIStatusError as error:
            # Not chained: an endpoint may quote the key that it refuses.
            raise self._error(f"answered with status {error.status_code}: {self._without_key(error.message)}") from None
        except openai.APITimeoutError:
            raise self._error(f"did not answer within {self._timeout:g} seconds (timeout=)") from None
        except openai.OpenAIError as error:
            raise self._error(f"can't be reached: {self._without_key(str(error.__cause__ or error))}") from None

    def _read(self, body: bytes, count: int) -> Vector:
        """The vectors of an answer, in the order of the texts: float32, shape (count, dim)."""
        try:
            items = _decode_answer(body).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._error(f"answered with something else than a list of embeddings: {error}") from error
        if sorted(item.index for item in items) != list(range(count)):
            raise self._error(f"answered {count} texts with {len(items)} embeddings, or numbered them wrongly")
        items.sort(key=lambda item: item.index)
        width = len(items[0].embedding) if self._dim is None else self._dim
        found = sorted({len(item.embedding) for item in items})
        if found != [width] or width == 0:
            raise self._error(
                f"answered with vectors of {' and '.join(map(str, found))} dimensions instead of {width or 'some'}"
            )
        with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused
            vectors = np.array([item.embedding for item in items], dtype=np.float64).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise self._error("answered with a number that is not finite")
        self._dim = width
        return vectors

    def _open(self) -> OpenAI:
        with self._lock:
            if self._client is None:
                self._client = _open_client(self.base_url, self._key, self._timeout, self._max_retries)
            return self._client

    def _error(self, what: str) -> EmbeddingError:
        return EmbeddingError(f"The embedding endpoint {self.base_url} (model {self.model!r}) {what}.")

    def _without_key(self, message: str) -> str:
        shown = message if len(message) <= 500 else message[:500] + "..."
        return shown.replace(self._key, "[key]") if self._key else shown


def _open_client(base_url: str, key: str | None, timeout: float, max_retries: int) -> OpenAI:
    from openai import OpenAI, omit

    # The client reads an organisation and a project from the environment for any base URL; they are OpenAI's alone. It also
    # insists on a key; where there is none, each request leaves the header out.
    at_home = _host(base_url) == _host(OPENAI_BASE_URL)
    private: Any = {} if at_home else {"OpenAI-Organization": omit, "OpenAI-Project": omit}
    return OpenAI(api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=max_retries, default_headers=private)


def _endpoint(base_url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """The base URL, and the key that may go there."""
    environment = read_environment()
    home = environment.get("OPENAI_BASE_URL", "").strip() or OPENAI_BASE_URL
    url = _check_base_url(home if base_url is None else base_url)
    key = api_key
    if key is None and _host(url) in (_host(OPENAI_BASE_URL), _host(home)):
        key = environment.get("OPENAI_API_KEY")
    key = (key or "").strip() or None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError("The API key for the embedding endpoint holds characters that no key has; copy it again.")
    if key is None and _host(url) == _host(OPENAI_BASE_URL):
        raise MissingKeyError(
            "No API key for OpenAI's embeddings. Set OPENAI_API_KEY in the environment, give api_key=, or take an embedder "
            "that needs none: 'static', or base_url= of an endpoint of your own."
        )
    return url, key


def _check_base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigError(
            "The base URL of the embedding endpoint must be of the form http://localhost:8000/v1, without a user, a password "
            f"or a query{'' if parts.username or parts.query else f'; given: {url!r}'}."
        )
    return url.rstrip("/")


def _host(url: str) -> str | None:
    return urlsplit(url).hostname


def _widths(model: str, dim: int | None) -> tuple[int | None, int | None]:
    """The width to expect, and the one to ask for (None: don't ask)."""
    natural = NATURAL_DIMS.get(model)
    if natural is None or dim is None or dim == natural:
        return dim or natural, None
    if dim > natural or not model.startswith("text-embedding-3-"):
        raise ConfigError(f"{model} gives vectors of {natural} dimensions; it can't give {dim}.")
    return dim, dim


def _open_cache(cache: bool | str | Path | VectorCache | None) -> VectorCache | None:
    if cache is None or cache is False:
        return None
    if cache is True:
        return SqliteVectorCache()
    return SqliteVectorCache(cache) if isinstance(cache, str | Path) else cache


def _batches(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """Cut `texts` into requests of at most `most` texts and, beyond a single text, `_REQUEST_BYTES`."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == most or size + length > _REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def _check_number(name: str, value: object, least: float, *, whole: bool = True) -> None:
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not right or not value >= least:  # type: ignore[operator]  # also refuses NaN
        kind = "whole number" if whole else "number"
        raise ConfigError(f"{name} of the OpenAI embedder is {value!r}; it must be a {kind} of at least {least:g}.")
