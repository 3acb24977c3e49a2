"""Count what the audit tells, across restarts: how many runs were accepted, how much was refused.

The record itself is what counts: a file remembers the sums up to one of its rows, and what was
written later is read again at the start.
"""

import contextlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narthex_exporter.actor.audit import Audit
from narthex_exporter.actor.runner import write_file
from narthex_exporter.contract.errors import NarthexError

_FILE_BYTES: Final = 64 * 1024
_SAVED_EVERY: Final = 1000
_PART_ROWS: Final = 5000
_PART_BYTES: Final = 8 << 20
_NAME: Final = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_MOST_NAMES: Final = 64
_OTHER: Final = "other"


class TallyError(NarthexError):
    """The sums cannot be kept."""


class Sums(BaseModel):
    """What the file holds: the sums of one node's record up to row ``seq``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    cluster: str
    node: str
    seq: int = Field(ge=0)
    runs: dict[str, int] = {}
    refused: dict[str, int] = {}


@dataclass(slots=True, kw_only=True)
class Tally:
    """The sums. ``actions`` are the names that are counted one by one; others are ``other``."""

    path: Path
    cluster: str
    node: str
    actions: frozenset[str]
    _runs: Counter[str] = field(default_factory=Counter, init=False)
    _refused: Counter[str] = field(default_factory=Counter, init=False)
    _seq: int = field(default=0, init=False)
    _saved: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def catch_up(self, audit: Audit) -> None:
        """Read the file, then what was written down since. Raises AuditError, TallyError."""
        sums = self._load()
        if sums is not None and (sums.cluster, sums.node) == (self.cluster, self.node):
            self._runs.update(sums.runs)
            self._refused.update(sums.refused)
        # A record that somebody cut or replaced goes on from where it is now.
        self._seq = min(sums.seq if sums is not None else 0, audit.head.seq)
        while self._seq < audit.head.seq:
            part = audit.after(self._seq, limit=_PART_ROWS, most_bytes=_PART_BYTES)
            if not part.rows:
                break
            for row in part.rows:
                self._count(row)
        self.save()

    def note(self, row: dict[str, Any]) -> None:
        """Count one more row."""
        with self._lock:
            self._count(row)
            due = self._seq - self._saved >= _SAVED_EVERY
        if due:
            # Another thousand rows to read at the next start is all that it costs.
            with contextlib.suppress(TallyError):
                self.save()

    def sums(self) -> Sums:
        """Give the sums as they are."""
        with self._lock:
            return Sums(
                cluster=self.cluster,
                node=self.node,
                seq=self._seq,
                runs=dict(self._runs),
                refused=dict(self._refused),
            )

    def save(self) -> None:
        """Keep the sums. Raises TallyError."""
        sums = self.sums()
        try:
            write_file(self.path, sums.model_dump_json().encode() + b"\n", mode=0o600)
        except OSError as error:
            raise TallyError(f"cannot write {self.path}: {error.strerror}") from error
        self._saved = sums.seq

    def _load(self) -> Sums | None:
        try:
            with self.path.open("rb") as file:
                return Sums.model_validate_json(file.read(_FILE_BYTES))
        except (OSError, ValidationError):
            return None  # the first start, or damaged: the record is read from its beginning

    def _count(self, row: dict[str, Any]) -> None:
        self._seq = row["seq"]
        event = row.get("event")
        if event == "run.accepted" and self._ours(row):
            name = str(row.get("act"))
            self._runs[name if name in self.actions else _OTHER] += 1
        elif event == "request.refused":
            self._refused[self._reason(str(row.get("reason")))] += 1
            left_out = row.get("left_out_before", 0)
            if isinstance(left_out, int) and left_out > 0:
                self._refused["not-written-down"] += left_out

    def _ours(self, row: dict[str, Any]) -> bool:
        return (row.get("iss"), row.get("aud")) == (self.cluster, f"node:{self.node}")

    def _reason(self, reason: str) -> str:
        known = reason in self._refused or len(self._refused) < _MOST_NAMES
        return reason if known and _NAME.fullmatch(reason) else _OTHER
