from __future__ import annotations

import time
from pathlib import Path

import pytest

from routellm.errors import KeyNotFoundError, RequestError
from routellm.keys.client import Keyring
from routellm.keys.policy import KeyPolicy
from routellm.keys.store import KeyStore
from tests.keys.making import made

SQL = "'); DROP TABLE keys; --"


def test_a_key_is_kept_as_it_was_made_but_for_its_text(url: str) -> None:
    key, text = made(url, expires=4_000_000_000, routers=("mf",), threshold_min=0.25, dollars_per_day=0.1, over_budget="weak")
    store = KeyStore.open(url)
    assert store.all() == [store.get(key.id)] == [key]
    with store.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM keys").one()
    store.close()
    assert text.startswith(f"rlk-{key.id}-")
    secret = text.split("-", 2)[2]
    assert len(secret) == 43
    assert secret not in repr(row)
    assert secret not in repr(key)
    assert key.hash.hex() not in repr(key)


def test_no_two_are_alike(sqlite_url: str) -> None:
    store = KeyStore.open(sqlite_url)
    texts = {store.create("same name", KeyPolicy())[1] for _ in range(20)}
    assert len(texts) == len(store.all()) == 20
    store.close()


def test_sql_in_every_field_is_text(url: str) -> None:
    key, _ = made(url, SQL, routers=(SQL,), models=(SQL,))
    store = KeyStore.open(url)
    for hostile in (SQL, f"{key.id}' OR '1'='1", "%", "\0"[:0] + "'"):
        for ask in (store.get, store.revoke, lambda id: store.rotate(id, 0)):
            with pytest.raises(KeyNotFoundError):
                ask(hostile)
    assert store.all() == [key]
    assert key.name == SQL
    store.close()


def test_rotation_keeps_the_old_text_good_until_the_overlap_ends(url: str) -> None:
    key, old = made(url)
    store = KeyStore.open(url)
    rotated, new = store.rotate(key.id, 3600)
    ring, now = Keyring(), time.time()
    ring.replace(store.all())
    for text in (old, new):
        client = ring.find(text.encode(), now)
        assert client is not None
        assert client.id == key.id
    assert rotated.previous_until is not None
    assert ring.find(old.encode(), rotated.previous_until) is None
    assert ring.find(new.encode(), rotated.previous_until) is not None
    _, newest = store.rotate(key.id, 0)
    ring.replace(store.all())
    assert [ring.find(text.encode(), time.time()) is not None for text in (old, new, newest)] == [False, False, True]
    store.close()


def test_revoked_and_expired_keys_can_not_be_rotated(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = made(sqlite_url, expires=int(time.time()) + 1000)
    store = KeyStore.open(sqlite_url)
    later = time.time() + 2000
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(RequestError, match="is expired"):
        store.rotate(key.id, 0)
    first = store.revoke(key.id).revoked
    monkeypatch.undo()
    assert store.revoke(key.id).revoked == first, "the time of revocation stays"
    with pytest.raises(RequestError, match="is revoked"):
        store.rotate(key.id, 0)
    store.close()


@pytest.mark.parametrize("name", ["", "x" * 129, "two\nlines", "\x1b[2J"])
def test_names_that_can_not_be_shown_are_refused(sqlite_url: str, name: str) -> None:
    with pytest.raises(RequestError, match="1 to 128 printable characters"):
        made(sqlite_url, name)


@pytest.mark.parametrize("expires", [0, -5, 10**15])
def test_a_key_must_expire_in_the_future(sqlite_url: str, expires: int) -> None:
    with pytest.raises(RequestError, match="yet to come"):
        made(sqlite_url, expires=expires)


def test_a_broken_row_shuts_out_that_key_alone(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    good, _ = made(sqlite_url)
    bad, _ = made(sqlite_url)
    store = KeyStore.open(sqlite_url)
    with store.engine.begin() as connection:
        connection.exec_driver_sql('UPDATE keys SET policy = \'{"of": "tomorrow"}\' WHERE id = ?', (bad.id,))
    assert store.all() == [good]
    assert bad.id in caplog.text
    store.close()


def test_the_database_is_its_owners_alone(sqlite_url: str) -> None:
    made(sqlite_url)
    assert Path(sqlite_url).stat().st_mode & 0o077 == 0
