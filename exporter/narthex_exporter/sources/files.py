"""Read the kernel's small files again and again, through descriptors that stay open.

To open a file below /proc or /sys costs several times what reading it costs (``bench/exporter.py``
shows it), so each is opened once and read from its start with pread(2). A descriptor belongs to
the thing it was opened for: where that is gone, the read fails, and the name is opened anew.
"""

import errno
import os
import threading
from dataclasses import dataclass, field
from typing import Final

_BLOCK: Final = 65536
# seq_file(9) fills a buffer of at least a page before it ends a read early, less one record.
_SMALL: Final = 2048
# What a read says when the device or process behind an open descriptor is gone.
_GONE: Final = frozenset({errno.ENODEV, errno.ESRCH, errno.ENXIO, errno.ESTALE, errno.EBADF})


class _Open:
    """One open file; ``busy`` while a thread reads it, perhaps for ever."""

    __slots__ = ("busy", "fd", "turn")

    def __init__(self, fd: int, turn: int) -> None:
        self.fd = fd
        self.turn = turn
        self.busy = 0


@dataclass(slots=True)
class Files:
    """Descriptors by path, at most ``most``; beyond that files are opened for each read."""

    most: int = 1024
    _open: dict[str, _Open] = field(default_factory=dict, init=False)
    _turn: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def read(self, path: str) -> bytes:
        """Give the whole of a file. Raises OSError, as open(2) and pread(2) say."""
        kept = self._open.get(path)
        if kept is None:
            return self._first(path)
        kept.turn = self._turn
        kept.busy += 1
        try:
            return _whole(kept.fd)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        finally:
            kept.busy -= 1
        self._drop(path, kept)
        return self._first(path)

    def sweep(self, *, turns: int = 3) -> None:
        """Close what was not read in the last few turns; call it once a turn."""
        self._turn += 1
        old = self._turn - turns
        for path, kept in list(self._open.items()):
            if kept.turn < old and not kept.busy:
                self._drop(path, kept)

    def close(self) -> None:
        """Close everything."""
        for path, kept in list(self._open.items()):
            self._drop(path, kept)

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._open)

    def _first(self, path: str) -> bytes:
        kept = _Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), self._turn)
        with self._lock:
            keep = path not in self._open and len(self._open) < self.most
            if keep:
                # Kept even if it cannot be read now: a link that is down has no speed yet.
                kept.busy = 1
                self._open[path] = kept
        try:
            return _whole(kept.fd)
        except OSError as error:
            if keep and error.errno in _GONE:
                self._drop(path, kept)
            raise
        finally:
            kept.busy -= 1
            if not keep:
                os.close(kept.fd)

    def _drop(self, path: str, kept: _Open) -> None:
        with self._lock:
            if self._open.get(path) is not kept:
                return
            del self._open[path]
        os.close(kept.fd)


def _whole(fd: int) -> bytes:
    data = os.pread(fd, _BLOCK, 0)
    # The kernel may end a read early, so only an empty one is the end; but a small answer from
    # procfs or sysfs is whole, and most are small.
    if len(data) < _SMALL:
        return data
    parts = [data]
    while data := os.pread(fd, _BLOCK, sum(map(len, parts))):
        parts.append(data)
    return b"".join(parts)
