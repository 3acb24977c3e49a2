"""Read what is mounted, how full it is, without waiting for a server that is gone."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.sources.patience import Outcome, Patience

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_FIELDS: Final = 10


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


@dataclass(slots=True, kw_only=True)
class Filesystems:
    """The mounts of the machine whose / is at ``root``, seen through ``procfs``."""

    procfs: Path = Path("/proc")
    root: Path = Path("/")
    ask: Callable[[bytes], Space] = statvfs
    _patience: Patience[tuple[int, bytes], Space] = field(
        default_factory=lambda: Patience("statvfs"), init=False
    )

    def mounts(self) -> list[Mount]:
        """Name what is mounted, as seen by PID 1 or, where that is not ours to see, by us."""
        for process in ("1", "self"):
            try:
                data = (self.procfs / process / "mountinfo").read_bytes()
            except (PermissionError, FileNotFoundError):
                continue
            return [mount for mount in map(self._as_seen, parse_mountinfo(data)) if mount]
        raise FileNotFoundError(f"there is no mountinfo below {self.procfs}")

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
