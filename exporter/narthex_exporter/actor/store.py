"""Keep runs on disk: before their first step, and before their result is told."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.contract.wire import Run
from narthex_exporter.errors import UnavailableError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    final INTEGER NOT NULL,
    finished_at REAL,
    document TEXT NOT NULL
) STRICT, WITHOUT ROWID
"""


class StoreError(UnavailableError):
    """The journal of runs cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A run, and the hash of the request that asked for it."""

    run: Run
    request: str


@dataclass(slots=True)
class RunStore:
    """The journal of runs, in SQLite; every write is on disk when it returns."""

    path: Path
    _database: sqlite3.Connection = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        with _told(self.path):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._database = sqlite3.connect(
                self.path, check_same_thread=False, isolation_level=None
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def accept(self, run: Run, *, request: str) -> None:
        """Add a new run. Raises StoreError, also for an id that is there."""
        self._write(
            "INSERT INTO runs (id, request, final, document) VALUES (?, ?, 0, ?)",
            (run.id, request, run.model_dump_json()),
        )

    def save(self, run: Run) -> None:
        """Replace a run by its newer self."""
        finished = run.finished_at.timestamp() if run.finished_at else None
        self._write(
            "UPDATE runs SET final = ?, finished_at = ?, document = ? WHERE id = ?",
            (int(run.state.final), finished, run.model_dump_json(), run.id),
        )

    def withdraw(self, run_id: str) -> None:
        """Remove a run that was not begun."""
        self._write("DELETE FROM runs WHERE id = ?", (run_id,))

    def prune(self, *, before: float) -> None:
        """Forget runs that ended before an instant (Unix seconds)."""
        self._write("DELETE FROM runs WHERE final = 1 AND finished_at < ?", (before,))

    def get(self, run_id: str) -> Stored | None:
        """Look a run up."""
        rows = self._read("SELECT document, request FROM runs WHERE id = ?", (run_id,))
        return None if not rows else _stored(*rows[0])

    def unfinished(self) -> list[Stored]:
        """List the runs that had not ended."""
        rows = self._read("SELECT document, request FROM runs WHERE final = 0 ORDER BY id", ())
        return [_stored(*row) for row in rows]

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._lock, _told(self.path):
            self._database.execute(statement, values)

    def _read(self, statement: str, values: tuple[object, ...]) -> list[tuple[str, str]]:
        with self._lock, _told(self.path):
            return self._database.execute(statement, values).fetchall()


def _stored(document: str, request: str) -> Stored:
    return Stored(run=Run.model_validate_json(document), request=request)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"cannot use the journal of runs {path}: {error}",
            hint="nothing is executed without it: free some space, or repair the folder",
        ) from error
