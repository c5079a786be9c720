"""What the tests of the messages API share: the official client, and a small valid request."""

from __future__ import annotations

from typing import Any

import anthropic

from tests.live import event
from tests.serving.running import RunningServer

CLIENT_KEY = "sk-ant-planted-client-key"
HI: Any = {"role": "user", "content": "Hi"}
ASK: Any = {"model": "router-fixed-0.4", "max_tokens": 50, "messages": [HI]}
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CHUNK = event({"id": "c1", "model": "big", "choices": [{"index": 0, "delta": {"content": "one"}}]})


def client_of(server: RunningServer, **options: Any) -> anthropic.Anthropic:
    """An official client that does not retry."""
    return anthropic.Anthropic(base_url=server.url, api_key=CLIENT_KEY, **{"max_retries": 0, **options})
