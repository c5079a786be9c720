from __future__ import annotations

import json
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest

from routellm import cli
from routellm.keys.command import main
from tests.keys.making import admitted, guarding


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    return str(tmp_path / "ledger.sqlite")


def test_from_the_making_of_a_key_to_its_end(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = (
        "--routers mf random --models --threshold-min 0.25 --requests-per-minute 60 --dollars-per-day 0.5 --over-budget weak"
    )
    assert main(["create", "team a", "--ledger", ledger, *bounds.split(), "--expires", "2099-01-31"]) == 0
    out, err = capsys.readouterr()
    text = out.strip()
    assert out == f"{text}\n"
    id = text.split("-")[1]
    assert "This is the only time its text is shown." in err
    assert text not in err
    assert main(["list", "--ledger", ledger]) == 0
    listed = capsys.readouterr().out
    assert f"{id}  team a  active" in listed
    assert "2099-01-31T00:00:00Z  routers mf, random; models none; threshold_min 0.25; requests_per_minute 60; " in listed
    assert text.split("-", 2)[2] not in listed
    with guarding(ledger) as guard:
        assert admitted(guard, text).policy.models == ()
    assert main(["rotate", id, "--ledger", ledger, "--overlap", "12h", "--json"]) == 0
    rotated = json.loads(capsys.readouterr().out)
    assert (rotated["id"], rotated["state"]) == (id, "active")
    assert rotated["key"].startswith(f"rlk-{id}-")
    assert rotated["key"] != text
    assert main(["list", "--ledger", ledger]) == 0
    assert "active, old text until" in capsys.readouterr().out
    assert main(["revoke", id, "--ledger", ledger]) == 0
    assert capsys.readouterr().out == f"Revoked {id} (team a).\n"
    assert main(["list", "--ledger", ledger, "--json"]) == 0
    (key,) = json.loads(capsys.readouterr().out)
    assert key["state"] == "revoked"
    assert key["policy"]["over_budget"] == "weak"
    assert not {"key", "hash", "previous_hash"} & set(key)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["create"], "create takes a name"),
        (["list", "abc"], "list takes nothing more"),
        (["rotate"], "rotate takes an id"),
        (["revoke", "nosuchkey123"], "no key with the id 'nosuchkey123'"),
        (["list", "--routers", "mf"], "--routers does not go with list"),
        (["create", "a", "--overlap", "1h"], "--overlap does not go with create"),
        (["create", "a", "--threshold-min", "2"], "threshold_min is 2.0; it must be from 0 to 1"),
        (["create", "a", "--requests-per-minute", "0"], "requests_per_minute is 0"),
        (["create", "a", "--expires", "soon"], "'soon' is no time"),
        (["create", "a", "--expires", "2001-01-01"], "yet to come"),
        (["create", ""], "1 to 128 printable"),
        (["rotate", "abc", "--overlap", "12"], "'12' is no age"),
        (["delete", "abc"], "invalid choice: 'delete'"),
    ],
)
def test_mistakes_take_one_line(ledger: str, capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit) if argv[0] == "delete" else nullcontext():
        assert main([*argv, "--ledger", ledger]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("routellm: error: ")
    assert message in err


def test_a_file_that_is_no_database(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(ledger).write_text("nothing of the kind, and long enough to be looked at as the header of a database\n" * 20)
    assert main(["list", "--ledger", ledger]) == 1
    assert "can't be opened: file is not a database" in capsys.readouterr().err


def test_a_name_can_not_steer_a_terminal_or_a_database(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "[red]'); DROP TABLE keys;--", "--ledger", ledger]) == 0
    assert main(["list", "--ledger", ledger]) == 0
    assert "[red]'); DROP TABLE keys;--" in capsys.readouterr().out
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (1,)
    connection.close()


def test_the_ledger_of_a_configuration_has_the_keys(ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"gateway:\n  ledger:\n    url: {ledger}\n")
    assert cli.main(["keys", "create", "team a", "--config", str(config)]) == 0
    assert cli.main(["keys", "list", "--ledger", ledger]) == 0
    assert "team a" in capsys.readouterr().out
