from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from routellm.errors import ConfigError, LedgerError
from routellm.ledger.database import open_engine
from routellm.ledger.migrate import VERSION_TABLE, open_reader, revision, upgrade
from routellm.ledger.schema import HEAD, metadata
from tests.ledger.making import STRONG, made, opened, stored, write

SCHEMAS = Path(__file__).parent / "schemas"
SCRIPTS = ScriptDirectory(str(Path(__file__).parents[2] / "routellm" / "ledger" / "migrations"))
RELEASED = sorted({path.name.split(".")[0] for path in SCHEMAS.glob("*.sql")})


def load(url: str, released: str) -> None:
    """Make the database that a version of this package left behind, without this package."""
    if not url.startswith("postgresql"):
        with sqlite3.connect(url) as connection:
            connection.executescript((SCHEMAS / f"{released}.sqlite.sql").read_text())
        connection.close()
        return
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql((SCHEMAS / f"{released}.postgresql.sql").read_text())
    engine.dispose()


def test_every_revision_before_the_newest_has_its_ledger_here() -> None:
    revisions = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
    assert revisions[:-1] == RELEASED[: len(revisions) - 1]
    assert set(RELEASED) <= set(revisions)
    assert revisions[-1] == HEAD


@pytest.mark.parametrize("released", RELEASED)
def test_a_ledger_of_every_released_schema_goes_on(url: str, released: str) -> None:
    load(url, released)
    write(url, made(4))
    rows = stored(url)
    assert [row["request_id"] for row in sorted(rows, key=lambda row: row["at"])] == [f"request-{n}" for n in (1, 2, 3, 4)]
    first = next(row for row in rows if row["request_id"] == "request-1")
    assert (first["key"], first["model"], first["win_rate"], first["prompt"]) == ("key-1", STRONG, 0.75, "Hello?")
    assert (first["nanodollars"], first["weak_nanodollars"], first["streamed"]) == (3_500_000, 210_000, False)
    assert_up_to_date(url)


@pytest.mark.parametrize("released", RELEASED)
def test_reading_brings_it_up_to_date_too(url: str, released: str) -> None:
    load(url, released)
    assert len(stored(url)) == 3
    assert_up_to_date(url)


def test_a_new_ledger_has_the_tables_that_the_code_names(url: str) -> None:
    write(url)
    assert_up_to_date(url)


def assert_up_to_date(url: str) -> None:
    engine = open_engine(url, writes=False)
    with engine.connect() as connection:
        assert revision(connection) == HEAD
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_newer_ledger_is_refused_and_left_alone(url: str) -> None:
    write(url, made())
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    for opens in (opened, open_reader):
        with pytest.raises(LedgerError, match=f"revision '9999'.*knows up to '{HEAD}'.*pip install --upgrade routellm"):
            opens(url)
    with engine.connect() as connection:
        assert revision(connection) == "9999"
    engine.dispose()


def test_a_migration_that_breaks_off_leaves_nothing(url: str) -> None:
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE ix_requests_at (there INTEGER)")  # in the way of the first migration's index
    with pytest.raises(Exception, match="already"):
        upgrade(engine)
    with engine.begin() as connection:
        assert revision(connection) is None
        connection.exec_driver_sql("DROP TABLE ix_requests_at")
    upgrade(engine)
    engine.dispose()
    assert stored(url) == []


def test_a_database_without_a_ledger_is_not_made_one_by_reading(sqlite_url: str) -> None:
    with pytest.raises(ConfigError, match=r"There is no ledger at .*--ledger"):
        open_reader(sqlite_url)
    assert not Path(sqlite_url).exists()
    sqlite3.connect(sqlite_url).execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(LedgerError, match="holds no ledger"):
        open_reader(sqlite_url)
