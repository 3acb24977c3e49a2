"""Read what is mounted, how full it is, without waiting for a server that is gone."""

import os
import re
import select
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.sources.patience import Outcome, Patience

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_FIELDS: Final = 10
_BLOCK: Final = 65536


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount. ``path`` is the mount point as bytes, ``point`` the same for people."""

    id: int
    major: str
    minor: str
    path: bytes
    device: str
    kind: str
    readonly: bool

    @property
    def point(self) -> str:
        """The mount point; what is not UTF-8 is shown as U+FFFD."""
        return self.path.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Space:
    """How much a filesystem holds, in bytes and files. ``available`` is without root's share."""

    size: int
    free: int
    available: int
    files: int
    files_free: int


def parse_mountinfo(data: bytes) -> list[Mount]:
    """Parse /proc/pid/mountinfo, see proc(5); lines of another shape are skipped."""
    found = []
    for line in data.split(b"\n"):
        words = line.split(b" ")
        if len(words) < _FIELDS or b"-" not in words[6:-3]:
            continue
        rest = words.index(b"-", 6) + 1
        major, _, minor = words[2].decode("ascii", "replace").partition(":")
        source, options = words[rest + 1], words[rest + 2]
        found.append(
            Mount(
                id=int(words[0]) if words[0].isdigit() else 0,
                major=major,
                minor=minor,
                path=_unescape(words[4]),
                device=_unescape(source).decode("utf-8", "replace"),
                kind=_unescape(words[rest]).decode("utf-8", "replace"),
                readonly=b"ro" in words[5].split(b",") or b"ro" in options.split(b","),
            )
        )
    return found


def statvfs(path: bytes) -> Space:
    """Ask a filesystem; blocks for as long as it does not answer."""
    found = os.statvfs(path)
    return Space(
        size=found.f_blocks * found.f_frsize,
        free=found.f_bfree * found.f_frsize,
        available=found.f_bavail * found.f_frsize,
        files=found.f_files,
        files_free=found.f_ffree,
    )


@dataclass(slots=True)
class _Table:
    """A mountinfo file that is kept open: the kernel tells when it has changed."""

    fd: int
    mounts: tuple[Mount, ...] | None = None
    _poll: select.poll = field(default_factory=select.poll, init=False)
    _watched: bool = field(init=False)

    def __post_init__(self) -> None:
        # A file of procfs has no size; one that has is a copy, which tells of no change.
        self._watched = os.fstat(self.fd).st_size == 0
        self._poll.register(self.fd, select.POLLPRI)

    def changed(self) -> bool:
        """Tell whether it must be read again. See proc(5), mounts: a change is an exception."""
        return self.mounts is None or not self._watched or bool(self._poll.poll(0))

    def read(self) -> bytes:
        parts, size = [], 0
        while part := os.pread(self.fd, _BLOCK, size):
            parts.append(part)
            size += len(part)
        return b"".join(parts)


@dataclass(slots=True, kw_only=True)
class Filesystems:
    """The mounts of the machine whose / is at ``root``, seen through ``procfs``."""

    procfs: Path = Path("/proc")
    root: Path = Path("/")
    ask: Callable[[bytes], Space] = statvfs
    _table: _Table | None = field(default=None, init=False)
    _chosen: tuple[tuple[Mount, ...], Hashable, tuple[Mount, ...]] | None = field(
        default=None, init=False
    )
    _patience: Patience[tuple[int, bytes], Space] = field(
        default_factory=lambda: Patience("statvfs"), init=False
    )

    def __del__(self) -> None:
        self._forget()

    def mounts(self) -> tuple[Mount, ...]:
        """Name what is mounted, as seen by PID 1 or, where that is not ours to see, by us.

        While nothing was mounted or unmounted, gives the very tuple that it gave before.
        """
        table = self._table
        if table is None:
            table = self._table = self._open()
        if table.changed():
            try:
                data = table.read()
            except OSError:
                # The process whose view it was is gone.
                self._forget()
                table = self._table = self._open()
                data = table.read()
            table.mounts = tuple(filter(None, map(self._as_seen, parse_mountinfo(data))))
        found: tuple[Mount, ...] = table.mounts or ()
        return found

    def chosen(
        self,
        *,
        points: tuple[re.Pattern[str], re.Pattern[str]],
        kinds: tuple[re.Pattern[str], re.Pattern[str]],
    ) -> tuple[Mount, ...]:
        """Choose by mount point and type: what the first of a pair finds and the second does not.

        Of several mounts in one place the last is what is seen.
        """
        mounts = self.mounts()
        known = self._chosen
        if known is not None and known[0] is mounts and known[1] == (points, kinds):
            return known[2]
        found = {
            mount.point: mount
            for mount in mounts
            if kinds[0].search(mount.kind)
            and not kinds[1].search(mount.kind)
            and points[0].search(mount.point)
            and not points[1].search(mount.point)
        }
        chosen = tuple(found.values())
        self._chosen = (mounts, (points, kinds), chosen)
        return chosen

    def _open(self) -> _Table:
        for process in ("1", "self"):
            try:
                fd = os.open(self.procfs / process / "mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            except (PermissionError, FileNotFoundError):
                continue
            return _Table(fd)
        raise FileNotFoundError(f"there is no mountinfo below {self.procfs}")

    def _forget(self) -> None:
        if self._table is not None:
            os.close(self._table.fd)
            self._table = None

    def spaces(
        self, mounts: Iterable[Mount], *, limit_seconds: float, total_seconds: float
    ) -> dict[Mount, Outcome[Space]]:
        """Ask each filesystem, at most ``limit_seconds`` each and ``total_seconds`` in all.

        One that hangs is told as stuck, at once in later calls, until it answers again.
        """
        by_key = {(mount.id, mount.path): mount for mount in mounts}
        found = self._patience.run(
            {key: self._question(key[1]) for key in by_key},
            limit=lambda _: limit_seconds,
            total_seconds=total_seconds,
        )
        return {by_key[key]: outcome for key, outcome in found.items()}

    @property
    def hung(self) -> int:
        """How many threads wait for a filesystem that does not answer."""
        return len(self._patience.hung)

    def _question(self, path: bytes) -> Callable[[], Space]:
        below = os.fsencode(self.root).rstrip(b"/") + path
        return lambda: self.ask(below)

    def _as_seen(self, mount: Mount) -> Mount | None:
        """Tell a mount point as the machine does, where its / is mounted for us elsewhere."""
        root = os.fsencode(self.root).rstrip(b"/")
        if not root:
            return mount
        if mount.path != root and not mount.path.startswith(root + b"/"):
            # PID 1 of the machine itself names points without our prefix.
            return mount
        return Mount(
            mount.id, mount.major, mount.minor, mount.path[len(root) :] or b"/",
            mount.device, mount.kind, mount.readonly,
        )  # fmt: skip


def _unescape(word: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), word)
