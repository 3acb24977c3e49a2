"""Know who listens on this node, since when, and for which unit or container.

Which process holds a socket only a walk over /proc/*/fd tells, some microseconds for each open
file of the machine: it is made for sockets not met before, and what it tells is kept and checked.
Without root it finds our own user's processes; the control group that the kernel names with each
socket then still tells unit and container, where control groups are of version 2.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.processes import parse_owner
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sockdiag import UDP, Listener, SockDiag

# So often is a socket looked for again that nobody was seen to hold: every so many looks.
_AGAIN_LOOKS: Final = 10
_KEEP_SECONDS: Final = 86400.0
_KEEP_AT_MOST: Final = 20_000
_GROUPS_AT_MOST: Final = 20_000
# Where version 2 of control groups is mounted: alone, or beside version 1.
_GROUP_ROOTS: Final = ("fs/cgroup/unified", "fs/cgroup")
_LINK: Final = "socket:["
_ACCEPTS: Final = 0x10000
_EPHEMERAL: Final = (32768, 60999)


class Port(NamedTuple):
    """A listening socket and who holds it; empty words where that cannot be seen."""

    protocol: str
    address: str
    port: int
    process: str
    unit: str
    container: str
    # Unixtime; 0 for what was there at the first look.
    first_seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What one look found; ``unseen`` sockets are held by processes that we cannot see."""

    ports: tuple[Port, ...]
    unseen: int


@dataclass(slots=True)
class _Holder:
    pid: int
    descriptor: str
    process: str
    unit: str
    container: str


