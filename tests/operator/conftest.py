"""Databases for the operator's tests: each test runs on SQLite and on PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from narthex_operator.db import Database, open_database
from narthex_operator.security.signer_client import SignerClient
from signing import signing


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of the tests' own, on a Unix socket; stopped and removed at the end."""
    initdb, control = _program("initdb"), _program("pg_ctl")
    if not initdb or not control:
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql runs these tests")
    folder = Path(tempfile.mkdtemp(prefix="narthex-pg-"))
    root = os.geteuid() == 0  # PostgreSQL refuses to run as root
    if root:
        shutil.chown(folder, "postgres", "postgres")

    def run(*command: str) -> None:
        prefix = ("runuser", "-u", "postgres", "--") if root else ()
        subprocess.run(
            [*prefix, *command], check=True, cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    data = str(folder / "data")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=100"
    try:
        run(initdb, "-D", data, "-U", "narthex", "-A", "trust", "-E", "UTF8", "-N")
        run(control, "-D", data, "-w", "-o", options, "-l", f"{folder}/log", "start")
        try:
            yield f"postgresql+psycopg://narthex@/postgres?host={folder}"
        finally:
            run(control, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'operator.sqlite3'}"
        return
    postgres: str = request.getfixturevalue("postgres_url")
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")
    name = f"t{abs(hash(tmp_path)):x}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield postgres.replace("/postgres?", f"/{name}?")
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with this release's schema, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "template.sqlite3"
    opened = open_database(f"sqlite:///{path}")
    opened.upgrade()
    with opened.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")  # no checkpoint within a transaction
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
    opened.close()
    return path


@pytest.fixture
def database(empty_database_url: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of this release's schema, on SQLite and on PostgreSQL."""
    if empty_database_url.startswith("sqlite"):
        template: Path = request.getfixturevalue("sqlite_template")
        shutil.copy(template, empty_database_url.removeprefix("sqlite:///"))
    opened = open_database(empty_database_url)
    opened.upgrade()
    yield opened
    opened.close()


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[SignerClient]:
    """A real signer on its socket, with keys of its own."""
    with signing(tmp_path) as one:
        yield one
