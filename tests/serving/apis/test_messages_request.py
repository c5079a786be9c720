"""What becomes of each field of a messages request on its way to a chat endpoint: translated, or refused by its name."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import RequestError
from routellm.serving.apis.messages.api import MessagesApi
from routellm.upstream.base import Format

CHAT: frozenset[Format] = frozenset({"chat"})
HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "x": 1.0}
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm", "n": 1e0}}
CHAT_CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm","n":1.0}'}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
CHAT_PDF: Any = {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}
CHAT_PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
PLAIN = {"type": "text", "media_type": "text/plain", "data": "Once upon a time."}
FIRST = "messages[0].content[0]"
CACHE = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def text(value: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **fields}


def result(content: Any = "rain", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def encoded(**fields: Any) -> bytes:
    return json.dumps({"model": "router-fixed", "max_tokens": 9, "messages": [HI], **fields}).encode()


def translated(formats: frozenset[Format] = CHAT, **fields: Any) -> dict[str, Any]:
    """The chat request that a request with `fields` becomes, `model` left out."""
    api = MessagesApi()
    chat: dict[str, Any] = json.loads(api.translator(api.parse(encoded(**fields)), formats).body_for("big"))
    assert chat.pop("model") == "big"
    return chat


def messages(*given: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The chat messages that the conversation becomes."""
    found: list[dict[str, Any]] = translated(messages=list(given), **fields)["messages"]
    return found


def refusal(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        translated(**fields)
    return caught.value


def test_the_least_that_can_be_asked() -> None:
    assert translated() == {"messages": [HI], "max_tokens": 9}


def test_openais_own_endpoint_takes_the_newer_name_of_the_limit() -> None:
    assert translated(frozenset({"chat", "responses"})) == {"messages": [HI], "max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {}),
        ({"metadata": {"user_id": "u-1"}}, {"user": "u-1"}),
        ({"metadata": {}}, {}),
        ({"tools": [TOOL]}, {"tools": [CHAT_TOOL]}),
        ({"tools": []}, {}),
        ({"tools": [{"name": "f", "input_schema": {}, "type": "custom", "strict": True, "eager_input_streaming": True}]},
         {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}]}),
        ({"tools": [TOOL | CACHE]}, {"tools": [CHAT_TOOL]}),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
        ({"tool_choice": {"type": "none"}}, {}),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, {"tools": [CHAT_TOOL], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tools": [CHAT_TOOL], "tool_choice": "none"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "tool", "name": "f"}}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
         {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"tool_choice": {"type": "any", "disable_parallel_tool_use": False}}, {"tool_choice": "required"}),
        ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
         {"response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA, "strict": True}}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"thinking": {"type": "disabled"}}, {}),
        (CACHE, {}),
        ({"container": None, "top_k": None, "thinking": None, "of_the_future": None}, {}),
    ],
)  # fmt: skip
def test_a_field_goes_over(fields: dict[str, Any], chat: dict[str, Any]) -> None:
    assert translated(**fields) == {"messages": [HI], "max_tokens": 9, **chat}


def test_a_long_user_id_goes_over_as_its_hash() -> None:
    long = "user_" + "a" * 200
    assert translated(metadata={"user_id": long})["user"] == hashlib.sha256(long.encode()).hexdigest()
    assert len(translated(metadata={"user_id": "é" * 65})["user"]) == 64


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("Be brief.", "Be brief."),
        ([text("Be brief.", **CACHE)], "Be brief."),
        ([text("Be brief."), text("Be kind.")], [text("Be brief."), text("Be kind.")]),
    ],
)
def test_the_system_prompt_comes_first(system: Any, content: Any) -> None:
    assert messages(HI, system=system) == [{"role": "system", "content": content}, HI]


@pytest.mark.parametrize("system", ["", []])
def test_an_empty_system_prompt_is_none(system: Any) -> None:
    assert messages(HI, system=system) == [HI]


