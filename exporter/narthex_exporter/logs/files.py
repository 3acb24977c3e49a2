"""Follow files by glob, through rotation and truncation, from where the queue says."""

import contextlib
import glob
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.logs.record import (
    FOLLOWS,
    MAX_LINE_BYTES,
    Counters,
    Labels,
    Record,
    make_labels,
    pieces,
    readable,
)
from narthex_exporter.logs.redact import Redactor
from narthex_exporter.logs.timestamps import line_time_ns

log = logging.getLogger(__name__)

PREFIX: Final = "file:"
# How much is read at once: what is in memory of it is some ten times as large.
CHUNK: Final = 64 * 1024
_FINGERPRINT_BYTES: Final = 1024
_DISCOVER_SECONDS: Final = 10.0
_PARTIAL_SECONDS: Final = 5.0
_GRACE_SECONDS: Final = 5.0
_SUCCESSOR_SECONDS: Final = 60.0


@dataclass(slots=True)
class Tail:
    """One open file and how far it was read."""

    path: str
    fd: int
    dev: int
    inode: int
    offset: int = 0
    print_size: int = 0
    print_hash: str = ""
    size: int = 0
    # Since when the last line has lacked its newline, and since when the file was replaced.
    partial_since: float | None = None
    rotated_since: float | None = None
    timed: bool = False

    @property
    def key(self) -> str:
        """The name of its position: a file keeps it when it is renamed."""
        return f"{PREFIX}{self.dev}:{self.inode}"

    def position(self, offset: int) -> str:
        """Write down an offset and the beginning by which the file is known again."""
        return json.dumps(
            {"path": self.path, "offset": offset, "size": self.print_size, "hash": self.print_hash}
        )


@dataclass(slots=True)
class Batch:
    """What one look at the files gave; ``accept`` tells that it is safely queued."""

    records: list[Record] = field(default_factory=list)
    positions: dict[str, str] = field(default_factory=dict)
    moves: list[tuple[Tail, int]] = field(default_factory=list)
    bytes: int = 0

    def accept(self) -> None:
        """Go on from here at the next look."""
        for tail, offset in self.moves:
            tail.offset = offset


