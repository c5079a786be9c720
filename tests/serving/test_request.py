"""Reading a request and writing it again with another model: every byte but the model's stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm.errors import BodyTooLargeError, RequestError
from routellm.serving.request import ClientGoneError, parse_request, read_body

MESSAGES = b'[{"role":"user","content":"hi"}]'

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
spaces = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes, str]:
    """A valid body with odd spacing and escapes; the same with the model "X"; and the model's name."""
    model = draw(st.text(max_size=20))
    others = draw(st.dictionaries(st.text().filter(lambda key: key not in ("model", "messages")), values, max_size=5))
    pairs = [("model", model), ("messages", [{"role": "user", "content": model}]), *others.items()]
    given_body, wanted = ["{"], ["{"]
    for number, (name, value) in enumerate(draw(st.permutations(pairs))):
        ascii_only = draw(st.booleans())
        before = ("," if number else "") + draw(spaces) + json.dumps(name, ensure_ascii=ascii_only) + draw(spaces) + ":"
        before += draw(spaces)
        text, after = json.dumps(value, ensure_ascii=ascii_only), draw(spaces)
        given_body.append(before + text + after)
        wanted.append(before + ('"X"' if name == "model" else text) + after)
    # json.dumps leaves lone surrogates as they are only where ensure_ascii is off; st.text() makes none.
    return "".join([*given_body, "}"]).encode(), "".join([*wanted, "}"]).encode(), model


@given(bodies())
def test_only_the_model_changes(case: tuple[bytes, bytes, str]) -> None:
    body, wanted, model = case
    request = parse_request(body, ("messages",))
    assert request.model == model
    assert request.body_for("X") == wanted


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"mod\\u0065l": "a", "messages": []}', b'{"mod\\u0065l": "X", "messages": []}'),
        (b' {"messages":["\\"a\\"", "a"],"model":"a","metadata":{"model":"a"}} ', None),
        (b'{"model":"a","messages":[],"n":1e5,"big":123456789012345678901234567890,"x":"\\ud83d\\ude00"}', None),
        (b'{"model":"a","messages":[],"text":"\xff\xfe not UTF-8"}', None),
    ],
)
def test_bytes_that_a_decoder_would_have_changed(body: bytes, wanted: bytes | None) -> None:
    assert parse_request(body, ("messages",)).body_for("X") == (wanted or body.replace(b'"model":"a"', b'"model":"X"', 1))


def test_the_model_is_written_as_json() -> None:
    assert b'"model":"a \\"b\\" \xc3\xa9"' in parse_request(b'{"model":"m","messages":[]}', ("messages",)).body_for('a "b" é')


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"evil","model":"router-mf","messages":[]}',
        b'{"model":"router-mf","messages":[],"model":"router-mf"}',
        b'{"a":{"z":1,"model":"x"},"model":"router-mf","messages":[],"a":{"z":1}}',
        b'{"model":"router-mf","mod\\u0065l":"evil","messages":[]}',
        b'{"model":"router-mf","messages":[1],"messages":[]}',
    ],
)
def test_a_field_given_twice_is_refused_since_a_model_might_read_the_other_one(body: bytes) -> None:
    with pytest.raises(RequestError, match="twice"):
        parse_request(body, ("messages",)).body_for("X")


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "JSON object"),
        (b"{", None, "JSON object"),
        (b"[]", None, "JSON object"),
        (b'"text"', None, "JSON object"),
        (b"\xef\xbb\xbf{}", None, "JSON object"),
        (b"{'model': 1}", None, "JSON object"),
        (b'{"a": NaN}', None, "JSON object"),
        (b'{"a": 1} trailing', None, "JSON object"),
        (b'{"\xff": 1}', None, "JSON object"),
        (b'{"a":' * 100_000, None, "JSON object"),
        (b"{}", "model", "no `model`"),
        (b'{"model": "router-mf"}', "messages", "no `messages`"),
        (b'{"model": 4, "messages": []}', "model", "must be a string"),
        (b'{"model": null, "messages": []}', "model", "must be a string"),
        (b'{"model": "\\ud800", "messages": []}', None, "lone surrogate"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "a\\udc00b"}]}', None, "lone surrogate"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, param: str | None, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        parse_request(body, ("messages",))
    assert caught.value.param == param


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_anything_but_read_or_refused(body: bytes) -> None:
    try:
        request = parse_request(body, ("messages",))
    except RequestError:
        return
    assert isinstance(request.model, str)


def receiver(*events: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    waiting = list(events)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return receive


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def read(limit: int, *events: dict[str, Any], length: int | None = None) -> bytes:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return asyncio.run(read_body({"headers": headers}, receiver(*events), limit))


def test_a_body_is_joined_from_its_pieces() -> None:
    assert read(4, piece(b"ab", more=True), piece(b"", more=True), piece(b"cd", more=False), length=4) == b"abcd"


def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(BodyTooLargeError):
        read(4, length=5)  # no event to receive: reading one would fail


def test_an_undeclared_length_over_the_limit_is_refused() -> None:
    with pytest.raises(BodyTooLargeError):
        read(4, piece(b"abc", more=True), piece(b"de", more=True))


def test_a_client_that_leaves_while_sending() -> None:
    with pytest.raises(ClientGoneError):
        read(9, piece(b"abc", more=True), {"type": "http.disconnect"})
