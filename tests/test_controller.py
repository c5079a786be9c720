"""The Python clients, as a user of the official OpenAI client would use them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from routellm import AsyncController, Controller
from routellm.errors import (
    CheckpointError,
    ConfigError,
    MissingKeyError,
    ModelNotFoundError,
    RequestError,
    UnknownNameError,
)
from routellm.routers.routers import ROUTER_CLS, Router
from tests.conftest import require
from tests.live import LiveServer, Reply

DEMO = {"strong_model": "demo/strong", "weak_model": "demo/weak"}
ASK = [{"role": "user", "content": "What is 2 + 2?"}]


class Half(Router):
    """Scores every prompt 0.5, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def calculate_strong_win_rate(self, prompt: str) -> float:
        self.seen.append(prompt)
        return 0.5


@pytest.fixture(autouse=True)
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTER_CLS, "half", Half)  # type: ignore[arg-type]


def half_controller(live: LiveServer, **more: Any) -> Controller:
    return Controller(["half"], "openai/big", "openai/small", api_base=live.base_url, api_key="sk-planted", **more)


def test_the_example_of_the_readme() -> None:
    with Controller(routers=["mf"], **DEMO) as client:
        response = client.chat.completions.create(model="router-mf-0.11593", messages=[{"role": "user", "content": "Hello!"}])
    assert isinstance(response, ChatCompletion)
    assert response.choices[0].message.content
    assert response.model in ("strong", "weak", "demo/strong", "demo/weak")
    assert response.usage is not None
    assert response.usage.total_tokens > 0
    dumped = response.model_dump()
    assert dumped["choices"][0]["message"]["content"] == response.choices[0].message.content
    assert dumped["decision"]["threshold"] == 0.11593
    json.loads(response.model_dump_json())


@pytest.mark.parametrize(("threshold", "model"), [(0, "big"), (0.5, "big"), (0.51, "small"), (1, "small")])
def test_at_least_the_threshold_is_strong(live: LiveServer, threshold: float, model: str) -> None:
    with half_controller(live) as client:
        response: Any = client.completion(router="half", threshold=threshold, messages=ASK)
        assert client.route("x", "half", threshold) == f"openai/{model}"
    assert json.loads(live.wait_for_request().body)["model"] == model
    assert (response.decision.model, response.decision.win_rate) == (f"openai/{model}", 0.5)


def test_every_argument_reaches_the_model_as_given(live: LiveServer) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    given = {"temperature": 0.1, "tools": tools, "tool_choice": "auto", "seed": 3, "max_completion_tokens": 9}
    with half_controller(live) as client:
        client.chat.completions.create(model="router-half-0.5", messages=ASK, extra_body={"top_k": 4}, **given)
    body = json.loads(live.wait_for_request().body)
    assert body == {"model": "big", "messages": ASK, "top_k": 4, **given}


def test_stream_carries_the_decision(live: LiveServer) -> None:
    with half_controller(live) as client:
        stream = client.chat.completions.create(model="router-half-0.9", messages=ASK, stream=True)
        assert stream.decision.reason == "threshold"
        chunks = list(stream)
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_async_controller_and_acreate_do_the_same(live: LiveServer) -> None:
    async def run() -> None:
        arguments: dict[str, Any] = {"api_base": live.base_url, "api_key": "sk-planted"}
        async with AsyncController(["half"], "openai/big", "openai/small", **arguments) as client:
            response = await client.chat.completions.create(model="router-half-0.5", messages=ASK)
            assert response.decision.model == "openai/big"
            stream = await client.completion(router="half", threshold=0.6, messages=ASK, stream=True)
            text = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]  # type: ignore[union-attr]
            assert "".join(text)
            assert client.model_counts == {"half": {"openai/big": 1, "openai/small": 1}}
        with Controller(["half"], **DEMO) as sync:
            reply = await sync.chat.completions.acreate(model="router-half-0.5", messages=ASK)
            assert isinstance(reply, ChatCompletion)
            reply = await sync.acompletion(router="half", threshold=0.5, messages=ASK)
            assert isinstance(reply, ChatCompletion)

    asyncio.run(run())


def test_the_pairs_own_names_are_pinned(live: LiveServer) -> None:
    with half_controller(live) as client:
        response = client.chat.completions.create(model="openai/small", messages=ASK)
        assert response.decision.reason == "pinned"
        assert response.decision.win_rate is None
        assert client.model_counts == {"pinned": {"openai/small": 1}}


def test_default_threshold_of_a_bare_router_name() -> None:
    client = Controller(["mf"], **DEMO, default_strong_share=0.2)
    quantiles = client._decider.quantiles("mf")
    assert quantiles is not None
    assert client.decide("x", "mf").threshold == quantiles.threshold_for_share(0.2).threshold
    everything = Controller(["mf"], **DEMO, default_strong_share=1.0)
    assert everything.decide("x", "mf").model == "demo/strong"


def test_the_official_clients_messages_can_be_sent_back(live: LiveServer) -> None:
    with half_controller(live) as client:
        first = client.chat.completions.create(model="router-half-0.5", messages=ASK)
        history = [*ASK, first.choices[0].message, {"role": "user", "content": "And 3 + 3?"}]
        client.chat.completions.create(model="router-half-0.5", messages=history)
        assert client._decider.routers["half"].seen[-1] == "And 3 + 3?"  # type: ignore[attr-defined]


def test_an_image_goes_to_the_strong_model_unless_the_weak_one_takes_images(live: LiveServer) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    ask = [{"role": "user", "content": parts}]
    with half_controller(live) as client:
        decision = client.chat.completions.create(model="router-half-0.9", messages=ask).decision
        assert (decision.model, decision.reason) == ("openai/big", "modality")
    with half_controller(live, weak_modalities=["image"]) as client:
        decision = client.chat.completions.create(model="router-half-0.9", messages=ask).decision
        assert (decision.model, decision.reason) == ("openai/small", "threshold")