@dataclass(slots=True)
class Files:
    """Follow files. Not safe to share by threads."""

    patterns: tuple[str, ...]
    exclude: tuple[str, ...]
    labels: dict[str, str]
    redactor: Redactor
    counters: Counters
    positions: dict[str, str]
    max_files: int = 500
    first_read_bytes: int = 1 << 20
    clock: Callable[[], float] = time.monotonic
    now_ns: Callable[[], int] = time.time_ns
    _tails: dict[str, Tail] = field(default_factory=dict, init=False)
    _old: list[Tail] = field(default_factory=list, init=False)
    # Where a file was renamed and its successor is looked for at every look, and until when.
    _awaited: dict[str, float] = field(default_factory=dict, init=False)
    _next_discovery: float = field(default=0.0, init=False)
    _started: bool = field(default=False, init=False)
    _full: bool = field(default=False, init=False)

    def read(self, max_bytes: int = CHUNK) -> Batch:
        """Look once at every file, up to some bytes in all."""
        if self.clock() >= self._next_discovery:
            self._discover()
            self._next_discovery = self.clock() + _DISCOVER_SECONDS
        for path, until in list(self._awaited.items()):
            self._open(path, fresh=True)
            if path in self._tails or self.clock() > until:
                del self._awaited[path]
        batch = Batch()
        for tail in [*self._old, *self._tails.values()]:
            if batch.bytes >= max_bytes:
                break
            try:
                self._look(tail, batch)
            except OSError as error:
                log.warning("file.unreadable", extra={"path": tail.path, "error": str(error)})
                self._forget(tail)
        # Whoever was read to the limit waits for the others: no file starves another.
        if batch.moves:
            last = batch.moves[-1][0]
            if self._tails.get(last.path) is last:
                self._tails[last.path] = self._tails.pop(last.path)
        return batch

    def close(self) -> None:
        """Close every file."""
        for tail in [*self._old, *self._tails.values()]:
            os.close(tail.fd)
        self._old.clear()
        self._tails.clear()

    def _look(self, tail: Tail, batch: Batch) -> None:
        status = os.fstat(tail.fd)
        if status.st_size < tail.offset or (status.st_size != tail.size and self._changed(tail)):
            self.counters.truncations += 1
            log.info("file.truncated", extra={"path": tail.path})
            tail.offset, tail.print_size, tail.print_hash = 0, 0, ""
        tail.size = status.st_size
        if tail.offset < status.st_size:
            self._read(tail, batch)
        else:
            tail.partial_since = None
        self._check_rotation(tail, batch)

    def _read(self, tail: Tail, batch: Batch) -> None:
        data = os.pread(tail.fd, CHUNK, tail.offset)
        end = data.rfind(b"\n") + 1
        if not end and len(data) == CHUNK:
            data = os.pread(tail.fd, MAX_LINE_BYTES, tail.offset)
            end = data.rfind(b"\n") + 1
        partial = False
        if not end and len(data) >= MAX_LINE_BYTES:
            end = MAX_LINE_BYTES
            partial = True
        elif not end and data:
            if tail.partial_since is None:
                tail.partial_since = self.clock()
            waited = self.clock() - tail.partial_since
            if waited < _PARTIAL_SECONDS and tail.rotated_since is None:
                return
            end, partial = len(data), True
        if not end:
            return
        tail.partial_since = None
        self._fingerprint(tail)
        labels = make_labels(**{**self.labels, "job": "file", "filename": tail.path})
        meta = (("partial", "1"),) if partial else ()
        lines = data[:end].split(b"\n")
        if not partial:
            lines.pop()
        for line in lines:
            batch.records.extend(self._records(tail, labels, meta, line))
        Counters.add(self.counters.read_lines, "file", len(lines))
        batch.positions[tail.key] = tail.position(tail.offset + end)
        batch.moves.append((tail, tail.offset + end))
        batch.bytes += end

    def _records(self, tail: Tail, labels: Labels, meta: Labels, raw: bytes) -> Iterator[Record]:
        # A writer that keeps its offset over a truncation leaves a hole of NULs.
        text = readable(raw.removesuffix(b"\r").lstrip(b"\0"))
        text = self.redactor.clean(tail.key, text)
        ts = line_time_ns(text, now_ns=self.now_ns())
        if ts is not None:
            tail.timed = True
        elif tail.timed:
            ts = FOLLOWS  # a line without a time belongs to the one before
        parts = pieces(text)
        for number, part in enumerate(parts):
            more = (("split", str(number + 1)),) if len(parts) > 1 else ()
            yield Record(labels, part, ts, (*meta, *more))

    def _check_rotation(self, tail: Tail, batch: Batch) -> None:
        read_all = not any(moved is tail for moved, _ in batch.moves) and tail.offset >= tail.size
        if tail.rotated_since is not None:
            if read_all and self.clock() - tail.rotated_since >= _GRACE_SECONDS:
                self._forget(tail)
            elif not read_all:
                tail.rotated_since = self.clock()
            return
        try:
            status = Path(tail.path).stat()
            same = (status.st_dev, status.st_ino) == (tail.dev, tail.inode)
        except OSError:
            same = False
        if not same and read_all:
            tail.rotated_since = self.clock()
            self.counters.rotations += 1
            if self._tails.get(tail.path) is tail:
                del self._tails[tail.path]
            self._old.append(tail)
            self._open(tail.path, fresh=True)
            if tail.path not in self._tails:  # its successor is not there yet
                self._awaited[tail.path] = self.clock() + _SUCCESSOR_SECONDS

    def _changed(self, tail: Tail) -> bool:
        return tail.print_size > 0 and _hash(tail.fd, tail.print_size) != tail.print_hash

    def _fingerprint(self, tail: Tail) -> None:
        if tail.print_size < _FINGERPRINT_BYTES:
            tail.print_size = min(_FINGERPRINT_BYTES, os.fstat(tail.fd).st_size)
            tail.print_hash = _hash(tail.fd, tail.print_size)

    def _discover(self) -> None:
        excluded = set(_matches(self.exclude))
        found = sorted(_matches(self.patterns))
        if not self._started:
            self._reopen_rotated(set(found))
        for path in found:
            if path in self._tails or path in excluded:
                continue
            if len(self._tails) >= self.max_files:
                if not self._full:
                    log.warning("files.too_many", extra={"limit": self.max_files, "path": path})
                self._full = True
                return
            self._open(path, fresh=self._started)
        self._started = True

    def _open(self, path: str, *, fresh: bool) -> None:
        """Open a file where the queue left off; at a first start only its end is read."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            log.debug("file.not_opened", extra={"path": path, "error": str(error)})
            return
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or self._is_followed(status.st_dev, status.st_ino):
            os.close(fd)
            return
        tail = Tail(path=path, fd=fd, dev=status.st_dev, inode=status.st_ino)
        if not self._resume(tail) and not fresh and status.st_size > self.first_read_bytes:
            tail.offset = _line_start(fd, status.st_size - self.first_read_bytes)
        self._tails[path] = tail

    def _is_followed(self, dev: int, inode: int) -> bool:
        return any(
            (tail.dev, tail.inode) == (dev, inode) for tail in [*self._old, *self._tails.values()]
        )

    def _resume(self, tail: Tail) -> bool:
        text = self.positions.get(tail.key)
        if text is None:
            return False
        with contextlib.suppress(ValueError, KeyError, TypeError):
            saved = json.loads(text)
            size, digest, offset = int(saved["size"]), str(saved["hash"]), int(saved["offset"])
            if _hash(tail.fd, size) == digest:
                tail.offset, tail.print_size, tail.print_hash = offset, size, digest
                return True
        return False  # another file that was given the inode of one that is gone

    def _reopen_rotated(self, present: set[str]) -> None:
        """Finish files that were renamed while nobody looked."""
        for key, text in self.positions.items():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                path = str(json.loads(text)["path"])
                dev, inode = (int(part) for part in key.removeprefix(PREFIX).split(":"))
                current = Path(path).stat() if path in present else None
                if current is None or (current.st_dev, current.st_ino) != (dev, inode):
                    self._reopen(path, dev, inode)

    def _reopen(self, path: str, dev: int, inode: int) -> None:
        with os.scandir(Path(path).parent) as entries:
            renamed = next(
                (
                    e.path
                    for e in entries
                    if e.inode() == inode and e.is_file(follow_symlinks=False)
                ),
                None,
            )
        if renamed is None:
            return
        fd = os.open(renamed, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        tail = Tail(path=path, fd=fd, dev=dev, inode=inode, rotated_since=self.clock())
        if os.fstat(fd).st_dev == dev and self._resume(tail):
            self._old.append(tail)
        else:
            os.close(fd)

    def _forget(self, tail: Tail) -> None:
        os.close(tail.fd)
        if tail in self._old:
            self._old.remove(tail)
        if self._tails.get(tail.path) is tail:
            del self._tails[tail.path]
        # Where it stopped is known on disk; a file that comes back is resumed from there.
        self.positions[tail.key] = tail.position(tail.offset)


def _matches(patterns: tuple[str, ...]) -> set[str]:
    # pathlib's globs need a root and follow `**` into everything.
    return {path for each in patterns for path in glob.iglob(each)}  # noqa: PTH207


def _hash(fd: int, size: int) -> str:
    return hashlib.sha256(os.pread(fd, size, 0)).hexdigest()


def _line_start(fd: int, offset: int) -> int:
    newline = os.pread(fd, MAX_LINE_BYTES, offset).find(b"\n")
    return offset + newline + 1
