"""Ship this node's logs: readers fill the queue, a pusher empties it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.spec import Sample
from narthex_exporter.logs import metrics
from narthex_exporter.logs.config import LogsConfig
from narthex_exporter.logs.files import PREFIX, Batch, Files
from narthex_exporter.logs.journal import KEY, Journal
from narthex_exporter.logs.push import Connection, Pusher
from narthex_exporter.logs.record import Counters, make_labels
from narthex_exporter.logs.redact import Redactor
from narthex_exporter.logs.spool import Spool, SpoolError
from narthex_exporter.transport.tls import TLSFiles

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.25
_DEGRADED_SECONDS: Final = 10.0
_JOIN_SECONDS: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Shipper:
    """The log shipper of one node. Building it checks the address; ``start`` does the rest.

    Raises ConfigError for an address that cannot be pushed to.
    """

    config: LogsConfig
    spool: Path
    push_url: str
    tls: TLSFiles | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    now_ns: Callable[[], int] = time.time_ns
    poll_seconds: float = _POLL_SECONDS
    degraded_seconds: float = _DEGRADED_SECONDS
    journal_program: tuple[str, ...] = ("journalctl",)
    counters: Counters = field(default_factory=Counters, init=False)
    _queue: Spool = field(init=False)
    _pusher: Pusher = field(init=False)
    _connection: Connection = field(init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._queue = Spool(
            path=self.spool,
            counters=self.counters,
            max_bytes=self.config.queue.max_bytes,
            max_percent=self.config.queue.max_percent_of_filesystem,
            labels=make_labels(**self.labels),
            now_ns=self.now_ns,
        )
        self._connection = Connection(self.push_url, self.tls, clock=self.clock)
        self._pusher = Pusher(
            self._queue, self._connection, self.counters, self._stopping, now_ns=self.now_ns
        )

    def start(self) -> None:
        """Begin to read and to push, in threads of the shipper's own."""
        work: list[tuple[str, Callable[[], None]]] = [("push", self._push)]
        if self.config.files:
            work.append(("files", self._follow_files))
        if self.config.journal:
            work.append(("journal", self._follow_journal))
        for name, target in work:
            thread = threading.Thread(
                target=self._guard, args=(name, target), name=f"logs-{name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        log.info("logs.started", extra={"files": len(self.config.files), "to": self.push_url})

    def stop(self) -> None:
        """Stop; what was not pushed is in the queue for the next start."""
        self._stopping.set()
        self._connection.abort()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self._queue.close()

    def samples(self) -> Iterator[Sample]:
        """Give the shipper's metrics."""
        counters, queue = self.counters, self._queue
        for metric, counts in (
            (metrics.READ_LINES, counters.read_lines),
            (metrics.DROPPED, counters.dropped),
            (metrics.PUSH_FAILURES, counters.push_failures),
            (metrics.REPAIRED, counters.repaired),
            (metrics.DEAD_LETTERS, counters.dead_letters),
            (metrics.REDACTIONS, counters.redactions),
            (metrics.PART_FAILURES, counters.failures),
        ):
            for key, count in sorted(counts.copy().items()):
                yield metric.at(count, key)
        yield metrics.SENT_ENTRIES.at(counters.sent_entries)
        yield metrics.SENT_BYTES.at(counters.sent_bytes)
        yield metrics.TRUNCATIONS.at(counters.truncations)
        yield metrics.ROTATIONS.at(counters.rotations)
        yield metrics.CLOCK_STEPS.at(counters.clock_steps)
        yield metrics.JOURNAL_RESTARTS.at(counters.restarts)
        yield metrics.QUEUE_ENTRIES.at(queue.entries)
        yield metrics.QUEUE_BYTES.at(queue.bytes)
        yield metrics.QUEUE_DEGRADED.at(int(queue.degraded))
        yield metrics.OLDEST_ENTRY.at(queue.oldest_ns / 1e9 if queue.entries else 0.0)
        yield metrics.LAST_PUSH.at(self._pusher.last_success_seconds)

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                work()
            except Exception:
                # The one boundary of the shipper: a mistake of ours costs a pause, not the logs.
                log.exception("logs.part_failed", extra={"part": name})
                self.counters.add(self.counters.failures, name)
                self._stopping.wait(self.degraded_seconds)

    def _push(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._pusher.run_once():
                    self._stopping.wait(self._pusher.idle_seconds)
            except SpoolError:
                self._stopping.wait(self.degraded_seconds)
        self._connection.close()

    def _follow_files(self) -> None:
        positions = self._positions(PREFIX)
        files = Files(
            patterns=self.config.files,
            exclude=self.config.exclude,
            labels=dict(self.labels),
            redactor=Redactor(self.counters, self.config.redact),
            counters=self.counters,
            positions=positions,
            max_files=self.config.max_files,
            first_read_bytes=self.config.first_read_bytes,
            clock=self.clock,
            now_ns=self.now_ns,
        )
        try:
            while not self._stopping.is_set():
                batch = files.read()
                self._keep(batch)
                if not batch.bytes:
                    self._stopping.wait(self.poll_seconds)
        finally:
            files.close()

    def _follow_journal(self) -> None:
        journal = Journal(
            labels=dict(self.labels),
            redactor=Redactor(self.counters, self.config.redact),
            counters=self.counters,
            positions=self._positions(KEY),
            program=self.journal_program,
            clock=self.clock,
        )
        try:
            while not self._stopping.is_set():
                batch = journal.read(self.poll_seconds)
                self._keep(batch)
                if not journal.running:
                    self._stopping.wait(self.poll_seconds)
        finally:
            journal.close()

    def _keep(self, batch: Batch) -> None:
        """Queue a batch, however long the disk refuses: its source keeps what comes meanwhile."""
        while batch.records or batch.positions:
            try:
                self._queue.put(batch.records, batch.positions)
            except SpoolError:
                if self._stopping.wait(self.degraded_seconds):
                    return
            else:
                batch.accept()
                return

    def _positions(self, prefix: str) -> dict[str, str]:
        while not self._stopping.is_set():
            try:
                return self._queue.positions(prefix)
            except SpoolError:
                self._stopping.wait(self.degraded_seconds)
        return {}
