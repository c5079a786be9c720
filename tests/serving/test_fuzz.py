"""Whatever comes in, by the server's own OpenAPI document or against it: never a 500, never silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routellm.serving.app import APIS
from tests.conftest import require
from tests.serving.running import RunningServer, get, post

CHECKS = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
PATHS = [*(api.path for api in APIS), "/v1/route"]

names = st.sampled_from(["router-random-0.5", "router-random", "demo/strong", "router-", "gpt-4", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
roles = st.sampled_from(["user", "assistant", "system", "tool", "developer", ""]) | values
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "image_url", "tool_use", "tool_result", "input_text", "thinking", "file"])},
    optional={"text": values, "source": values, "image_url": values, "id": values, "input": values, "content": values},
)
turns = st.fixed_dictionaries(
    {"role": roles, "content": st.text(max_size=20) | st.lists(blocks | values, max_size=3) | values}
)
conversations = st.lists(turns | values, max_size=4) | values
bodies = st.fixed_dictionaries(
    {"model": names | values},
    optional={
        **dict.fromkeys(("messages", "input", "prompt"), conversations),
        **dict.fromkeys(
            ("system", "instructions", "tools", "tool_choice", "stream", "max_tokens", "metadata", "text"), values
        ),
    },
)


def test_requests_made_from_the_document_get_what_it_promises(lasting: RunningServer, tmp_path: Path) -> None:
    require("schemathesis")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{lasting.url}/openapi.json", "--checks", CHECKS),
            *("--max-examples", "25", "--generation-deterministic", "--phases", "examples,coverage,fuzzing", "--no-color"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"Tested: {len(get(lasting, '/openapi.json')['paths'])}" in done.stdout


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60)
@given(body=bodies)
def test_a_body_of_any_json_is_answered_or_refused_with_reasons(lasting: RunningServer, path: str, body: Any) -> None:
    answered_or_refused(post(lasting, json.dumps(body).encode(), path=path))


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=40)
@given(cut=st.integers(0, 80), put=st.binary(max_size=6))
def test_a_body_of_broken_bytes_too(lasting: RunningServer, path: str, cut: int, put: bytes) -> None:
    words = b'"messages":[{"role":"user","content":"Hi \\u00e9"}],"input":"a","prompt":"b"'
    whole = b'{"model":"router-random-0.5","max_tokens":9,' + words + b"}"
    answered_or_refused(post(lasting, whole[:cut] + put + whole[cut + 1 :], path=path))


def answered_or_refused(response: Any) -> None:
    assert response.status < 500, response.body
    assert response.headers["x-request-id"]
    if response.status >= 400:
        error = json.loads(response.body)["error"]
        assert error["message"]
        assert error["type"]


def test_the_document_names_every_routed_path(lasting: RunningServer) -> None:
    described = get(lasting, "/openapi.json")
    assert described["openapi"].startswith("3.1")
    assert all("requestBody" in described["paths"][path]["post"] for path in PATHS)
