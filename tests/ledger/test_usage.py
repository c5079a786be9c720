"""`routellm usage` against sums made by hand, and in every format."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from routellm.ledger.queries import BY, since
from routellm.ledger.usage import main
from routellm.tables import read_table
from routellm.types import Usage
from tests.conftest import require
from tests.ledger.making import NOON, STRONG, WEAK, made, write

DAY = 86_400
SPARE = "openai/spare"  # of no known price


@pytest.fixture
def filled(url: str) -> str:
    """A ledger of two days. Prices are $2.5 and $10 a million tokens for the strong model, $0.15 and $0.6 for the weak one."""
    write(
        url,
        made(1, key="ann", model=STRONG, usage=Usage(input_tokens=1000, output_tokens=400)),
        made(2, key="ann", model=WEAK, usage=Usage(input_tokens=2000, output_tokens=100)),
        made(3, key="bob", model=WEAK, usage=Usage(input_tokens=3000, output_tokens=200, estimated=True)),
        made(4, model=STRONG, reason="pinned", router=None, win_rate=None, usage=Usage(input_tokens=10, output_tokens=10)),
        made(5, at=NOON + DAY, model=SPARE, reason="fallback", router="bert", usage=Usage(input_tokens=7, output_tokens=9)),
        made(6, at=NOON + DAY, model=None, reason=None, router=None, usage=None, outcome="refused", status=400),
    )
    return url


FIRST, SECOND = "2026-05-28", "2026-05-29"
SPENT = {STRONG: Decimal("0.0065") + Decimal("0.000125"), WEAK: Decimal("0.00036") + Decimal("0.00057")}


def ok(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    code = main([*argv, "--since", "all"] if "--since" not in argv else list(argv))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def groups(capsys: pytest.CaptureFixture[str], url: str, *argv: str) -> dict[str | None, dict[str, Any]]:
    output = ok(capsys, "--ledger", url, "--format", "json", *argv)
    found = json.loads(output, parse_float=Decimal)["groups"]
    return {next(iter(one.values())): one for one in found}


def failed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("routellm: error: ")
    return captured.err


def test_by_model(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = groups(capsys, filled, "--by", "model")
    assert {name: (one["requests"], one["input_tokens"], one["output_tokens"]) for name, one in found.items()} == {
        STRONG: (2, 1010, 410),
        WEAK: (2, 5000, 300),
        SPARE: (1, 7, 9),
        None: (1, 0, 0),
    }
    assert {name: one["dollars"] for name, one in found.items() if name in SPENT} == SPENT
    assert (found[SPARE]["dollars"], found[SPARE]["unpriced_requests"]) == (0, 1)
    assert (found[None]["failed"], found[None]["unpriced_requests"]) == (1, 0)
    assert found[WEAK]["estimated_requests"] == 1


def test_by_day_with_savings(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = groups(capsys, filled)
    assert list(found) == [FIRST, SECOND]
    first = found[FIRST]
    assert (first["requests"], first["failed"], first["strong_share"]) == (4, 0, Decimal("0.5"))
    assert first["dollars"] == SPENT[STRONG] + SPENT[WEAK]
    # of the three routed requests: 6000 tokens in, 700 out
    assert first["compared_requests"] == 3
    assert first["compared_dollars"] == Decimal("0.0065") + SPENT[WEAK]
    assert first["always_strong_dollars"] == Decimal("0.015") + Decimal("0.007")
    assert first["always_weak_dollars"] == Decimal("0.0009") + Decimal("0.00042")
    assert first["saved_dollars"] == Decimal("0.022") - Decimal("0.00743")
    assert (found[SECOND]["saved_dollars"], found[SECOND]["strong_share"]) == (None, None)


def test_by_key_router_and_reason(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {
        by: {name: one["requests"] for name, one in groups(capsys, filled, "--by", by).items()}
        for by in ("key", "router", "reason")
    }
    assert counts == {
        "key": {"ann": 2, "bob": 1, None: 3},
        "router": {"mf": 3, "bert": 1, None: 2},
        "reason": {"threshold": 3, "pinned": 1, "fallback": 1, None: 1},
    }


def test_every_grouping_sums_to_the_same(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    for by in BY:
        found = groups(capsys, filled, "--by", by).values()
        assert sum(one["requests"] for one in found) == 6
        assert sum(one["dollars"] for one in found) == sum(SPENT.values())


def test_selected_by_key_router_and_time(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert groups(capsys, filled, "--key", "ann")[FIRST]["requests"] == 2
    assert groups(capsys, filled, "--key", "' OR 1=1 --") == {}
    assert groups(capsys, filled, "--router", "bert")[SECOND]["requests"] == 1
    assert list(groups(capsys, filled, "--since", SECOND)) == [SECOND]
    assert list(groups(capsys, filled, "--since", "2026-05-29T20:26:41+00:00")) == []


def test_the_table_says_what_is_an_estimate_and_by_which_rule(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = " ".join(ok(capsys, "--ledger", filled).split())
    assert "2026-05-28 4 0 50.0% 6,010 710 $0.0076 $0.0146" in output
    assert "2026-05-29 2 1 - 7 9 unknown -" in output
    assert "all 6 1 50.0% 6,017 719 $0.0076 $0.0146" in output
    assert "Estimate over 3 routed requests" in output
    assert "so routing saved $0.0146 (66%); the weak model alone, $0.0013" in output
    assert "Rule: an answer that was not seen is taken to have as many tokens as the one that was given." in output
    assert "Mean tokens of the answers seen: strong 205, weak 150." in output
    assert "Requests without a known price, which are in no sum of dollars: 1;" in output
    assert "Requests whose tokens are estimated from their text, since the model did not tell them: 1." in output
    assert ok(capsys, "--ledger", filled, "--key", "nobody") == "No requests.\n"


def test_csv_on_standard_output_and_in_a_file(filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed = list(csv.DictReader(io.StringIO(ok(capsys, "--ledger", filled, "--format", "csv", "--by", "model"))))
    assert [row["model"] for row in printed if row["model"]] == sorted([STRONG, WEAK, SPARE])
    assert {row["model"]: Decimal(row["dollars"]) for row in printed if row["model"] in SPENT} == SPENT
    path = tmp_path / "usage.csv"
    ok(capsys, "--ledger", filled, "--format", "csv", "--by", "model", "--output", str(path))
    assert list(csv.DictReader(io.StringIO(path.read_text()))) == printed


def test_parquet_keeps_dollars_exact(filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    require("pyarrow")
    path = tmp_path / "usage.parquet"
    ok(capsys, "--ledger", filled, "--format", "parquet", "--by", "model", "--output", str(path))
    rows = dict(read_table(str(path), ["model", "dollars"]))
    assert {name: rows[name] for name in SPENT} == SPENT


@pytest.mark.parametrize("name", ["spend.png", "spend.svg"])
def test_a_plot(filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    require("matplotlib")
    path = tmp_path / name
    ok(capsys, "--ledger", filled, "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_a_clients_text_does_not_steer_the_terminal(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(sqlite_url, made(key="\x1b[2J[bold]me"))
    output = ok(capsys, "--ledger", sqlite_url, "--by", "key")
    assert "\x1b" not in output
    assert "[2J[bold]me" in output


def test_the_ledger_of_a_servers_configuration(sqlite_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(sqlite_url, made())
    path = tmp_path / "config.yaml"
    path.write_text(f"gateway:\n  ledger:\n    url: {sqlite_url}\n")
    assert "$0.0002" in ok(capsys, "--config", str(path))
    path.write_text("gateway:\n  ledger:\n    urll: x\n")
    assert "unknown field `urll` - at `gateway.ledger`" in failed(capsys, "--config", str(path))


def test_the_ledger_that_the_environment_names(
    sqlite_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sqlite_url, made())
    assert "There is no ledger at " in failed(capsys)
    monkeypatch.setenv("ROUTELLM_LEDGER_URL", sqlite_url)
    assert "$0.0002" in ok(capsys)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--format", "parquet"], "needs a file: give --output"),
        (["--output", "x.csv"], "--output goes with --format csv or parquet"),
        (["--output", "x.txt", "--format", "csv"], "it must end so"),
        (["--since", "yesterday"], "'yesterday' is no time; give an age such as 7d"),
        (["--since", "999999w"], "is no time"),
    ],
)
def test_wrong_arguments(sqlite_url: str, capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    write(sqlite_url, made())
    assert said in failed(capsys, "--ledger", sqlite_url, *argv)


def test_ages_and_dates() -> None:
    def now() -> datetime:
        return datetime(2026, 3, 31, 12, tzinfo=UTC)

    assert since("36h", now) == datetime(2026, 3, 30, tzinfo=UTC)
    assert since("1w", now) == datetime(2026, 3, 24, 12, tzinfo=UTC)
    assert since("2026-03-01", now) == datetime(2026, 3, 1, tzinfo=UTC)
    assert since("2026-03-01T02:00+02:00", now) == datetime(2026, 3, 1, tzinfo=UTC)
    assert since("all", now) is None
