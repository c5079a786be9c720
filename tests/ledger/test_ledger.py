from __future__ import annotations

import logging
import stat
import threading
from pathlib import Path

import pytest

from routellm.costs import PriceList, own_price
from routellm.errors import ConfigError, LedgerError
from routellm.ledger.ledger import Ledger
from routellm.ledger.rows import Terms
from routellm.ledger.settings import LedgerSettings
from routellm.types import ModelPair, Usage
from tests.conftest import hide, require
from tests.ledger.making import NOON, PATIENCE, STRONG, TERMS, WEAK, made, opened, stored, write

SQL = "'); DROP TABLE requests; --"


def test_what_is_recorded_is_what_is_stored(url: str) -> None:
    usage = Usage(input_tokens=1200, output_tokens=30, cached_input_tokens=200)
    write(
        url,
        made(1, key="key-1", model=STRONG, win_rate=0.75, usage=usage, prompt="Hello", streamed=True, attempts=2),
        made(2, model=None, reason=None, router=None, threshold=None, win_rate=None, usage=None, outcome="refused", status=400,
             error="invalid_threshold", first_byte_ms=None),
        prompts=True,
    )  # fmt: skip
    first, second = stored(url)
    assert {name: first[name] for name in ("request_id", "at", "key", "api", "asked", "outcome", "status", "error")} == {
        "request_id": "request-1",
        "at": round((NOON + 1) * 1e6),
        "key": "key-1",
        "api": "chat",
        "asked": "router-mf-0.5",
        "outcome": "answered",
        "status": 200,
        "error": None,
    }
    assert (first["model"], first["role"], first["reason"], first["router"]) == (STRONG, "strong", "threshold", "mf")
    assert (first["threshold"], first["win_rate"], first["decision_us"]) == (0.5, 0.75, 100.0)
    assert (first["streamed"], first["attempts"], first["prompt"]) == (True, 2, "Hello")
    assert (first["own_ms"], first["upstream_ms"], first["first_byte_ms"]) == (0.5, 20.0, 12.5)
    assert (first["input_tokens"], first["output_tokens"], first["cached_input_tokens"]) == (1200, 30, 200)
    assert first["estimated"] is False
    # 1000 tokens at $2.5, 200 at $1.25 and 30 at $10 a million; the weak model has no cached price of its own
    assert first["nanodollars"] == first["strong_nanodollars"] == 1000 * 2500 + 200 * 1250 + 30 * 10_000
    assert first["weak_nanodollars"] == 1200 * 150 + 30 * 600
    empty = ("model", "role", "router", "win_rate", "input_tokens", "estimated", "nanodollars", "strong_nanodollars", "prompt")
    assert {name: second[name] for name in empty} == dict.fromkeys(empty)
    assert (second["status"], second["outcome"], second["error"]) == (400, "refused", "invalid_threshold")


def test_sql_in_every_field_is_text(url: str) -> None:
    texts = dict.fromkeys(("request_id", "api", "asked", "key", "model", "reason", "router", "error", "prompt"), SQL)
    write(url, made(1, **texts), made(2), prompts=True)
    hostile, _ = stored(url)
    assert {name: hostile[name] for name in texts} == {name: SQL[:32] if name == "api" else SQL for name in texts}


def test_text_that_no_database_takes_is_mended(url: str) -> None:
    write(url, made(asked="a\0b\ud800c", request_id="\0", key="\U0001f600" * 500, prompt="x\0\udfff\u4e2d"), prompts=True)
    (row,) = stored(url)
    assert (row["asked"], row["request_id"], row["prompt"]) == ("a\ufffdb?c", "\ufffd", "x\ufffd?\u4e2d")
    assert row["key"] == "\U0001f600" * 128


def test_numbers_out_of_all_bounds_are_stored(url: str) -> None:
    usage = Usage(input_tokens=10**30, output_tokens=2**63)
    write(url, made(1, at=float("inf"), status=10**9, usage=usage), made(2, at=1e300), made(3, at=-5.0))
    rows = stored(url)
    assert [row["at"] for row in rows] == [0, 253_402_300_799_999_999, 0]
    assert (rows[0]["status"], rows[0]["input_tokens"]) == (32_767, 2**62)


