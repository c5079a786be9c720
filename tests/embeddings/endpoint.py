"""What a live server answers as an embedding endpoint: vectors that follow from the text alone, in an order of its own."""

from __future__ import annotations

import hashlib

import numpy as np

from routellm.embeddings.base import Vector
from tests.live import LiveServer, Recorded, Reply

KEY = "sk-secret-0123456789"
WIDTH = 24


def vector_of(text: str, width: int = WIDTH) -> Vector:
    """The vector that the endpoint gives for `text`."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal(width).astype(np.float32)


def asked_for(server: LiveServer) -> list[list[str]]:
    """The texts of each request that reached the endpoint."""
    return [request.json["input"] for request in server.requests]


def answer_embeddings(request: Recorded) -> Reply:
    """Answer `/v1/embeddings` as OpenAI does, the last text first; refuses an empty text, as OpenAI does."""
    asked = request.json
    if request.path != "/v1/embeddings" or any(not text for text in asked["input"]):
        return Reply.json({"error": {"message": "invalid input", "type": "invalid_request_error"}}, status=400)
    width = asked.get("dimensions", WIDTH)
    data = [
        {"object": "embedding", "index": index, "embedding": [float(value) for value in vector_of(text, width)]}
        for index, text in enumerate(asked["input"])
    ]
    return Reply.json({"object": "list", "model": asked["model"], "data": data[::-1], "usage": {"prompt_tokens": 1}})