def test_upstream_errors_are_the_official_clients_own(live: LiveServer) -> None:
    live.replies = [Reply.json({"error": {"message": "bad field", "type": "invalid_request_error"}}, status=400)]
    with half_controller(live) as client, pytest.raises(openai.BadRequestError, match="bad field"):
        client.chat.completions.create(model="router-half-0.5", messages=ASK)


def test_routing_needs_no_key_and_calling_names_the_missing_one() -> None:
    client = Controller(["half"], "gpt-4-1106-preview", "anyscale/mistralai/Mixtral-8x7B-Instruct-v0.1")
    assert client.route("x", router="half", threshold=0.5) == "gpt-4-1106-preview"
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        client.chat.completions.create(model="router-half-0.5", messages=ASK)
    assert client.model_counts == {}


def test_each_model_can_have_its_own_endpoint_and_key(live: LiveServer) -> None:
    with LiveServer() as other:
        bases = {"strong": live.base_url, "openai/small": other.base_url}
        keys = {"openai/big": "sk-big", "weak": "sk-small"}
        with Controller(["half"], "openai/big", "openai/small", api_base=bases, api_key=keys) as client:
            for threshold in (0.5, 0.6):
                client.completion(router="half", threshold=threshold, messages=ASK)
        assert live.wait_for_request().headers["authorization"] == "Bearer sk-big"
        assert other.wait_for_request().headers["authorization"] == "Bearer sk-small"


def test_a_key_for_an_unknown_model_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"api_key has the key 'strng' \(did you mean 'strong'\?\)"):
        Controller(["half"], **DEMO, api_key={"strng": "x"})


def test_no_key_shows_in_a_repr(live: LiveServer) -> None:
    client = half_controller(live)
    shown = repr(client) + repr(vars(client))
    assert "sk-planted" not in shown


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "router-half-1.5", "messages": ASK}, RequestError, "from 0"),
        ({"model": "router-half-nan", "messages": ASK}, RequestError, "'nan'"),
        ({"model": "router-haff-0.5", "messages": ASK}, RequestError, "did you mean 'half'"),
        ({"model": "gpt-4", "messages": ASK}, ModelNotFoundError, "'gpt-4' is not served"),
        ({"model": 4, "messages": ASK}, RequestError, "must be a string"),
        ({"messages": ASK}, RequestError, "Give either `model`"),
        ({"model": "router-half-0.5"}, RequestError, "`messages` must be a list"),
        ({"model": "router-half-0.5", "messages": []}, RequestError, "empty"),
        ({"model": "router-half-0.5", "messages": "hello"}, RequestError, "must be a list"),
        ({"model": "router-half-0.5", "messages": [{"content": "x"}]}, RequestError, "`role`"),
        ({"model": "router-half-0.5", "messages": [{"role": "user", "content": object()}]}, RequestError, "JSON"),
        ({"model": "router-half-0.5", "messages": [{"role": "user", "content": "\ud800"}]}, RequestError, "JSON"),
    ],
)
def test_bad_requests(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with Controller(["half"], **DEMO) as client, pytest.raises(error, match=message):
        client.chat.completions.create(**arguments)


@pytest.mark.parametrize("threshold", [1.1, -0.1, float("nan"), "0.5", True])
def test_bad_thresholds(threshold: Any) -> None:
    client = Controller(["half"], **DEMO)
    with pytest.raises(RequestError, match="threshold"):
        client.route("x", "half", threshold)
    with pytest.raises(RequestError, match="threshold"):
        client.completion(router="half", threshold=threshold, messages=ASK)


def test_bad_construction() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mf'"):
        Controller(["mff"], **DEMO)
    with pytest.raises(ConfigError, match="must be a list"):
        Controller("mf", **DEMO)
    with pytest.raises(ConfigError, match="at least one"):
        Controller([], **DEMO)
    with pytest.raises(ConfigError, match=r"takes no argument 'sed'.*did you mean 'seed'"):
        Controller(["random"], **DEMO, config={"random": {"sed": 1}})
    with pytest.raises(CheckpointError, match=r"No checkpoint at '\./nowhere'"):
        Controller(["mf"], **DEMO, config={"mf": {"checkpoint_path": "./nowhere"}})


def test_batch_win_rates_equal_single_ones() -> None:
    client = Controller(["mf"], **DEMO)
    prompts = [f"prompt number {number}" for number in range(1500)]
    rates = client.batch_calculate_win_rate(prompts, "mf")
    assert rates.shape == (1500,)
    assert rates[7] == client.decide(prompts[7], "mf", 0.5).win_rate
    assert client.batch_calculate_win_rate([], "mf").shape == (0,)
    with pytest.raises(RequestError, match=r"prompts\[1\] must be a string, not int"):
        client.batch_calculate_win_rate(["a", 1], "mf")  # type: ignore[list-item]


def test_batch_of_a_series_is_a_series_and_the_bar_changes_nothing() -> None:
    pandas = require("pandas")
    client = Controller(["mf"], **DEMO, progress_bar=True)
    series = pandas.Series(["one", "two"], index=[10, 20])
    rates = client.batch_calculate_win_rate(series, "mf")
    assert list(rates.index) == [10, 20]
    assert np.array_equal(rates.to_numpy(), client.batch_calculate_win_rate(["one", "two"], "mf"))


def test_progress_bar_goes_to_stderr_only() -> None:
    code = (
        "from routellm import Controller\n"
        "client = Controller(['mf'], 'demo/a', 'demo/b', progress_bar=True)\n"
        "print(len(client.batch_calculate_win_rate(['x'] * 3000, 'mf')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3000\n"