def test_what_the_database_refuses_is_dropped_alone(url: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = opened(url, batch_seconds=0.2)
    for number in range(7):
        ledger.record(made(number, attempts=2**70 if number == 3 else 1))
    ledger.close()
    assert [row["request_id"] for row in stored(url)] == [f"request-{number}" for number in (0, 1, 2, 4, 5, 6)]
    assert (ledger.status().written, ledger.status().dropped) == (6, 1)
    assert "refuses the row of request request-3" in caplog.text


def test_what_is_no_record_does_not_end_the_writing(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = opened(sqlite_url, batch_seconds=0.2)
    for record in (made(1), made(2, at="noon"), made(3)):
        ledger.record(record)
    ledger.close()
    assert [row["request_id"] for row in stored(sqlite_url)] == ["request-1", "request-3"]
    assert (ledger.status().written, ledger.status().dropped) == (2, 1)
    assert "no row can be made of request request-2" in caplog.text


def test_a_price_that_is_not_known_is_null_and_not_nought(url: str) -> None:
    ledger = Ledger.open(url, LedgerSettings(), Terms(ModelPair(STRONG, WEAK), PriceList({WEAK: own_price(0.0, 0.0)})))
    ledger.record(made(1))
    ledger.record(made(2, model="openai/spare"))
    ledger.close()
    prices = [(row["nanodollars"], row["strong_nanodollars"], row["weak_nanodollars"]) for row in stored(url)]
    assert prices == [(0, None, 0), (None, None, 0)]


def test_other_terms_hold_from_the_next_record_on(sqlite_url: str) -> None:
    ledger = opened(sqlite_url, batch_seconds=1.0)
    ledger.record(made(1))
    ledger.renew(Terms(ModelPair(WEAK, "openai/tiny"), TERMS.prices))
    ledger.record(made(2))
    ledger.close()
    assert [row["role"] for row in stored(sqlite_url)] == ["weak", "strong"]


def test_more_than_fits_is_dropped_and_counted_and_told_once(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = opened(sqlite_url, batch_rows=10, buffer_rows=10, batch_seconds=1.0, prompts=True, redact=f"{__name__}:wait")
    GO.clear()
    try:
        ledger.record(made(0, prompt="the writer waits in its redaction"))
        assert TAKEN.wait(PATIENCE)
        for number in range(1, 31):
            ledger.record(made(number))
        status = ledger.status()
        assert (status.buffered, status.written, status.dropped) == (10, 0, 21)
    finally:
        GO.set()
    assert ledger.flush(PATIENCE)
    ledger.close()
    assert [row["request_id"] for row in stored(sqlite_url)] == [f"request-{number}" for number in range(10)]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "21 were dropped; serving goes on" in caplog.text


TAKEN, GO = threading.Event(), threading.Event()


def wait(prompt: str) -> str:
    TAKEN.set()
    assert GO.wait(PATIENCE)
    return prompt


def test_too_much_waiting_text_is_left_out_of_its_rows(sqlite_url: str) -> None:
    ledger = opened(sqlite_url, batch_seconds=1.0, prompts=True, buffer_prompt_megabytes=0.001)
    for number in range(3):
        ledger.record(made(number, prompt="x" * 400))
    ledger.close()
    assert [row["prompt"] for row in stored(sqlite_url)] == ["x" * 400, "x" * 400, None]
    assert ledger.status().prompts_left_out == 1


def test_prompts_are_not_kept_unless_that_is_switched_on(sqlite_url: str) -> None:
    write(sqlite_url, made(prompt="a secret"))
    assert stored(sqlite_url)[0]["prompt"] is None
    assert b"a secret" not in Path(sqlite_url).read_bytes()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    ledger = opened(str(path))
    ledger.record(made())
    assert ledger.flush()
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ledger.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://u:geheim@host/db", "postgresql://USER"),
        ("mysql://u:ge/geheim@x@host/db?password=geheim&x=1", "postgresql://USER"),
        ("sqlite://", "path of an SQLite file"),
        ("://", "path of an SQLite file"),
        ("/proc/nowhere/ledger.sqlite", "can't be kept"),
        ("/proc", "can't be kept at '/proc': Is a directory"),
        ("/proc/version/ledger.sqlite", "can't be kept"),
    ],
)
def test_a_place_that_can_not_be(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        opened(given)
    assert "geheim" not in str(caught.value)


def test_a_link_to_a_file_that_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "ledger.sqlite"
    link.symlink_to(tmp_path / "elsewhere.sqlite")
    ledger = opened(str(link))
    ledger.record(made())
    assert ledger.flush()
    ledger.close()
    assert link.is_symlink()
    assert stat.S_IMODE((tmp_path / "elsewhere.sqlite").stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        opened(str(path))
    assert path.read_text().startswith("not a database")


def test_without_its_driver_postgresql_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("psycopg", monkeypatch)
    with pytest.raises(ConfigError, match=r'pip install "routellm\[postgres\]"'):
        opened("postgresql://localhost/routellm")


def test_no_repr_and_no_message_shows_the_password(caplog: pytest.LogCaptureFixture) -> None:
    require("psycopg")
    url = "postgresql://me:geheim@127.0.0.1:1/none?sslpassword=geheim"
    assert "geheim" not in repr(LedgerSettings(url=url))
    ledger = opened(url)
    ledger.record(made())
    ledger.close(timeout=0.1)
    assert "can't be opened yet" in caplog.text
    assert "1 requests are lost" in caplog.text
    assert "geheim" not in caplog.text
    assert "geheim" not in str(ledger.status())


@pytest.mark.parametrize(
    "wrong", [{"batch_seconds": 2.0}, {"buffer_rows": 3}, {"retention_days": 0.0}, {"redact": "no colon"}, {"redact": "a:b"}]
)
def test_settings_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LedgerSettings(**wrong)  # type: ignore[arg-type]
