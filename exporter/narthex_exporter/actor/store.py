"""Keep runs on disk: before their first step, and before their result is told."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

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
# What came after the first release of the table: name and declaration.
_LATER: Final = (
    ("plan", "TEXT NOT NULL DEFAULT ''"),
    ("cancelled", "INTEGER NOT NULL DEFAULT 0"),
    ("confirmed", "INTEGER NOT NULL DEFAULT 0"),
    ("told", "INTEGER NOT NULL DEFAULT 0"),
)
# Jobs write here beside the actor.
_BUSY_SECONDS: Final = 15.0


class StoreError(UnavailableError):
    """The journal of runs cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A run, the hash of the request that asked for it, and the digest of its plan.

    ``cancelled`` and ``confirmed`` are what the operator asked of it meanwhile.
    """

    run: Run
    request: str
    plan: str = ""
    cancelled: bool = False
    confirmed: bool = False


@dataclass(slots=True)
class RunStore:
    """The journal of runs, in SQLite; every write is on disk when it returns.

    The actor and the jobs that it started use it at the same time.
    """

    path: Path
    _database: sqlite3.Connection = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        with _told(self.path):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._database = sqlite3.connect(
                self.path,
                check_same_thread=False,
                isolation_level=None,
                timeout=_BUSY_SECONDS,
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(_SCHEMA)
            known = {row[1] for row in self._database.execute("PRAGMA table_info(runs)")}
            for name, declaration in _LATER:
                if name not in known:
                    self._database.execute(f"ALTER TABLE runs ADD COLUMN {name} {declaration}")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def accept(self, run: Run, *, request: str, plan: str) -> None:
        """Add a new run. Raises StoreError, also for an id that is there."""
        self._write(
            "INSERT INTO runs (id, request, plan, final, document) VALUES (?, ?, ?, 0, ?)",
            (run.id, request, plan, run.model_dump_json()),
        )

    def save(self, run: Run) -> None:
        """Replace a run by its newer self."""
        finished = run.finished_at.timestamp() if run.finished_at else None
        self._write(
            "UPDATE runs SET final = ?, finished_at = ?, document = ? WHERE id = ?",
            (int(run.state.final), finished, run.model_dump_json(), run.id),
        )

    def ask_cancel(self, run_id: str) -> None:
        """Let a job know that it is asked to stop."""
        self._write("UPDATE runs SET cancelled = 1 WHERE id = ? AND final = 0", (run_id,))

    def confirm(self, run_id: str) -> None:
        """Let a job know that the operator has confirmed."""
        self._write("UPDATE runs SET confirmed = 1 WHERE id = ? AND final = 0", (run_id,))

    def tell(self, run_id: str) -> None:
        """Note that a run's end stands in the audit."""
        self._write("UPDATE runs SET told = 1 WHERE id = ?", (run_id,))

    def withdraw(self, run_id: str) -> None:
        """Remove a run that was not begun."""
        self._write("DELETE FROM runs WHERE id = ?", (run_id,))

    def prune(self, *, before: float) -> None:
        """Forget runs that ended before an instant (Unix seconds)."""
        self._write("DELETE FROM runs WHERE final = 1 AND finished_at < ?", (before,))

    def get(self, run_id: str) -> Stored | None:
        """Look a run up."""
        rows = self._read("WHERE id = ?", (run_id,))
        return None if not rows else _stored(*rows[0])

    def unfinished(self) -> list[Stored]:
        """List the runs that had not ended."""
        rows = self._read("WHERE final = 0 ORDER BY id", ())
        return [_stored(*row) for row in rows]

    def untold(self) -> list[Stored]:
        """List the runs whose end does not stand in the audit."""
        rows = self._read("WHERE final = 1 AND told = 0 ORDER BY id", ())
        return [_stored(*row) for row in rows]

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._lock, _told(self.path):
            self._database.execute(statement, values)

    def _read(self, where: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        columns = "SELECT document, request, plan, cancelled, confirmed FROM runs "
        with self._lock, _told(self.path):
            return self._database.execute(columns + where, values).fetchall()


def _stored(document: str, request: str, plan: str, cancelled: int, confirmed: int) -> Stored:
    return Stored(
        run=Run.model_validate_json(document),
        request=request,
        plan=plan,
        cancelled=bool(cancelled),
        confirmed=bool(confirmed),
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"cannot use the journal of runs {path}: {error}",
            hint="nothing is executed without it: free some space, or repair the folder",
        ) from error
