"""Headers as values: what goes up, what comes back, what is added."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routellm.serving.headers import decision_headers, headers_for_client, headers_for_upstream, request_id_of
from routellm.types import Decision
from routellm.upstream.base import joined
from routellm.upstream.local import AsyncReply, once


@given(st.text(), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_any_decision_fits_into_headers(model: str, router: str, threshold: float, win_rate: float) -> None:
    for value in decision_headers(Decision(model, "threshold", router, threshold, win_rate, 12.6)).values():
        assert all(0x21 <= byte <= 0x7E for byte in value)


def test_numbers_are_short_and_plain() -> None:
    headers = decision_headers(Decision("m", "threshold", "mf", 0.11593, 1 / 3, 12.6))
    assert headers[b"x-routellm-threshold"] == b"0.11593"
    assert headers[b"x-routellm-win-rate"] == b"0.333333"
    assert headers[b"x-routellm-decision-us"] == b"13"


def test_plain_names_stay_as_they_are() -> None:
    name = "anyscale/mistralai/Mixtral-8x7B-Instruct-v0.1:free@x"
    assert decision_headers(Decision(name, "pinned"))[b"x-routellm-model"] == name.encode()


def test_a_content_type_is_added_only_where_there_is_none() -> None:
    assert headers_for_upstream({}, "r")["content-type"] == "application/json"
    assert headers_for_upstream({b"content-type": b"text/json"}, "r")["content-type"] == "text/json"


def test_credentials_and_addresses_stay_here() -> None:
    private = [b"authorization", b"api-key", b"x-api-key", b"cookie", b"x-forwarded-for", b"forwarded", b"x-real-ip", b"host"]
    assert headers_for_upstream(dict.fromkeys(private, b"secret"), "r") == {
        "content-type": "application/json",
        "x-request-id": "r",
    }


def test_what_the_connection_names_ends_with_it() -> None:
    headers = {b"x-hop": b"1", b"connection": b"close, X-Hop", b"x-end": b"2"}
    assert "x-hop" not in headers_for_upstream(headers, "r")
    assert headers_for_upstream(headers, "r")["x-end"] == "2"


def test_an_upstream_can_t_set_what_is_ours() -> None:
    theirs = {
        b"x-request-id": b"up",
        b"x-routellm-model": b"forged",
        b"set-cookie": b"a",
        b"strict-transport-security": b"x",
        b"etag": b"e",
    }
    assert headers_for_client(theirs) == {b"etag": b"e", b"x-upstream-request-id": b"up"}


def test_bytes_of_a_header_come_back_as_they_were() -> None:
    for raw in (b"caf\xc3\xa9", b"caf\xe9"):
        assert AsyncReply(200, {"x-name": raw.decode("utf-8", "surrogateescape")}, once(b"")).fields() == {b"x-name": raw}


def test_headers_that_repeat_become_one() -> None:
    assert joined([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1, 3", b"b": b"2"}
    assert joined([]) == {}


def test_request_ids() -> None:
    assert request_id_of(b"a.b_c:d/e+f=g@h~1-2") == "a.b_c:d/e+f=g@h~1-2"
    made = {request_id_of(b"not\tthis") for _ in range(100)}
    assert len(made) == 100
