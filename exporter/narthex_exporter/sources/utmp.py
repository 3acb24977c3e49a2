"""Read who is logged in, and who failed to: utmp(5)'s records and logind's sessions."""

import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.kept import Kept, stamp
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.text import clean

# See utmp(5) and bits/utmp.h: type, pid, line, id, user, host, exit, session, time, …
_SHORT: Final = struct.Struct("=h2xi32s4s32s256s4xiii36x")
# The C library of ARM64 has longs for session and time there.
_LONG: Final = struct.Struct("=h2xi32s4s32s256s4xqqq40x")
_LONG_MACHINES: Final = frozenset({"aarch64"})
_EMPTY: Final = 0
_USER_PROCESS: Final = 7
_MOST_BYTES: Final = 1 << 20
_NAME_LENGTH: Final = 64
# Sessions of people; others are display managers, cron jobs and systemd's own.
_PEOPLE: Final = frozenset({"user", "user-early", "user-light", "user-incomplete"})
_HERE: Final = frozenset({"active", "online"})


@dataclass(frozen=True, slots=True)
class Record:
    """One record: ``kind`` and ``pid`` as utmp(5) has them, ``at`` in unixtime."""

    kind: int
    pid: int
    user: str
    at: int


def layout(machine: str | None = None) -> struct.Struct:
    """Give the layout of records on a machine, by default on this one."""
    return _LONG if (machine or os.uname().machine) in _LONG_MACHINES else _SHORT


def parse(data: bytes, shape: struct.Struct | None = None) -> Iterator[Record]:
    """Parse records; what follows the last whole one is left."""
    shape = shape or layout()
    for values in shape.iter_unpack(data[: len(data) // shape.size * shape.size]):
        kind, pid, _, _, user, _, _, seconds, _ = values
        if kind != _EMPTY:
            name = clean(user.partition(b"\0")[0], limit=_NAME_LENGTH)
            yield Record(kind, pid, name, seconds)


def parse_session(text: str) -> str | None:
    """Give the user of one of logind's files; None where it is no person that is there."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if found.get("CLASS", "user") not in _PEOPLE or found.get("STATE") not in _HERE:
        return None
    return clean(found.get("USER", ""), limit=_NAME_LENGTH) or None


@dataclass(slots=True)
class Logins:
    """Who is logged in: by logind where it runs, else by utmp."""

    paths: Paths
    _sessions: Kept[tuple[str, ...]] = field(default_factory=Kept, init=False)
    _records: Kept[tuple[Record, ...]] = field(default_factory=Kept, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own sessions."""
        return cls(paths)

    def sessions(self) -> Counter[str]:
        """Count the sessions of each user. Raises FileNotFoundError where nothing tells."""
        folder = self.paths.rooted("/run/systemd/sessions")
        told = stamp((folder,))
        if told != (None,):
            return Counter(self._sessions.get(told, lambda: _logind(folder)))
        path = self.paths.rooted("/run/utmp")
        records = self._records.get(stamp((path,)), lambda: _utmp(path))
        # A session that was cut off leaves its record behind.
        return Counter(
            record.user for record in records if (self.paths.proc / str(record.pid)).exists()
        )


def _logind(folder: Path) -> tuple[str, ...]:
    found = []
    for path in folder.iterdir():
        if "." not in path.name:  # beside each there is a pipe, <session>.ref
            try:
                user = parse_session(path.read_text(errors="replace"))
            except OSError:
                continue
            if user is not None:
                found.append(user)
    return tuple(found)


def _utmp(path: Path) -> tuple[Record, ...]:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES)
    return tuple(record for record in parse(data) if record.kind == _USER_PROCESS)


@dataclass(slots=True)
class FailedLogins:
    """Count the records that are appended to btmp, from the first look on.

    A file that was moved away, as logrotate does, is read to its end.
    """

    path: Path
    shape: struct.Struct = field(default_factory=layout)
    total: int = 0
    last: int | None = None
    _inode: int | None = field(default=None, init=False)
    _offset: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for the machine's own file."""
        return cls(paths.rooted("/var/log/btmp"))

    def look(self) -> tuple[int, int | None]:
        """Give how many there were, and the time of the last in unixtime.

        Raises FileNotFoundError, PermissionError.
        """
        with self._lock:
            try:
                told = self.path.stat()
            except FileNotFoundError:
                # What comes from now on is new.
                self._inode = self._inode or 0
                raise
            if self._inode is None:
                whole = told.st_size // self.shape.size * self.shape.size
                # What was there before is not counted, but the last one has a time.
                self._read(self.path, max(0, whole - self.shape.size))
                self._inode, self.total = told.st_ino, 0
            elif self._inode != told.st_ino:
                old = self.path.with_name(self.path.name + ".1")
                if (stamp((old,))[0] or (0, 0, 0))[2] == self._inode != 0:
                    self._read(old, self._offset)
                self._read(self.path, 0)
                self._inode = told.st_ino
            elif told.st_size < self._offset:
                self._read(self.path, 0)
            elif told.st_size >= self._offset + self.shape.size:
                self._read(self.path, self._offset)
            return self.total, self.last

    def _read(self, path: Path, offset: int) -> None:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(_MOST_BYTES // self.shape.size * self.shape.size)
        for record in parse(data, self.shape):
            self.total += 1
            self.last = record.at
        self._offset = offset + len(data) // self.shape.size * self.shape.size