def test_system_messages_stay_where_they_are() -> None:
    later = {"role": "system", "content": [text("Now in French.")]}
    assert messages(HI, later, HI) == [HI, {"role": "system", "content": "Now in French."}, HI]


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([text("a", **CACHE)], "a"),
        ([text("a", citations=[]), text("b", citations=None)], [text("a"), text("b")]),
        ([PNG | CACHE, text("What is this?")], [CHAT_PNG, text("What is this?")]),
        ([{"type": "image", "source": {"type": "url", "url": "https://e.example/a.png"}}],
         [{"type": "image_url", "image_url": {"url": "https://e.example/a.png"}}]),
        ([{"type": "document", "source": PDF}], [CHAT_PDF]),
        ([{"type": "document", "source": PDF, "context": "Of 1999.", "citations": {"enabled": False}}],
         [text("Of 1999."), CHAT_PDF]),
        ([{"type": "document", "source": PDF, "title": "a.pdf"}],
         [{"type": "file", "file": {**CHAT_PDF["file"], "filename": "a.pdf"}}]),
        ([{"type": "document", "source": PLAIN}], "Once upon a time."),
        ([{"type": "document", "source": PLAIN, "title": "A tale", "context": "Old."}],
         [text("A tale"), text("Old."), text("Once upon a time.")]),
        ([{"type": "document", "source": {"type": "content", "content": "a"}}], "a"),
        ([{"type": "document", "source": {"type": "content", "content": [text("a"), PNG]}}], [text("a"), CHAT_PNG]),
        ([], ""),
    ],
)  # fmt: skip
def test_what_a_user_says(blocks: list[Any], content: Any) -> None:
    assert messages(user(*blocks)) == [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([text("Let me see."), CALL], {"content": "Let me see.", "tool_calls": [CHAT_CALL]}),
        ([CALL | {"caller": {"type": "direct"}}, CALL], {"content": None, "tool_calls": [CHAT_CALL, CHAT_CALL]}),
        ([CALL, text("And then?")], {"content": "And then?", "tool_calls": [CHAT_CALL]}),
        ([text("a"), text("b")], {"content": [text("a"), text("b")]}),
    ],
)
def test_what_the_assistant_said(blocks: list[Any], said: dict[str, Any]) -> None:
    assert messages(HI, {"role": "assistant", "content": blocks}, HI) == [HI, {"role": "assistant", **said}, HI]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result(), "rain"),
        ({"type": "tool_result", "tool_use_id": "toolu_1"}, ""),
        (result([text("rain", **CACHE)], **CACHE), "rain"),
        (result([text("rain"), text("wind")]), [text("rain"), text("wind")]),
        (result([{"type": "document", "source": PLAIN}]), "Once upon a time."),
        (result("no such city", is_error=True), "Error: no such city"),
        (result([text("a"), text("b")], is_error=True), [text("Error: a"), text("b")]),
        (result([], is_error=True), "Error"),
        (result(is_error=False), "rain"),
    ],
)
def test_what_a_tool_gave_back(block: dict[str, Any], content: Any) -> None:
    asked = {"role": "assistant", "content": [CALL]}
    found = messages(HI, asked, user(block, text("And tomorrow?")))
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": content},
        {"role": "user", "content": "And tomorrow?"},
    ]
    assert messages(HI, asked, user(block))[2:] == found[2:3]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_k": 5}, "top_k"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"context_management": {}}, "context_management"),
        ({"of_the_future": 1}, "of_the_future"),
        ({"metadata": {"team": "a"}}, "metadata.team"),
        ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"output_config": {"effort": "utter"}}, "output_config.effort"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f", "input_schema": {}, "type": "bash_20250124"}]}, "tools[0].type"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL | {"input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"tool_choice": {"type": "none", "disable_parallel_tool_use": True}}, "tool_choice.disable_parallel_tool_use"),
        ({"tool_choice": {"type": "all"}}, "tool_choice.type"),
        ({"messages": [user({"type": "search_result", "source": "s", "title": "t", "content": []})]}, f"{FIRST}.type"),
        ({"messages": [user({"type": "container_upload", "file_id": "f"})]}, f"{FIRST}.type"),
        ({"messages": [user(text("a", of_the_future=1))]}, f"{FIRST}.of_the_future"),
        ({"messages": [HI | {"name": "n"}]}, "messages[0].name"),
        ({"messages": [HI | {"role": "tool"}]}, "messages[0].role"),
        ({"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]}, f"{FIRST}.source.type"),
        ({"messages": [user({"type": "document", "source": {"type": "url", "url": "u"}})]}, f"{FIRST}.source.type"),
        ({"messages": [user({"type": "document", "source": PDF | {"media_type": "a/b"}})]}, f"{FIRST}.source.media_type"),
        ({"messages": [user({"type": "document", "source": PDF, "citations": {"enabled": True}})]}, f"{FIRST}.citations"),
        ({"messages": [user(CALL)]}, FIRST),
        ({"messages": [user(result([PNG]))]}, f"{FIRST}.content[0]"),
        ({"messages": [user(result([{"type": "document", "source": PDF}]))]}, f"{FIRST}.content[0]"),
        ({"messages": [user(result([{"type": "tool_reference", "tool_name": "f"}]))]}, f"{FIRST}.content[0].type"),
        ({"messages": [{"role": "assistant", "content": [PNG]}, HI]}, FIRST),
        ({"messages": [{"role": "assistant", "content": [result()]}, HI]}, FIRST),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": ""}]}, HI]},
         f"{FIRST}.type"),
        ({"messages": [{"role": "assistant", "content": [CALL | {"caller": {"type": "code_execution_20250825"}}]}, HI]},
         f"{FIRST}.caller.type"),
        ({"messages": [{"role": "system", "content": [PNG]}, HI]}, FIRST),
        ({"messages": [HI, {"role": "assistant", "content": "The answer is ("}]}, "messages[1]"),
        ({"system": [PNG]}, "system[0].type"),
    ],
)  # fmt: skip
def test_what_a_chat_has_no_words_for_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", param)
    assert f"`{param}`" in str(error)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": 1}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [user(text("a"), result())]}, "messages[0].content[1]"),
        ({"messages": [user({"text": "a"})]}, "messages[0].content[0]"),
        ({"messages": [user(text("a", citations=[{}]))]}, "messages[0].content[0].citations"),
        ({"tools": [{"name": "f"}]}, "tools[0]"),
        ({"tools": [{"name": "f", "input_schema": []}]}, "tools[0].input_schema"),
    ],
)
def test_what_is_no_request_is_refused(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.status == 400
    assert error.param == param
    assert param in str(error)


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_what_every_upstream_needs_must_be_there(name: str) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [HI]}
    del body[name]
    with pytest.raises(RequestError) as caught:
        MessagesApi().parse(json.dumps(body).encode())
    assert caught.value.param == name


