"""What a request leaves behind on its connection."""

from __future__ import annotations

import gc
import http.client
import json

import pytest

from routellm.serving.exchange import Exchange
from tests.live import LiveServer, Reply, event
from tests.serving.running import RunningServer, chat_body

STREAM = Reply.sse(event({"id": "c", "choices": [{"index": 0, "delta": {"content": "one"}}]}), b"data: [DONE]\n\n")


@pytest.mark.parametrize("reply", [Reply.json({"choices": []}), STREAM], ids=["whole", "stream"])
def test_a_request_leaves_nothing_to_the_garbage_collector(server: RunningServer, live: LiveServer, reply: Reply) -> None:
    """The collector stops all requests while it looks for cycles."""
    live.replies = [reply] * 5
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(5):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat_body()), {"content-type": "application/json"})
            assert connection.getresponse().read()
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, Exchange)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        connection.close()
    assert left == []
