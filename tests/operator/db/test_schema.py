import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from narthex_operator.db import Database, open_database
from narthex_operator.db.base import Base
from narthex_operator.db.migrations import MigrationError


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_an_upgrade_of_an_upgraded_database_changes_nothing(database: Database) -> None:
    database.upgrade()


def test_a_newer_schema_is_refused_and_named(database: Database) -> None:
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MigrationError, match="9999") as caught:
        database.upgrade()
    assert "newer release" in caught.value.hint


def test_a_database_that_cannot_be_opened_is_named_without_its_password() -> None:
    with pytest.raises(Exception, match=r"\*\*\*") as caught:
        open_database("postgresql://u:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)