def test_an_upstream_that_speaks_neither_is_named_as_one() -> None:
    api = MessagesApi()
    with pytest.raises(RequestError, match="embeddings requests only"):
        api.translator(api.parse(encoded()), frozenset({"embeddings"}))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
names = st.sampled_from(
    [
        *(
            "type",
            "role",
            "content",
            "text",
            "source",
            "input",
            "id",
            "name",
            "tool_use_id",
            "is_error",
            "media_type",
            "data",
            "url",
        ),
        *("title", "context", "citations", "cache_control", "input_schema", "user_id", "effort", "format", "schema", "caller"),
    ]
)
words = st.sampled_from(
    [
        *("user", "assistant", "system", "text", "image", "document", "tool_use", "tool_result", "base64", "url", "content"),
        *("text/plain", "application/pdf", "auto", "any", "tool", "none", "custom", "json_schema", "disabled", "direct"),
    ]
)
values = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=20
)
fields_of_a_request = st.sampled_from(
    [
        *("messages", "max_tokens", "system", "metadata", "output_config", "service_tier", "stop_sequences", "stream"),
        *("temperature", "thinking", "tool_choice", "tools", "top_p", "top_k", "cache_control"),
    ]
)
blocks = st.sampled_from([text("a"), CALL, result(), result([PNG]), PNG, {"type": "document", "source": PLAIN}, {"type": "x"}])
turns = st.fixed_dictionaries({"role": words, "content": st.lists(blocks | values, max_size=4) | st.text(max_size=3)})


def translate_if_possible(body: bytes) -> None:
    """Everything that the server does with a body before it is sent; anything but a RequestError is a failure."""
    api = MessagesApi()
    with suppress(RequestError):
        request = api.parse(body)
        api.view(request, 2)
        api.translator(request, CHAT).body_for("big")


@given(fields=st.dictionaries(fields_of_a_request, values, max_size=5))
def test_no_json_makes_the_translation_fail(fields: dict[str, Any]) -> None:
    translate_if_possible(encoded(**fields))


@given(conversation=st.lists(turns, max_size=3))
def test_no_conversation_makes_the_translation_fail(conversation: list[Any]) -> None:
    translate_if_possible(encoded(messages=conversation))


RICH = encoded(messages=[user(text("é"), PNG), {"role": "assistant", "content": [CALL]}, user(result())], tools=[TOOL])


@given(at=st.integers(0, len(RICH) - 1), byte=st.integers(0, 255))
def test_no_broken_byte_makes_the_translation_fail(at: int, byte: int) -> None:
    translate_if_possible(RICH[:at] + bytes([byte]) + RICH[at + 1 :])


def test_depth_is_refused_and_not_fatal() -> None:
    deep = b'{"type":"object","properties":' * 100_000 + b"1" + b"}" * 100_000
    body = encoded(tools=[]).replace(b'"tools": []', b'"tools": [{"name": "f", "input_schema": ' + deep + b"}]")
    api = MessagesApi()
    with pytest.raises(RequestError, match="nested too deeply"):
        api.translator(api.parse(body), CHAT)
