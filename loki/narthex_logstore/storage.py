"""Keep streams and their blocks in SQLite: one transaction a push, many readers beside it.

Each push adds one small block a stream and is durable when it is answered. Blocks never share an
entry: what a retry brings again is dropped when it arrives. ``maintenance`` merges small blocks
and drops old ones.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import cramjam

from narthex_exporter.errors import UnavailableError
from narthex_logstore.block import Block, Header, Packed, pack
from narthex_logstore.model import Entry, Labels, PushError

FORMAT: Final = 1
_SCHEMA: Final = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS streams (id INTEGER PRIMARY KEY, labels TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    min_ts INTEGER NOT NULL,
    max_ts INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    has_meta INTEGER NOT NULL,
    idx BLOB NOT NULL,
    lines BLOB NOT NULL,
    meta BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS blocks_by_stream
    ON blocks (stream, max_ts, min_ts, entries, raw_bytes, has_meta);
CREATE INDEX IF NOT EXISTS blocks_by_age ON blocks (max_ts);
"""
_HEADER: Final = "id, min_ts, max_ts, entries, raw_bytes, has_meta"


@dataclass(slots=True)
class Stream:
    """One stream; ``newest_ts`` is the newest entry that was ever accepted."""

    id: int
    labels: Labels
    newest_ts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of a batch: entries stored, repeated ones dropped, and those too late."""

    stored: int
    repeated: int
    late: Mapping[Labels, Sequence[Entry]]


@dataclass(slots=True)
class Snapshot:
    """A reader's view at one moment."""

    connection: sqlite3.Connection

    def headers(self, stream: int, start_ns: int, end_ns: int) -> list[Header]:
        """List the blocks of a stream that may hold entries from start to before end."""
        rows = self.connection.execute(
            f"SELECT {_HEADER} FROM blocks INDEXED BY blocks_by_stream"  # noqa: S608 - a constant
            " WHERE stream = ? AND max_ts >= ? AND min_ts < ?",
            (stream, start_ns, end_ns),
        )
        return [_header(row) for row in rows]

    def load(self, header: Header) -> Block:
        """Read a block."""
        row = self.connection.execute(
            "SELECT idx, lines, meta FROM blocks WHERE id = ?", (header.id,)
        ).fetchone()
        return Block(
            Packed(
                min_ts=header.min_ts,
                max_ts=header.max_ts,
                entries=header.entries,
                raw_bytes=header.raw_bytes,
                index=row[0],
                lines=row[1],
                meta=row[2],
            )
        )

    def totals(self) -> tuple[int, int, int]:
        """Count blocks, entries and the bytes of their lines."""
        row = self.connection.execute(
            "SELECT count(*), coalesce(sum(entries), 0), coalesce(sum(raw_bytes), 0) FROM blocks"
        ).fetchone()
        return (row[0], row[1], row[2])