@dataclass(slots=True)
class PortWatch:
    """Looks at listening sockets, with a memory of the looks before. For one thread."""

    paths: Paths
    diag: SockDiag
    now: Callable[[], float] = time.time
    _holders: dict[int, _Holder] = field(default_factory=dict, init=False)
    # Sockets without a holder, and at which look they were last looked for.
    _missed: dict[int, int] = field(default_factory=dict, init=False)
    _groups: dict[int, str] = field(default_factory=dict, init=False)
    # When each socket of the last look was first there.
    _since: dict[int, float] = field(default_factory=dict, init=False)
    # When each was first and last there, by all that does not change with a restart.
    _known: dict[tuple[str, str, int, str], tuple[float, float]] = field(
        default_factory=dict, init=False
    )
    _looks: int = field(default=0, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one for a node."""
        return cls(paths, SockDiag.of(paths))

    def look(self, proc: Procfs) -> Ports:
        """List who listens now.

        A UDP socket on a port of ``ip_local_port_range`` is most often a client's that waits for
        one answer: it is told from the second look on that it lives through.
        """
        now = self.now()
        first = self._looks == 0
        self._looks += 1
        met = 0.0 if first else now
        sockets = self._lasting(self.diag.listeners(proc), ephemeral_ports(proc), met)
        self._hold({each.inode for each in sockets if each.inode})
        self._name_groups({each.cgroup for each in sockets if each.cgroup})
        found: dict[tuple[str, str, int, str, str, str], Port] = {}
        unseen = 0
        for each in sockets:
            holder = self._holders.get(each.inode)
            unseen += holder is None
            unit, container = (
                (holder.unit, holder.container)
                if holder is not None
                else parse_owner(f"0::{self._groups.get(each.cgroup, '')}")
            )
            process = "" if holder is None else holder.process
            key = (each.protocol, each.address, each.port, process)
            # A socket stays the same if another process is found to hold it, or changes its name.
            begun, _ = self._known.get(key, (self._since.get(each.inode, met), now))
            self._known[key] = (begun, now)
            found[*key, unit, container] = Port(*key, unit, container, begun)
        self._forget(now)
        return Ports(ports=tuple(found.values()), unseen=unseen)

    def _lasting(
        self, sockets: list[Listener], ephemeral: tuple[int, int], met: float
    ) -> list[Listener]:
        """Note which sockets are there; leave out UDP clients' that were not before."""
        lowest, highest = ephemeral
        before = self._since
        inodes = {each.inode for each in sockets} - {0}
        self._since = {inode: before.get(inode, met) for inode in inodes}
        return [
            each
            for each in sockets
            if each.protocol != UDP or not lowest <= each.port <= highest or each.inode in before
        ]

    def _hold(self, inodes: set[int]) -> None:
        """Bring the holders of sockets up to date."""
        words: dict[int, tuple[str, str, str] | None] = {}
        for inode, holder in list(self._holders.items()):
            if inode not in inodes or not self._still(inode, holder, words):
                del self._holders[inode]
        for gone in self._missed.keys() - inodes:
            del self._missed[gone]
        wanted = {
            inode
            for inode in inodes - self._holders.keys()
            if self._looks - self._missed.get(inode, -_AGAIN_LOOKS) >= _AGAIN_LOOKS
        }
        if not wanted:
            return
        for inode, pid, descriptor in self._descriptors(wanted):
            about = self._about(pid, words)
            if about is not None:
                self._holders[inode] = _Holder(pid, descriptor, *about)
                self._missed.pop(inode, None)
                wanted.discard(inode)
        self._missed |= dict.fromkeys(wanted, self._looks)

    def _still(
        self, inode: int, holder: _Holder, words: dict[int, tuple[str, str, str] | None]
    ) -> bool:
        """Tell whether the same process still holds a socket; it may have another name by now."""
        if _target(f"{self.paths.proc}/{holder.pid}/fd/{holder.descriptor}") != inode:
            return False
        about = self._about(holder.pid, words)
        if about is None:
            return False
        holder.process, holder.unit, holder.container = about
        return True

    def _about(
        self, pid: int, words: dict[int, tuple[str, str, str] | None]
    ) -> tuple[str, str, str] | None:
        """Give a process' name, unit and container; None where it has ended."""
        if pid not in words:
            folder = self.paths.proc / str(pid)
            try:
                name = (folder / "comm").read_bytes().removesuffix(b"\n")
                owner = parse_owner((folder / "cgroup").read_text(errors="replace"))
                words[pid] = (name.decode("utf-8", "replace"), *owner)
            except OSError:
                words[pid] = None
        return words[pid]

    def _descriptors(self, wanted: set[int]) -> Iterator[tuple[int, int, str]]:
        """Give inode, process and descriptor of wanted sockets, while there are wanted ones.

        Of processes that share a socket the eldest comes first, which is the parent; and init,
        which only keeps sockets for others, last.
        """
        pids = [int(name) for name in _names(self.paths.proc) if name.isdecimal()]
        for pid in sorted(pids, key=lambda pid: (pid == 1, pid)):
            folder = f"{self.paths.proc}/{pid}/fd"
            for name in _names(folder):
                inode = _target(f"{folder}/{name}")
                if inode in wanted:
                    yield inode, pid, name
                    if not wanted:
                        return

    def _name_groups(self, ids: set[int]) -> None:
        """Find the paths of control groups by their ids, which are inode numbers there."""
        if ids <= self._groups.keys():
            return
        found = dict.fromkeys(ids, "")  # what is gone, or hidden from us, is not looked for again
        base = next(
            (
                folder
                for name in _GROUP_ROOTS
                if (folder := self.paths.sys / name).joinpath("cgroup.procs").is_file()
            ),
            None,
        )
        if base is not None:
            found |= {number: path for number, path in _groups(base) if number in ids}
        self._groups = found

    def _forget(self, now: float) -> None:
        """Forget who listened a day ago; a service that starts again is known meanwhile."""
        old = now - _KEEP_SECONDS
        for key, (_, last) in list(self._known.items()):
            if last < old:
                del self._known[key]
        if (over := len(self._known) - _KEEP_AT_MOST) > 0:
            for key in sorted(self._known, key=lambda key: self._known[key][1])[:over]:
                del self._known[key]


def ephemeral_ports(proc: Procfs) -> tuple[int, int]:
    """Give the first and the last port that the kernel gives to who asks for none; see ip(7)."""
    try:
        lowest, highest = map(int, proc.bytes("sys/net/ipv4/ip_local_port_range").split())
    except (OSError, ValueError):
        return _EPHEMERAL
    return lowest, highest


def unix_listeners(proc: Procfs) -> int:
    """Count the listening Unix sockets. Raises OSError; see proc(5)."""
    flags = (line.split(None, 4)[3:4] for line in proc.bytes("net/unix").splitlines()[1:])
    return sum(_accepts(word) for words in flags for word in words)


def _accepts(flags: bytes) -> bool:
    try:
        return int(flags, 16) & _ACCEPTS != 0
    except ValueError:
        return False  # the rest of a name with a line feed in it


def _names(folder: Path | str) -> Iterable[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - hot path
    except OSError:
        return ()  # it ended, or is not for us to see


def _target(link: str) -> int:
    """Give the inode of the socket that a descriptor is; nought where it is none, or gone."""
    try:
        target = os.readlink(link)  # noqa: PTH115 - hot path
        return int(target[len(_LINK) : -1]) if target.startswith(_LINK) else 0
    except (OSError, ValueError):
        return 0


def _groups(base: Path) -> Iterator[tuple[int, str]]:
    """Give inode number and path of each control group, as /proc/PID/cgroup writes it."""
    waiting, most = [""], _GROUPS_AT_MOST
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(f"{base}{path}") as entries:
                folders = [each for each in entries if each.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # it ended
        for each in folders[:most]:
            inside = f"{path}/{each.name}"
            yield each.inode(), inside
            waiting.append(inside)
        most -= len(folders[:most])
