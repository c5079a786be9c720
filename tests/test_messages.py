from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routellm.errors import RequestError
from routellm.messages import PromptFrom, PromptView, RouterTarget, encode_messages, parse_model_name, read_prompt

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)
parts = st.lists(
    st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(["text", "image_url", "x"]) | json_values, "text": json_values}
    ),
    max_size=3,
)
near_messages = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "assistant", "tool"]) | json_values, "content": json_values | parts}
    ),
    max_size=5,
)
prompt_from = st.sampled_from(["last", "first", 1, 2, 5])


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def read(messages: Any, which: PromptFrom = "last") -> PromptView:
    return read_prompt(json.dumps(messages).encode(), which)


# What decides


def test_the_last_user_message_decides_also_when_tool_results_follow() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        user("first"),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        user("second"),
        {"role": "assistant", "content": "let me look", "tool_calls": [{"id": "2"}]},
        {"role": "tool", "content": "a long result", "tool_call_id": "2"},
    ]
    assert read(messages) == PromptView("second")
    assert read(messages, "first") == PromptView("first")
    assert read(messages, 1) == PromptView("second")
    assert read(messages, 2) == PromptView("first\n\nsecond")
    assert read(messages, 9) == PromptView("first\n\nsecond")


def test_of_content_parts_the_text_decides_and_the_other_kinds_are_noted() -> None:
    view = read(
        [
            user(
                [
                    {"type": "text", "text": "what is"},
                    {"type": "image_url", "image_url": {"url": "data:..."}},
                    {"type": "text", "text": "this?"},
                    {"type": "input_audio", "input_audio": {}},
                    {"type": "something_new", "text": 3},
                ]
            )
        ]
    )
    assert view == PromptView("what is\nthis?", frozenset({"image", "audio"}))


def test_an_image_in_an_earlier_turn_is_noted_too() -> None:
    view = read([user([{"type": "image_url", "image_url": {}}]), {"role": "assistant", "content": "a cat"}, user("and now?")])
    assert view == PromptView("and now?", frozenset({"image"}))


@pytest.mark.parametrize(
    "messages",
    [
        [user("")],
        [user(" \n\t")],
        [user(None)],
        [user([])],
        [user([{"type": "text", "text": ""}])],
        [{"role": "user"}],
        [{"role": "system", "content": "no user here"}],
    ],
)
def test_without_text_of_the_user_there_is_no_prompt(messages: list[Any]) -> None:
    assert read(messages).text is None