@dataclass(slots=True)
class Store:
    """The store in one folder. Open it with ``open_store``."""

    path: Path
    writer: sqlite3.Connection
    out_of_order_ns: int
    max_streams: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    _streams: dict[Labels, Stream] = field(default_factory=dict)

    def append(self, batch: Mapping[Labels, Sequence[Entry]]) -> Appended:
        """Store a batch in one transaction. Raises UnavailableError, PushError (streams)."""
        stored = repeated = 0
        late: dict[Labels, list[Entry]] = {}
        newest: dict[Labels, tuple[int, int]] = {}
        with self.lock, self._transaction() as db:
            for labels, entries in batch.items():
                stream = self._streams.get(labels) or self._add_stream(db, labels)
                timely, behind = self._split(stream, entries)
                if behind:
                    late[labels] = behind
                fresh = self._without_repeats(db, stream, timely)
                repeated += len(timely) - len(fresh)
                if fresh:
                    packed = pack(fresh)
                    insert_block(db, stream.id, packed)
                    stored += len(fresh)
                    newest[labels] = (stream.id, max(stream.newest_ts, packed.max_ts))
            db.commit()
            # Only what is on disk may be believed by the next push.
            for labels, (number, ts) in newest.items():
                self._streams[labels] = Stream(number, labels, ts)
        return Appended(stored=stored, repeated=repeated, late=late)

    def streams(self) -> list[Stream]:
        """List the streams."""
        with self.lock:
            return list(self._streams.values())

    def forget(self, streams: Iterable[Stream]) -> None:
        """Drop streams that hold nothing any more."""
        with self.lock, self._transaction() as db:
            gone = []
            for stream in streams:
                held = db.execute(
                    "SELECT 1 FROM blocks WHERE stream = ? LIMIT 1", (stream.id,)
                ).fetchone()
                if held is None:
                    db.execute("DELETE FROM streams WHERE id = ?", (stream.id,))
                    gone.append(stream.labels)
            db.commit()
            for labels in gone:
                self._streams.pop(labels, None)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read at one moment, beside whoever writes."""
        try:
            with contextlib.closing(_connect(self.path)) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                yield Snapshot(connection)
        except (sqlite3.Error, cramjam.DecompressionError) as error:
            raise UnavailableError(f"the log store cannot read {self.path}: {error}") from error

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Write in one short transaction, in turn with pushes. Raises UnavailableError."""
        with self.lock, self._transaction() as db:
            yield db
            db.commit()

    def size_bytes(self) -> int:
        """Tell how much of the file is in use."""
        with self.snapshot() as view:
            pages, free, size = (
                view.connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)

    def close(self) -> None:
        """Close the writer."""
        with self.lock:
            self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self.writer.execute("BEGIN IMMEDIATE")
            yield self.writer
        except sqlite3.Error as error:
            raise UnavailableError(
                f"the log store cannot write {self.path}: {error}",
                hint="see that its disk is neither full nor read-only",
            ) from error
        finally:
            if self.writer.in_transaction:
                self.writer.rollback()

    def _add_stream(self, db: sqlite3.Connection, labels: Labels) -> Stream:
        if len(self._streams) >= self.max_streams:
            raise PushError(
                f"Maximum active stream limit exceeded ({self.max_streams}): use fewer labels "
                "with many values, put them into structured metadata",
                status=429,
            )
        text = json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
        db.execute("INSERT OR IGNORE INTO streams (labels) VALUES (?)", (text,))
        row = db.execute("SELECT id FROM streams WHERE labels = ?", (text,)).fetchone()
        return Stream(row[0], labels, 0)

    def _split(
        self, stream: Stream, entries: Sequence[Entry]
    ) -> tuple[Sequence[Entry], list[Entry]]:
        oldest = stream.newest_ts - self.out_of_order_ns
        if all(each.ts >= oldest for each in entries):
            return entries, []
        behind = [each for each in entries if each.ts < oldest]
        return [each for each in entries if each.ts >= oldest], behind

    def _without_repeats(
        self, db: sqlite3.Connection, stream: Stream, entries: Sequence[Entry]
    ) -> list[Entry]:
        fresh = list(dict.fromkeys(entries))
        if not fresh or min(each.ts for each in fresh) > stream.newest_ts:
            return fresh
        view = Snapshot(db)
        times = {each.ts for each in fresh}
        known: set[Entry] = set()
        for header in view.headers(stream.id, min(times), max(times) + 1):
            block = view.load(header)
            known.update(
                block.entry(index) for index in range(header.entries) if block.time(index) in times
            )
        return [each for each in fresh if each not in known]


def open_store(
    folder: Path, *, out_of_order_ns: int = 3600 * 10**9, max_streams: int = 50_000
) -> Store:
    """Open or create the store in a folder. Raises UnavailableError."""
    path = folder / "logs.sqlite3"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            path.touch(mode=0o600)  # lines may be private
        writer = _connect(path)
        version = writer.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            writer.close()
            raise UnavailableError(
                f"{path} was written by another version of Narthex (format {version})",
                hint="start the version that wrote it, or move the folder away",
            )
        writer.executescript(_SCHEMA + f"PRAGMA user_version = {FORMAT};")
        # What was answered with 204 survives a power cut.
        writer.execute("PRAGMA synchronous = FULL")
    except (OSError, sqlite3.Error) as error:
        raise UnavailableError(f"cannot open the log store {path}: {error}") from error
    store = Store(
        path=path, writer=writer, out_of_order_ns=out_of_order_ns, max_streams=max_streams
    )
    rows = writer.execute(
        "SELECT id, labels,"
        " (SELECT coalesce(max(max_ts), 0) FROM blocks WHERE stream = streams.id) FROM streams"
    )
    for number, text, newest in rows:
        labels = tuple((name, value) for name, value in json.loads(text))
        store._streams[labels] = Stream(number, labels, newest)  # noqa: SLF001 - its constructor
    return store


def insert_block(db: sqlite3.Connection, stream: int, packed: Packed) -> None:
    """Add a block, within the caller's transaction."""
    db.execute(
        "INSERT INTO blocks"
        " (stream, min_ts, max_ts, entries, raw_bytes, has_meta, idx, lines, meta)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            stream,
            packed.min_ts,
            packed.max_ts,
            packed.entries,
            packed.raw_bytes,
            bool(packed.meta),
            packed.index,
            packed.lines,
            packed.meta,
        ),
    )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    connection.execute("PRAGMA mmap_size = 268435456")
    return connection


def _header(row: tuple[int, int, int, int, int, int]) -> Header:
    return Header(
        id=row[0],
        min_ts=row[1],
        max_ts=row[2],
        entries=row[3],
        raw_bytes=row[4],
        has_meta=bool(row[5]),
    )
