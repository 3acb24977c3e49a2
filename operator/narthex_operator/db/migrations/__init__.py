"""Bring a database's schema up to this release."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from narthex_exporter.contract.errors import NarthexError


class MigrationError(NarthexError):
    """The database's schema is of a release that this one does not know."""


def upgrade(engine: Engine) -> None:
    """Apply what is missing. Raises MigrationError when the schema is newer than the program."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Replicas that start together upgrade one after the other.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(1852899328)")
        current = MigrationContext.configure(connection).get_current_revision()
        known = {
            script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
        }
        if current is not None and current not in known:
            raise MigrationError(
                f"the database has schema {current}, which this release does not know",
                hint="it was used by a newer release: install that one, or restore a backup",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
