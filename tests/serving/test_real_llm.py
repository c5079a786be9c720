"""A routed, streamed conversation with a real language model, through the official client.

Runs where ROUTELLM_TEST_GGUF names the model's file: `make llm` fetches it, and runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import PATIENCE
from tests.serving.running import RunningServer, settings_for

GGUF = os.environ.get("ROUTELLM_TEST_GGUF")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not GGUF, reason="needs a model's file in ROUTELLM_TEST_GGUF; `make llm` has one")


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.llama", "serve", str(GGUF)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            yield url + "/v1"
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def routed(model_url: str) -> Iterator[RunningServer]:
    config = {"fixed": {"scores": {"What is the capital of France?": 0.9, "And of Italy?": 0.1}}}
    with RunningServer(settings_for(model_url, strong="openai/big", weak="openai/small", config=config)) as server:
        yield server


def test_a_streamed_conversation_goes_to_either_model_by_its_prompts(routed: RunningServer) -> None:
    messages: list[dict[str, str]] = []
    answered_by = []
    with routed.client() as client:
        for prompt in ("What is the capital of France?", "And of Italy?"):
            messages.append({"role": "user", "content": prompt})
            raw = client.chat.completions.with_raw_response.create(
                model="router-fixed-0.5", messages=messages, stream=True, max_tokens=24, temperature=0,
                stream_options={"include_usage": True},
            )  # fmt: skip
            answered_by.append(raw.headers["x-routellm-model"])
            pieces, usage = [], None
            for chunk in raw.parse():
                usage = chunk.usage or usage
                pieces += [choice.delta.content or "" for choice in chunk.choices]
            assert len(pieces) > 3
            assert usage is not None
            assert 0 < usage.completion_tokens <= 24
            messages.append({"role": "assistant", "content": "".join(pieces)})
    assert answered_by == ["openai/big", "openai/small"]
    assert all(message["content"].strip() for message in messages)


def test_the_model_s_own_refusal_of_a_bad_request_comes_through(routed: RunningServer) -> None:
    import openai

    with routed.client() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="router-fixed-0.5",
            messages=[{"role": "user", "content": "Hello!"}],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}},
        )
    assert caught.value.status_code in (400, 500)
    assert caught.value.response.headers["x-routellm-model"] == "openai/big"
