"""Merge small blocks and drop old ones, in a thread that never holds up a push for long."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.errors import UnavailableError
from narthex_logstore.block import TARGET_BYTES, Header, pack
from narthex_logstore.model import SECOND
from narthex_logstore.storage import Store, Stream, insert_block

log = logging.getLogger(__name__)

_MERGE_AT_LEAST: Final = 16
_DELETE_AT_A_TIME: Final = 64
_PAGES_AT_A_TIME: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long and how much to keep; None is without limit."""

    age_ns: int | None = 31 * 24 * 3600 * SECOND
    size_bytes: int | None = None


@dataclass(slots=True)
class Maintenance:
    """Merge and drop every ``every_seconds``; ``merged`` and ``dropped`` count blocks."""

    store: Store
    retention: Retention
    every_seconds: float = 10.0
    now_ns: Callable[[], int] = time.time_ns
    merged: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._loop, name="maintenance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the step under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def run_once(self) -> None:
        """Merge, then drop. Raises UnavailableError."""
        for stream in self.store.streams():
            if self._stopping.is_set():
                return
            self._merge(stream)
        self._drop_old()
        self._drop_excess()

    def _loop(self) -> None:
        while not self._stopping.wait(self.every_seconds):
            try:
                self.run_once()
            except UnavailableError as error:
                log.warning("maintenance.failed", extra={"error": str(error)})

    def _merge(self, stream: Stream) -> None:
        with self.store.snapshot() as view:
            small = sorted(
                (h for h in view.headers(stream.id, 0, 1 << 62) if h.weight < TARGET_BYTES // 2),
                key=lambda header: header.min_ts,
            )
            runs = _runs(small)
            for run in runs:
                blocks = [view.load(header) for header in run]
                packed = pack(
                    [block.entry(i) for block in blocks for i in range(len(block.times))], level=3
                )
                with self.store.change() as db:
                    db.executemany("DELETE FROM blocks WHERE id = ?", [(h.id,) for h in run])
                    insert_block(db, stream.id, packed)
                self.merged += len(run)

    def _drop_old(self) -> None:
        if self.retention.age_ns is None:
            return
        oldest = self.now_ns() - self.retention.age_ns
        while not self._stopping.is_set() and self._delete("WHERE max_ts < ?", (oldest,)):
            self._shrink()
        held = [stream for stream in self.store.streams() if stream.newest_ts < oldest]
        if held:
            self.store.forget(held)

    def _drop_excess(self) -> None:
        limit = self.retention.size_bytes
        while limit is not None and not self._stopping.is_set():
            if self.store.size_bytes() <= limit or not self._delete("", ()):
                return
            self._shrink()

    def _delete(self, where: str, values: tuple[int, ...]) -> int:
        with self.store.change() as db:
            count = db.execute(
                "DELETE FROM blocks WHERE id IN"  # noqa: S608 - `where` is one of two constants
                f" (SELECT id FROM blocks {where} ORDER BY max_ts LIMIT {_DELETE_AT_A_TIME})",
                values,
            ).rowcount
        self.dropped += count
        return int(count)

    def _shrink(self) -> None:
        with self.store.change() as db:
            db.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_A_TIME})").fetchall()


def _runs(small: list[Header]) -> list[list[Header]]:
    """Group neighbours into future blocks; a few stay as they are until there are more."""
    if len(small) < _MERGE_AT_LEAST:
        return []
    runs: list[list[Header]] = [[]]
    size = 0
    for header in small:
        if runs[-1] and size + header.weight > TARGET_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(header)
        size += header.weight
    return [run for run in runs if len(run) > 1]
