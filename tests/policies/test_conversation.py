from __future__ import annotations

from typing import Any

import msgspec
import pytest

from routellm.policies.conversation import conversation_of

HEADER = b"x-routellm-conversation"

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello!"}
HI = {"role": "assistant", "content": "Hi."}
MORE = {"role": "user", "content": "Tell me more."}


def fields_of(body: Any) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, msgspec.Raw])


def named(by: str, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> bytes | None:
    return conversation_of(by, HEADER, headers or [], fields_of(body))


def test_the_header_names_it() -> None:
    headers = [(b"host", b"here"), (HEADER, b"c-1")]
    assert named("header", {"user": "u"}, headers) == b"c-1"
    assert named("header", {"user": "u"}, [(HEADER, b"")]) is None
    assert named("header", {"user": "u"}) is None


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ({"conversation": "conv_1", "user": "u"}, {"user": "u"}),
        ({"conversation": {"id": "conv_1"}, "prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
        ({"prompt_cache_key": "k", "user": "u"}, {"user": "u"}),
        ({"metadata": {"user_id": "session_1"}}, {"metadata": {"user_id": "session_2"}}),
        ({"safety_identifier": "s", "user": "u"}, {"user": "u"}),
    ],
)
def test_the_narrowest_field_of_the_body_names_it(narrow: Any, wide: Any) -> None:
    assert named("user", narrow) is not None
    assert named("user", wide) is not None
    assert named("user", narrow) != named("user", wide)


def test_equal_values_of_other_fields_are_other_conversations() -> None:
    assert named("user", {"user": "a"}) != named("user", {"prompt_cache_key": "a"})


@pytest.mark.parametrize("body", [{}, {"user": None}, {"user": ""}, {"metadata": {"topic": "x"}}, {"metadata": 5}])
def test_a_body_without_such_a_field_names_none(body: Any) -> None:
    assert named("user", body) is None


def test_later_turns_have_the_same_beginning() -> None:
    first = named("start", {"messages": [SYSTEM, HELLO]})
    assert first is not None
    assert named("start", {"messages": [SYSTEM, HELLO, HI, MORE]}) == first
    assert named("start", {"messages": [HELLO, HI, MORE]}) != first
    assert named("start", {"messages": [SYSTEM, MORE]}) != first


def test_marks_of_caching_and_the_way_a_text_is_wrapped_do_not_matter() -> None:
    plain = named("start", {"system": "Be brief.", "messages": [HELLO]})
    marked = {"type": "text", "text": "Hello!", "cache_control": {"type": "ephemeral"}}
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert named("start", {"system": system, "messages": [{"role": "user", "content": [marked]}, HI, MORE]}) == plain


def test_an_image_is_part_of_the_beginning() -> None:
    def body(url: str) -> Any:
        return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}

    assert named("start", body("a")) is not None
    assert named("start", body("a")) != named("start", body("b"))


def test_the_responses_api_is_read_too() -> None:
    short = named("start", {"instructions": "Be brief.", "input": "Hello!"})
    assert short == named("start", {"instructions": "Be brief.", "input": [HELLO, HI, {"type": "reasoning"}, MORE]})
    assert named("start", {"input": "More!", "previous_response_id": "resp_1"}) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [SYSTEM]},
        {"messages": 5},
        {"messages": [5]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"text": 5}]}]},
    ],
)
def test_what_has_no_beginning_names_no_conversation(body: Any) -> None:
    assert named("start", body) is None


def test_bytes_that_are_no_text_name_no_conversation() -> None:
    for raw in (b'"\xff"', b'"\\ud83d"', b"[" * 5_000 + b"]" * 5_000):
        fields = {"messages": msgspec.Raw(b'[{"role": "user", "content": ' + raw + b"}]")}
        assert conversation_of("start", HEADER, [], fields) is None
