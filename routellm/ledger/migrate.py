"""Bringing a ledger's tables up to date when it is opened, one process at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect

from routellm.errors import LedgerError
from routellm.ledger.database import open_engine, told, where
from routellm.ledger.schema import HEAD

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "routellm_revision"  # not Alembic's own name: the database may hold another program's tables too
_LOCK = 7_103_421_956  # PostgreSQL's advisory locks are numbers; this one is ours by its oddness alone


def upgrade(engine: Engine, to: str = HEAD) -> None:
    """Run the migrations that are wanting. `engine` writes.

    Raises:
        LedgerError: the tables are of a newer version of this package. SQLAlchemy's errors pass through.
    """
    with engine.connect() as connection:
        if revision(connection) == to:
            return
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # SQLite's transaction has its turn already
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        config = _config(connection)
        _check_known(revision(connection), config, engine)
        from alembic import command

        command.upgrade(config, to)


def open_reader(url: str) -> Engine:
    """An engine that reads an existing ledger, whose tables are brought up to date first.

    Raises:
        ConfigError: there is no such ledger.
        LedgerError: it can't be read, or is of a newer version of this package.
    """
    engine = open_engine(url, writes=False)
    try:
        with told(engine, "read"):
            with engine.connect() as connection:
                found = revision(connection)
            if found is None:
                raise LedgerError(f"{where(engine)} holds no ledger. A server writes it; name another with --ledger PATH|URL.")
            if found != HEAD:
                _upgrade_at(url)
    except LedgerError:
        engine.dispose()
        raise
    return engine


def _upgrade_at(url: str) -> None:
    engine = open_engine(url, writes=True)
    try:
        upgrade(engine)
    finally:
        engine.dispose()


def revision(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return str(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar())  # noqa: S608 - a constant


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config


def _check_known(found: str | None, config: Config, engine: Engine) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerError(
            f"The ledger {where(engine)} is of revision {found!r}, and this version of routellm knows up to {HEAD!r}: a newer "
            f"version wrote it. Upgrade this one (pip install --upgrade routellm), or give another ledger."
        )
