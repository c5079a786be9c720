"""What Alembic runs. The connection is given by `migrate.py`, which holds the lock and the transaction."""

from __future__ import annotations

from alembic import context

from routellm.ledger.schema import metadata

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"], target_metadata=metadata)
context.run_migrations()
