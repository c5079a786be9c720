"""What becomes of each field of a responses request on its way to a chat endpoint: translated, or refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import RequestError
from routellm.serving.apis.responses.api import ResponsesApi

CHAT = frozenset({"chat"})
USER = {"role": "user", "content": "Hi"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def translated(**fields: Any) -> dict[str, Any]:
    """The chat request that a request with `fields` becomes, `model` left out."""
    body = json.dumps({"model": "router-fixed", "input": "Hi", **fields}).encode()
    api = ResponsesApi()
    chat: dict[str, Any] = json.loads(api.translator(api.parse(body), CHAT).body_for("big"))
    assert chat.pop("model") == "big"
    return chat


def refusal(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        translated(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({"temperature": 0.10, "top_p": 1}, {"temperature": 0.1, "top_p": 1}),
        ({"max_output_tokens": 7}, {"max_completion_tokens": 7}),
        ({"metadata": {"a": "b"}, "user": "u"}, {"metadata": {"a": "b"}, "user": "u"}),
        ({"service_tier": "flex", "safety_identifier": "s"}, {"service_tier": "flex", "safety_identifier": "s"}),
        (
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        ),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": None, "summary": None}}, {}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"top_logprobs": 0}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False, "stream_options": None}, {}),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            {"stream": True, "stream_options": {"include_usage": True}},
        ),
        ({"store": False, "background": False, "truncation": "disabled"}, {}),
        ({"previous_response_id": None, "conversation": None, "prompt": None, "include": [], "tools": []}, {}),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, {}),  # without tools these say nothing
        (
            {"tools": [{**FUNCTION, "description": None}], "tool_choice": {"type": "function", "name": "f"}},
            {
                "tools": [
                    {"type": "function", "function": {name: FUNCTION[name] for name in ("name", "parameters", "strict")}}
                ],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
        ),
        (
            {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
            {
                "tools": [
                    {"type": "function", "function": {name: FUNCTION[name] for name in ("name", "parameters", "strict")}}
                ],
                "tool_choice": "required",
                "parallel_tool_calls": False,
            },
        ),
    ],
)
def test_settings(fields: dict[str, Any], chat: dict[str, Any]) -> None:
    assert translated(**fields) == {"messages": [USER], **chat}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("Hi", [USER]),
        ([USER], [USER]),
        ([{"type": "message", **USER}], [USER]),
        ([{"role": "developer", "content": "Be brief."}, USER], [{"role": "developer", "content": "Be brief."}, USER]),
        ([{"role": "system", "content": [{"type": "input_text", "text": "s"}]}], [{"role": "system", "content": "s"}]),
        ([{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], [USER]),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                        {"type": "input_image", "image_url": "https://e.x/i.png", "detail": "high"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": None, "file_id": None},
                        {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                        {"type": "input_file", "file_id": "file-1"},
                        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    ],
                }
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                        {"type": "image_url", "image_url": {"url": "https://e.x/i.png", "detail": "high"}},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
                        {"type": "file", "file": {"file_id": "file-1"}},
                        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    ],
                }
            ],
        ),
        (
            [
                {
                    "type": "message",
                    "id": "msg_1",
                    "status": "completed",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": [{"token": "Yes."}]}],
                },
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": []},
            ],
            [
                {"role": "assistant", "content": "Yes."},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": ""},
            ],
        ),
        (
            [
                USER,
                {"role": "assistant", "content": "Let me see."},
                {**CALL, "id": "fc_1", "status": "completed"},
                {**CALL, "call_id": "c2"},
                {"type": "function_call_output", "call_id": "c1", "output": "rain"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
                {**CALL, "call_id": "c3"},
                {"role": "assistant", "content": "One more."},
                {"type": "function_call_output", "call_id": "c3", "output": ""},
            ],
            [
                USER,
                {"role": "assistant", "content": "Let me see.", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
                {"role": "tool", "tool_call_id": "c2", "content": "sun"},
                {"role": "assistant", "content": "One more.", "tool_calls": [{**CHAT_CALL, "id": "c3"}]},
                {"role": "tool", "tool_call_id": "c3", "content": ""},
            ],
        ),
    ],
)
def test_items(items: Any, messages: list[Any]) -> None:
    assert translated(input=items)["messages"] == messages


def test_instructions_come_first() -> None:
    assert translated(instructions="Be brief.")["messages"] == [{"role": "system", "content": "Be brief."}, USER]


def test_numbers_and_schemas_go_over_as_they_were_written() -> None:
    body = (
        b'{"model":"m","input":"Hi","temperature":0.50,"tools":[{"type":"function","name":"f","parameters":{"minimum":1e2}}]}'
    )
    api = ResponsesApi()
    chat = api.translator(api.parse(body), CHAT).body_for("big")
    assert b'"temperature":0.50' in chat
    assert b'"parameters":{"minimum":1e2}' in chat


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"background_options": {}}, "background_options"),
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs", "file_search_call.results"]}, "include[1]"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, "reasoning.summary"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"moderation": {}}, "moderation"),
        ({"context_management": []}, "context_management"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
        ({"seed": 1}, "seed"),
        ({"messages": []}, "messages"),
        ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema"),
        ({"text": {"tone": "dry"}}, "text.tone"),
        ({"tools": [FUNCTION, {"type": "web_search"}]}, "tools[1]"),
        ({"tools": [{"type": "mcp", "server_label": "s"}]}, "tools[0]"),
        ({"tools": [{"type": "custom", "name": "c"}]}, "tools[0]"),
        ({"tools": [{**FUNCTION, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
        ({"input": [USER, {"type": "reasoning", "id": "rs_1", "summary": []}]}, "input[1]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "computer_call_output", "call_id": "c", "output": {}}]}, "input[0]"),
        ({"input": [{**USER, "name": "Ada"}]}, "input[0].name"),
        ({"input": [{"role": "assistant", "content": "a", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [{**CALL, "namespace": "n"}]}, "input[0].namespace"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": "a"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "system", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://e.x/a.pdf"}]}]},
            "input[0].content[0].file_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": [{}]}]}]},
            "input[0].content[0].annotations",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
            "input[0].output[0]",
        ),
    ],
)
def test_what_a_chat_has_no_place_for_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.status, error.param, error.code) == (400, param, "unsupported_parameter")
    assert f"`{param}` can't be passed on" in str(error)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": []}, "input"),
        ({"input": ["Hi"]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": ["user"], "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": ["a"]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].input_audio"),
        ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
        ({"instructions": ["a"]}, "instructions"),
        ({"stream": "yes"}, "stream"),
        ({"store": "yes"}, "store"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"text": "json"}, "text"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": "low"}, "reasoning"),
        ({"include": "all"}, "include"),
        ({"top_logprobs": "3"}, "top_logprobs"),
        ({"truncation": 1}, "truncation"),
    ],
)
def test_what_is_of_the_wrong_form_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.status, error.param) == (400, param)
    assert f"`{param}` must be" in str(error)


def test_an_upstream_without_chat_takes_no_translation() -> None:
    api = ResponsesApi()
    with pytest.raises(RequestError, match="takes messages requests only") as caught:
        api.translator(api.parse(b'{"model": "m", "input": "Hi"}'), frozenset({"messages"}))
    assert caught.value.code == "unsupported_api"


@pytest.mark.parametrize("depth", [100, 990, 2_000, 100_000])
@pytest.mark.parametrize("field", ["tools", "metadata", "input", "text"])
def test_deep_nesting_is_no_crash(field: str, depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    holders = {"tools": b'[{"type":"function","name":"f","parameters":%s}]', "input": b'[{"role":"user","content":[%s]}]'}
    value = holders.get(field, b"%s") % deep
    fields = {"input": b'"Hi"', field: value}
    body = b'{"model":"m",' + b",".join(b'"%s":%s' % (name.encode(), raw) for name, raw in fields.items()) + b"}"
    api = ResponsesApi()
    with suppress(RequestError):
        api.translator(api.parse(body), CHAT).body_for("big")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_KINDS = st.sampled_from(
    "message function_call function_call_output reasoning input_text input_image input_file output_text refusal function "
    "json_schema json_object text user assistant system auto required".split()
)
_NAMES = st.sampled_from(
    "type role content text image_url file_data call_id name arguments output refusal parameters strict format schema "
    "verbosity effort id annotations".split()
)
_SHAPED = st.recursive(
    _JSON | _KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner | _KINDS, max_size=5),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    "input instructions tools tool_choice text reasoning include top_logprobs max_output_tokens stream stream_options store "
    "background truncation metadata temperature previous_response_id conversation prompt other".split()
)


@given(st.dictionaries(_FIELDS, _SHAPED, max_size=6), st.sampled_from(["last", "first", 2]))
def test_whatever_comes_is_understood_or_refused(fields: dict[str, Any], prompt_from: Any) -> None:
    api = ResponsesApi()
    try:
        request = api.parse(json.dumps({"model": "m", **fields}).encode())
        api.view(request, prompt_from)
        chat = json.loads(api.translator(request, CHAT).body_for("big"))
    except RequestError:
        return
    assert {"model", "messages"} <= chat.keys()


@given(st.binary(max_size=60))
def test_a_body_of_any_bytes_is_refused_or_read(body: bytes) -> None:
    with suppress(RequestError):
        ResponsesApi().parse(body)