# Bad input


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("hello", "messages"),
        ({}, "messages"),
        (None, "messages"),
        ([], "messages"),
        (["hello"], "messages"),
        ([{"content": "no role"}], "messages"),
        ([{"role": 3, "content": "x"}], "messages"),
        ([user(3)], "messages[0].content"),
        ([user({"text": "x"})], "messages[0].content"),
        ([user("ok"), user(True)], "messages[1].content"),
        ([user(["x"])], "messages[0].content[0]"),
        ([user([{"text": "no type"}])], "messages[0].content[0]"),
        ([user([{"type": "text"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": None}])], "messages[0].content[0].text"),
    ],
)
def test_wrong_messages_are_refused_and_the_place_is_named(messages: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(messages)
    assert caught.value.param == param


@pytest.mark.parametrize("raw", [b"", b"[", b"[{]", b'[{"role": "user", "content": "\xff"}]', b"\x00", b"[" * 100_000])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestError):
        read_prompt(raw)


@given(st.one_of(json_values, near_messages), prompt_from)
@example([user("\x00")], "last")
def test_any_json_gives_a_prompt_or_a_request_error(value: Any, which: PromptFrom) -> None:
    try:
        view = read(value, which)
    except RequestError:
        return
    assert view.text is None or view.text.strip()
    assert view.modalities <= {"image", "audio", "video", "file"}


@given(st.binary(max_size=200), prompt_from)
def test_any_bytes_give_a_prompt_or_a_request_error(raw: bytes, which: PromptFrom) -> None:
    try:
        read_prompt(raw, which)
    except RequestError:
        return


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_in_any_script_comes_through_unchanged(text: str) -> None:
    assert read([user(text)]).text == (text if text.strip() else None)
    assert read_prompt(encode_messages([user(text)])).text == (text if text.strip() else None)


def test_a_megabyte_comes_through() -> None:
    text = "жизнь " * 180_000
    assert read([user(text)]).text == text


# Messages as a Python caller gives them


def test_the_clients_own_message_objects_are_taken() -> None:
    class Message:
        def model_dump(self, *, exclude_unset: bool) -> dict[str, Any]:
            assert exclude_unset
            return {"role": "assistant", "content": "hi"}

    assert json.loads(encode_messages([Message(), user("x")])) == [{"role": "assistant", "content": "hi"}, user("x")]
    assert json.loads(encode_messages(iter([user("x")]))) == [user("x")]


@pytest.mark.parametrize("content", [SimpleNamespace(), "\ud800", {1, 2}.__iter__, 1j])
def test_what_json_has_no_form_for_is_refused(content: object) -> None:
    with pytest.raises(RequestError, match="can't be written as JSON") as caught:
        encode_messages([user(content)])
    assert caught.value.param == "messages"


def test_a_message_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {"role": "user"}
    loop["content"] = [loop]
    with pytest.raises(RequestError):
        encode_messages([loop])


# Model names

ROUTERS = ["mf", "random", "my-router", "my-router-2", "with_underscore"]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("router-mf-0.11593", RouterTarget("mf", 0.11593)),
        ("router-mf", RouterTarget("mf", None)),
        ("router-mf-0", RouterTarget("mf", 0.0)),
        ("router-mf-1", RouterTarget("mf", 1.0)),
        ("router-mf-1.0", RouterTarget("mf", 1.0)),
        ("router-mf-.5", RouterTarget("mf", 0.5)),
        ("router-mf-1e-05", RouterTarget("mf", 1e-5)),
        ("router-my-router-0.3", RouterTarget("my-router", 0.3)),
        ("router-my-router-2", RouterTarget("my-router-2", None)),
        ("router-my-router-2-0.3", RouterTarget("my-router-2", 0.3)),
        ("router-with_underscore-0.5", RouterTarget("with_underscore", 0.5)),
        ("gpt-4o", None),
        ("", None),
        ("Router-mf-0.5", None),
    ],
)
def test_a_model_name_names_a_router_and_a_threshold(name: str, target: RouterTarget | None) -> None:
    assert parse_model_name(name, ROUTERS) == target


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("router-", "unknown_router", "Served routers: mf,"),
        ("router-mff-0.5", "unknown_router", "the router 'mff', which is not served (did you mean 'mf'?)"),
        ("router-bert", "unknown_router", "'bert'"),
        ("router-0.5", "unknown_router", "router"),
        ("router-mf-", "invalid_threshold", "threshold ''"),
        ("router-mf-high", "invalid_threshold", "'high'; it must be a number from 0 to 1, as in router-mf-0.5"),
        ("router-mf-nan", "invalid_threshold", "'nan'"),
        ("router-mf-inf", "invalid_threshold", "'inf'"),
        ("router-mf-1_0", "invalid_threshold", "'1_0'"),
        ("router-mf--0.5", "invalid_threshold", "'-0.5'"),
        ("router-mf-0x1", "invalid_threshold", "'0x1'"),
        ("router-mf- 0.5", "invalid_threshold", "' 0.5'"),
        ("router-mf-1.5", "invalid_threshold", "1.5"),
        ("router-mf-1e999", "invalid_threshold", "must lie from 0"),
    ],
)
def test_a_wrong_model_name_is_refused_with_what_is_allowed(name: str, code: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_model_name(name, ROUTERS)
    assert (caught.value.code, caught.value.param) == (code, "model")
    assert said in str(caught.value)


@given(st.sampled_from(ROUTERS), st.floats(0.0, 1.0))
def test_every_threshold_survives_the_way_through_a_name(router: str, threshold: float) -> None:
    assert parse_model_name(f"router-{router}-{threshold!r}", ROUTERS) == RouterTarget(router, threshold)


@given(st.text() | st.text().map("router-".__add__) | st.text().map("router-mf-".__add__))
def test_any_name_gives_a_target_or_none_or_a_request_error(name: str) -> None:
    try:
        target = parse_model_name(name, ROUTERS)
    except RequestError:
        assert name.startswith("router-")
        return
    assert (target is None) == (not name.startswith("router-"))
    if target is not None:
        assert target.router in ROUTERS
        assert target.threshold is None or 0.0 <= target.threshold <= 1.0
