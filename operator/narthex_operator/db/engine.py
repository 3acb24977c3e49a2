"""Open the database; every transaction begins and ends in ``Database``."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from narthex_exporter.contract.errors import NarthexError
from narthex_operator.db.migrations import upgrade

_BUSY_SECONDS: Final = 5
_BEGIN: Final = "narthex_begin"
Lock = Literal["audit", "sign-in"]
_LOCKS: Final[dict[Lock, int]] = {"audit": 0x6E61_0001, "sign-in": 0x6E61_0002}


class DatabaseError(NarthexError):
    """The database cannot be opened or reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database: SQLite, or PostgreSQL."""

    engine: Engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction that may write: committed at the end, rolled back on an error.

        SQLite has one writer: the lock is taken at once, so that no transaction can fail half
        way for having read first.
        """
        with sessionmaker(self.engine, expire_on_commit=False).begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that only reads; it waits for no writer."""
        engine = self.engine.execution_options(**{_BEGIN: "DEFERRED"})
        with Session(engine, expire_on_commit=False) as session:
            if self.engine.dialect.name == "postgresql":
                session.execute(text("SET TRANSACTION READ ONLY"))
            yield session

    def lock(self, session: Session, name: Lock) -> None:
        """Make others who lock the same name wait until this transaction ends.

        On SQLite every writing transaction does so already. Where both are needed "sign-in"
        comes first; "audit" is taken by the ledger itself.
        """
        if self.engine.dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCKS[name]})

    def upgrade(self) -> None:
        """Bring the schema up to this release. Raises MigrationError for a newer one."""
        upgrade(self.engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Open a database by SQLAlchemy URL: ``sqlite:///FILE`` or ``postgresql://…``.

    Raises DatabaseError when it cannot be reached.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseError(
            "database_url is not a database's URL",
            hint="write sqlite:////path/to/operator.sqlite3 or postgresql://user@host/narthex",
        ) from error
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise DatabaseError(
            f"there is no support for {parsed.drivername}", hint="use SQLite or PostgreSQL"
        )
    engine = create_engine(
        parsed, pool_pre_ping=True, pool_size=16, max_overflow=16, pool_timeout=_BUSY_SECONDS
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    database = Database(engine=engine)
    try:
        with database.reading() as session:
            session.execute(text("SELECT 1"))
    except OperationalError as error:
        engine.dispose()
        raise DatabaseError(
            f"cannot open the database {parsed.render_as_string(hide_password=True)}:"
            f" {' '.join(str(error.orig).split())}",
            hint="is it running, and may this user reach it?",
        ) from error
    return database


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Without this the driver begins transactions itself, too late; see SQLAlchemy's pysqlite page.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # an audit row that a power cut loses was never written
        f"busy_timeout={_BUSY_SECONDS * 1000}",
        "foreign_keys=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get(_BEGIN, "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")
