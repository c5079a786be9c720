"""Who is let in, and who isn't."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time

import pytest

from routellm.errors import InvalidKeyError, KeysUnavailableError
from routellm.keys.client import ANONYMOUS
from routellm.keys.guard import Guard
from routellm.keys.secret import key_text
from routellm.keys.store import KeyStore
from routellm.serving.errors import render_error
from tests.keys.making import NOON, PATIENCE, admitted, bearer, guarding, made, set_clock
from tests.ledger.postgres import PostgresServer


def refusal(guard: Guard, headers: list[tuple[bytes, bytes]]) -> InvalidKeyError:
    with pytest.raises(InvalidKeyError) as caught:
        guard.admit(headers, "192.0.2.7")
    return caught.value


def refused_soon(guard: Guard, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            guard.admit(bearer(text))
        except InvalidKeyError:
            return
        assert time.monotonic() < deadline, "it is let in still"
        time.sleep(0.01)


def test_both_ways_to_send_a_key(sqlite_url: str) -> None:
    key, text = made(sqlite_url, threshold_min=0.5)
    with guarding(sqlite_url) as guard:
        for headers in (
            bearer(text),
            [(b"authorization", b"bearer  " + text.encode())],
            [(b"x-api-key", text.encode())],
            [(b"authorization", b"Bearer sk-of-something-else"), (b"x-api-key", text.encode())],
            [(b"x-api-key", text.encode()), (b"authorization", b"Bearer sk-of-something-else")],
        ):
            client = guard.admit(headers)
            assert (client.id, client.name, client.policy.threshold_min) == (key.id, "team a", 0.5)


def test_wrong_revoked_and_expired_keys_get_the_same_answer(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = made(sqlite_url)
    revoked, revoked_text = made(sqlite_url)
    _, expired_text = made(sqlite_url, expires=int(time.time()) + 3600)
    store = KeyStore.open(sqlite_url)
    store.revoke(revoked.id)
    store.close()
    other = secrets.token_urlsafe(32)
    wrong = ["sk-1234", "rlk-", key_text(key.id, other), key_text("nosuchkey123", other), text[:-1], text + "x", "x" * 60_000]
    set_clock(monkeypatch, time.time() + 7200)
    with guarding(sqlite_url) as guard:
        bodies = set()
        for given in (*wrong, revoked_text, expired_text):
            reply = render_error(refusal(guard, bearer(given)), "req-1")
            assert reply.status == 401
            assert (b"www-authenticate", b"Bearer") in reply.headers
            bodies.add(reply.body)
        assert len(bodies) == 1
        assert b'"code":"invalid_api_key"' in bodies.pop()
        assert guard.admit(bearer(text)).id == key.id


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Basic dXNlcg==")], [(b"x-api-key", b"")]])
def test_no_key_at_all_is_told_how_to_send_one(sqlite_url: str, headers: list[tuple[bytes, bytes]]) -> None:
    with guarding(sqlite_url) as guard:
        assert "needs a key, and the request has none" in str(refusal(guard, headers))


def test_where_no_key_is_required_a_wrong_one_is_refused_still(sqlite_url: str) -> None:
    key, text = made(sqlite_url)
    with guarding(sqlite_url, required=False) as guard:
        assert guard.admit([]) is ANONYMOUS
        assert guard.admit(bearer("sk-anything")) is ANONYMOUS
        assert guard.admit(bearer(text)).id == key.id
        refusal(guard, bearer(text[:-1]))
    assert not ANONYMOUS.limited


def test_new_and_revoked_keys_are_taken_up_while_serving(url: str) -> None:
    with guarding(url) as guard, guarding(url) as other:
        key, text = made(url)
        assert admitted(guard, text).id == admitted(other, text).id == key.id
        guard.store.revoke(key.id)
        refused_soon(guard, text)
        refused_soon(other, text)


def test_a_key_ends_when_it_expires_and_an_overlap_when_it_ends(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    key, old = made(sqlite_url, expires=now + 7200)
    store = KeyStore.open(sqlite_url)
    rotated, new = store.rotate(key.id, 3600)
    store.close()
    clock = set_clock(monkeypatch, now)
    with guarding(sqlite_url) as guard:
        assert {guard.admit(bearer(text)).id for text in (old, new)} == {key.id}
        clock.now = float(rotated.previous_until or 0)
        refusal(guard, bearer(old))
        assert guard.admit(bearer(new)).id == key.id
        clock.now = now + 7200.0
        refusal(guard, bearer(new))
        clock.now = NOON - 10**9  # a clock that jumps back by decades brings no error
        assert guard.admit(bearer(new)).id == key.id


def test_a_storm_of_guesses_fills_neither_log_nor_memory_nor_database(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = made(sqlite_url)
    with guarding(sqlite_url) as guard:
        for number in range(5_000):
            refusal(guard, bearer(key_text(key.id, secrets.token_urlsafe(32))))
            if number % 100 == 0:
                assert guard.admit(bearer(text)).id == key.id
        states = guard.states()
        assert (states.unauthorized, states.waiting, states.keys, states.last_error) == (5_000, 0, 1, None)
    lines = [record for record in caplog.records if record.name == "routellm.keys"]
    assert len(lines) == 1
    assert "the last came from 192.0.2.7" in caplog.text


def test_no_key_appears_in_a_log_an_error_or_a_repr(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key, text = made(sqlite_url, requests_per_minute=1)
    secret = text.split("-", 2)[2]
    with guarding(sqlite_url) as guard:
        client = guard.admit(bearer(text))
        wrong = key_text(key.id, secret[:-1] + ("A" if secret[-1] != "A" else "B"))
        error = refusal(guard, bearer(wrong))
        shown = f"{client!r} {guard!r} {vars(guard)!r} {error!r} {render_error(error, 'req-1')!r} {caplog.text}"
    assert secret not in shown
    assert wrong not in shown
    assert key.hash.hex() not in shown


def test_a_database_that_is_not_there_yet_is_waited_for(
    postgres: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = made(postgres_url)
    with contextlib.ExitStack() as stack:
        postgres.stop()
        try:
            guard = stack.enter_context(guarding(postgres_url))
            with pytest.raises(KeysUnavailableError) as caught:
                guard.admit(bearer(text))
            assert render_error(caught.value, "req-1").status == 503
        finally:
            postgres.start()
        assert admitted(guard, text).id == key.id
    assert "can't be reached" in caplog.text
    assert "not-asked-for" not in caplog.text, "the database's password"
