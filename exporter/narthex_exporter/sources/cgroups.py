"""Read what a container uses from its control group: version 1, version 2, or some of each.

See the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import contextlib
import os
import re
import resource
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.files import Files
from narthex_exporter.sources.place import Paths

# How Docker and Podman name a container's group, with systemd's driver and with cgroupfs.
_GROUP: Final = re.compile(r"^(?:(?:docker|libpod)-)?([0-9a-f]{64})(?:\.scope)?$")
# Only engines that we speak with may leave out their name.
_SCOPE: Final = re.compile(r"^(?:docker|libpod)-([0-9a-f]{64})\.scope$")
_FOLDERS: Final[tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]] = (
    (("docker",), _GROUP),
    (("libpod_parent",), _GROUP),
    (("system.slice",), _SCOPE),
    (("machine.slice",), _SCOPE),
    (("machine.slice", "machine-libpod_pod_"), _SCOPE),
    # Podman without root, as each user's own manager runs it.
    (("user.slice", "user-", "user@", "user.slice"), _SCOPE),
    (("user.slice", "user-", "user@", "app.slice"), _SCOPE),
)
_HZ: Final = 100.0
_NANO: Final = 1e9
_MICRO: Final = 1e6
_FOREVER: Final = 1 << 62
# An idle group is read anew after so many looks, whatever its first numbers say.
_TRUST_LOOKS: Final = 6
_NESTED_AT_MOST: Final = 64
# Beside lo: what a container that runs an engine of its own makes (cAdvisor leaves them out too).
_IGNORED: Final = ("lo", "veth", "docker")


class GoneError(Exception):
    """The container has ended."""


@dataclass(frozen=True, slots=True)
class Io:
    """What a group read from and wrote to one block device, given as ``major:minor``."""

    device: str
    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class Net:
    """One network interface of a container; numbers as /proc/net/dev orders them, 16 of them."""

    interface: str
    numbers: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a container uses. None is what this kernel, or this group, does not tell.

    Limits that are not set: a memory limit of 0, a quota of None.
    """

    cpu_seconds: float | None = None
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_seconds: float | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_shares: int | None = None
    memory_usage: int | None = None
    memory_working_set: int | None = None
    memory_rss: int | None = None
    memory_cache: int | None = None
    memory_swap: int | None = None
    memory_max_usage: int | None = None
    memory_mapped_file: int | None = None
    memory_failures: int | None = None
    memory_limit: int | None = None
    oom_kills: int | None = None
    processes: int | None = None
    threads: int | None = None
    io: tuple[Io, ...] = ()
    net: tuple[Net, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the controllers' trees are; ``None`` where there is none.

    A controller is in the unified tree or in one of version 1, never in both.
    """

    unified: str | None = None
    v1: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def found(cls, base: str) -> "Layout":
        """Look below /sys/fs/cgroup."""
        if os.path.exists(f"{base}/cgroup.controllers"):  # noqa: PTH110 - strings throughout
            return cls(unified=base)
        trees = {
            controller: f"{base}/{name}"
            for name in sorted(_names(base))
            for controller in name.split(",")
        }
        unified = trees.pop("unified", None)
        return cls(unified=unified, v1=trees)

    def tree(self, controller: str) -> tuple[str | None, bool]:
        """Give a controller's tree, and whether it is of version 1."""
        one = self.v1.get(controller)
        return (self.unified, False) if one is None else (one, True)

    @property
    def main(self) -> str | None:
        """Give the tree in which containers are looked for."""
        return self.v1.get("memory") or self.v1.get("cpuacct") or self.unified


class Group:
    """One container's control group. ``path`` begins with a slash, as cAdvisor's ``id``."""

    __slots__ = (
        "_absent", "_files", "_folders", "_hot", "_idle", "_last", "_net", "_one", "_proc",
        "id", "path", "pid",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        id: str,  # noqa: A002
        path: str,
        paths: Mapping[str, str],
        layout: Layout,
        proc: str,
        files: Files,
    ) -> None:
        self.id = id
        self.path = path
        self.pid = 0
        self._files = files
        self._proc = proc
        self._folders: dict[str, str] = {}
        self._one: dict[str, bool] = {}
        for controller in ("cpu", "cpuacct", "memory", "blkio", "pids"):
            tree, one = layout.tree(controller)
            if tree is not None:
                self._folders[controller] = tree + paths.get(controller if one else "", path)
                self._one[controller] = one
        self._absent: set[str] = set()
        self._hot: tuple[bytes, ...] = ()
        self._idle = 0
        self._last: Usage | None = None
        self._net = b""

    def look(self, *, network: bool) -> Usage:
        """Give what it uses: the very same object where nothing has changed. Raises GoneError.

        A group whose CPU time, memory and I/O stand still is idle, and the rest of its files is
        left alone for a few looks.
        """
        hot = self._read_hot()
        net = self._read_net() if network else b""
        last = self._last
        if last is not None and hot == self._hot and self._idle < _TRUST_LOOKS:
            self._idle += 1
            if net == self._net:
                return last
            usage = _with_net(last, net)
        else:
            self._idle = 0
            self._absent.clear()
            usage = self._read(hot, net)
            if usage == last:
                usage = last
        self._hot, self._net, self._last = hot, net, usage
        return usage

    def find_pid(self) -> int:
        """Give the first of its processes; 0 where none is found."""
        self.pid = next((int(pid) for pid in self._pids() if pid.isdigit()), 0)
        return self.pid

    def started(self, boot: float) -> float:
        """Give when its first process was started, in unixtime; 0 if that is not known."""
        first = 0.0
        for pid in self._pids()[:16]:
            with contextlib.suppress(OSError, ValueError, IndexError):
                raw = Path(f"{self._proc}/{int(pid)}/stat").read_bytes()
                ticks = int(raw[raw.rindex(b")") + 2 :].split()[19])
                at = boot + ticks / _HZ
                first = min(first or at, at)
        return first

    def _read_hot(self) -> tuple[bytes, ...]:
        if self._one.get("cpuacct"):
            cpu = self._file("cpuacct", "cpuacct.usage")
        else:
            cpu = self._file("cpuacct", "cpu.stat")
        if self._one.get("memory"):
            memory = self._file("memory", "memory.usage_in_bytes")
        else:
            memory = self._file("memory", "memory.current")
        if self._one.get("blkio"):
            io = self._file("blkio", "blkio.throttle.io_service_bytes_recursive")
        else:
            io = self._file("blkio", "io.stat")
        if not cpu and not memory and not self._exists():
            raise GoneError(self.path)
        return cpu, memory, io

    def _exists(self) -> bool:
        return any(os.path.isdir(folder) for folder in self._folders.values())  # noqa: PTH112

    def _read_net(self) -> bytes:
        if not self.pid and not self.find_pid():
            return b""
        data = self._net_dev()
        if not data and self.find_pid():
            data = self._net_dev()
        return data

    def _net_dev(self) -> bytes:
        # Opened each time: an open /proc/PID/net/dev would keep the network namespace alive.
        try:
            fd = os.open(f"{self._proc}/{self.pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.pid = 0
            return b""
        try:
            return os.pread(fd, 65536, 0)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def _read(self, hot: tuple[bytes, ...], net: bytes) -> Usage:
        cpu, memory, io = hot
        usage = Usage(net=parse_net(net))
        if self._one.get("cpuacct"):
            self._cpu_v1(usage, cpu)
        elif cpu:
            _cpu_v2(usage, cpu)
        self._cpu_spec(usage)
        if self._one.get("memory"):
            self._memory_v1(usage, memory)
        elif memory:
            self._memory_v2(usage, memory)
        if self._one.get("blkio"):
            usage.io = parse_blkio(io, self._file("blkio", "blkio.throttle.io_serviced_recursive"))
        else:
            usage.io = parse_io_stat(io)
        usage.threads = _number(self._file("pids", "pids.current"))
        usage.processes = len(self._pids())
        return usage

    def _cpu_v1(self, usage: Usage, total: bytes) -> None:
        nanoseconds = _number(total)
        usage.cpu_seconds = None if nanoseconds is None else nanoseconds / _NANO
        stat = self._file("cpuacct", "cpuacct.stat")
        usage.cpu_user_seconds = _scaled(_field(stat, b"user"), _HZ)
        usage.cpu_system_seconds = _scaled(_field(stat, b"system"), _HZ)

    def _cpu_spec(self, usage: Usage) -> None:
        if self._one.get("cpu"):
            quota = _number(self._file("cpu", "cpu.cfs_quota_us"))
            usage.cpu_quota = quota if quota is not None and quota > 0 else None
            usage.cpu_period = _number(self._file("cpu", "cpu.cfs_period_us"))
            usage.cpu_shares = _number(self._file("cpu", "cpu.shares"))
            if usage.cpu_quota is not None:
                _throttled(usage, self._file("cpu", "cpu.stat"), b"throttled_time", _NANO)
            return
        words = self._file("cpu", "cpu.max").split()
        if len(words) > 1:
            usage.cpu_quota = _number(words[0])
            usage.cpu_period = _number(words[1])
        weight = _number(self._file("cpu", "cpu.weight"))
        if weight is not None:
            # As cAdvisor turns a weight of 1 to 10,000 into shares of 2 to 262,144.
            usage.cpu_shares = (weight - 1) * 262142 // 9999 + 2
        if usage.cpu_quota is None:
            usage.cpu_periods = None
            usage.cpu_throttled_periods = None
            usage.cpu_throttled_seconds = None

    def _memory_v1(self, usage: Usage, current: bytes) -> None:
        usage.memory_usage = _number(current)
        stat = self._file("memory", "memory.stat")
        usage.memory_rss = _field(stat, b"total_rss")
        usage.memory_cache = _field(stat, b"total_cache")
        usage.memory_swap = _field(stat, b"total_swap")
        usage.memory_mapped_file = _field(stat, b"total_mapped_file")
        _working_set(usage, _field(stat, b"total_inactive_file"))
        usage.memory_max_usage = _number(self._file("memory", "memory.max_usage_in_bytes"))
        usage.memory_failures = _number(self._file("memory", "memory.failcnt"))
        usage.oom_kills = _field(self._file("memory", "memory.oom_control"), b"oom_kill")
        limit = _number(self._file("memory", "memory.limit_in_bytes"))
        usage.memory_limit = 0 if limit is not None and limit > _FOREVER else limit

    def _memory_v2(self, usage: Usage, current: bytes) -> None:
        usage.memory_usage = _number(current)
        stat = self._file("memory", "memory.stat")
        usage.memory_rss = _field(stat, b"anon")
        usage.memory_cache = _field(stat, b"file")
        usage.memory_mapped_file = _field(stat, b"file_mapped")
        _working_set(usage, _field(stat, b"inactive_file"))
        usage.memory_swap = _number(self._file("memory", "memory.swap.current"))
        usage.memory_max_usage = _number(self._file("memory", "memory.peak"))
        events = self._file("memory", "memory.events")
        usage.memory_failures = _field(events, b"max")
        usage.oom_kills = _field(events, b"oom_kill")
        limit = self._file("memory", "memory.max")
        usage.memory_limit = 0 if limit == b"max\n" else _number(limit)

    def _pids(self) -> list[bytes]:
        """Give the processes' numbers; those of groups within, if it has none itself.

        Podman's crun puts a container's processes into a group below, as systemd in one does.
        """
        tree = "pids" if "pids" in self._folders else "memory"
        data = self._file(tree, "cgroup.procs")
        if data or tree not in self._folders:
            return data.split()
        found: list[bytes] = []
        for number, (folder, _, _) in enumerate(os.walk(self._folders[tree])):
            if number >= _NESTED_AT_MOST:
                break
            with contextlib.suppress(OSError):
                found += self._files.read(f"{folder}/cgroup.procs").split()
        return found

    def _file(self, controller: str, name: str) -> bytes:
        """Read a file of the group; nothing where there is none."""
        folder = self._folders.get(controller)
        if folder is None or name in self._absent:
            return b""
        try:
            return self._files.read(f"{folder}/{name}")
        except OSError:
            self._absent.add(name)
            return b""


@dataclass(slots=True)
class Cgroups:
    """The containers of this machine by their groups, found by name or by their first process."""

    base: str
    proc: str
    files: Files = field(default_factory=lambda: Files(most=descriptors()))
    _layout: Layout = field(default_factory=Layout, init=False)
    _groups: dict[str, Group] = field(default_factory=dict, init=False)
    _seen: dict[str, int] = field(default_factory=dict, init=False)
    _unplaced: dict[str, int] = field(default_factory=dict, init=False)
    _lost: bool = field(default=True, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        return cls(base=f"{paths.sys}/fs/cgroup", proc=str(paths.proc))

    def groups(self, pids: Mapping[str, int]) -> list[Group]:
        """Give the groups there are now; ``pids`` are the processes that engines know, by id."""
        if self._lost or self._changed():
            self._lost = False
            self._find()
        for id_, pid in pids.items():
            group = self._groups.get(id_)
            if group is None:
                if self._unplaced.get(id_) != pid:
                    self._place(id_, pid)
            elif group.pid != pid:
                group.pid = pid
        return list(self._groups.values())

    def lose(self, group: Group) -> None:
        """Forget a group that is gone."""
        self._groups.pop(group.id, None)
        self._lost = True

    def own_network(self, group: Group) -> bool:
        """Tell whether a container has another network than this machine's first process."""
        if not group.pid and not group.find_pid():
            return True
        try:
            # Each namespace has files of its own here; to compare its links would want root.
            ours = os.stat(f"{self.proc}/1/net/dev").st_ino  # noqa: PTH116
            return os.stat(f"{self.proc}/{group.pid}/net/dev").st_ino != ours  # noqa: PTH116
        except OSError:
            return True

    def close(self) -> None:
        """Close the descriptors."""
        self.files.close()

    def _changed(self) -> bool:
        """Tell whether a folder has more or fewer folders: cgroupfs counts them as links."""
        for folder, links in self._seen.items():
            now = _links(folder)
            # Some filesystems that a test may use do not count.
            if now != links or now == 1:
                return True
        return False

    def _find(self) -> None:
        self._layout = Layout.found(self.base)
        tree = self._layout.main
        self._seen = {}
        self._unplaced = {}
        self._note(self.base)
        if tree is None:
            return
        for folders, pattern in _FOLDERS:
            for folder in self._walk(tree, folders):
                for name in _names(folder):
                    match = pattern.match(name)
                    if match and match[1] not in self._groups:
                        path = f"{folder}/{name}".removeprefix(tree)
                        self._add(match[1], path, {})

    def _walk(self, tree: str, folders: Iterable[str]) -> Iterator[str]:
        self._note(tree)
        found = [tree]
        for part in folders:
            begins = part.endswith(("-", "@", "_"))
            deeper = []
            for folder in found:
                names = _names(folder) if begins else [part]
                deeper += [f"{folder}/{name}" for name in names if name.startswith(part)]
            found = [folder for folder in deeper if self._note(folder)]
        yield from found

    def _note(self, folder: str) -> bool:
        links = _links(folder)
        if links:
            self._seen[folder] = links
        return links > 0

    def _place(self, id_: str, pid: int) -> None:
        """Find a group by a process in it; one that cannot be found is left out."""
        try:
            text = Path(f"{self.proc}/{pid}/cgroup").read_text(errors="replace")
        except OSError:
            return
        paths = parse_membership(text, id_)
        controller = "memory" if self._layout.v1 else ""
        path = paths.get(controller) or next(iter(paths.values()), None)
        if path is None:
            self._unplaced[id_] = pid
        else:
            self._add(id_, path, paths).pid = pid

    def _add(self, id_: str, path: str, paths: Mapping[str, str]) -> Group:
        group = Group(id_, path, paths, self._layout, self.proc, self.files)
        self._groups[id_] = group
        return group


def parse_membership(text: str, id_: str) -> dict[str, str]:
    """Give a container's group by controller (``""`` is version 2) from /proc/PID/cgroup.

    The process may be in a group within; and where we are in a cgroup namespace of our own, paths
    begin with ``..`` and tell nothing.
    """
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        start = path.find(id_)
        if start < 0 or not path.startswith("/") or ".." in path.split("/"):
            continue
        end = path.find("/", start)
        for controller in controllers.split(","):
            found[controller] = path if end < 0 else path[:end]
    return found


def parse_io_stat(data: bytes) -> tuple[Io, ...]:
    """Parse io.stat of version 2."""
    found = []
    for line in data.decode("utf-8", "replace").splitlines():
        device, *words = line.split()
        pairs = dict(word.partition("=")[::2] for word in words)
        try:
            numbers = [int(pairs[key]) for key in ("rbytes", "wbytes", "rios", "wios")]
        except (KeyError, ValueError):
            continue
        found.append(Io(device, *numbers))
    return tuple(found)


def parse_blkio(data: bytes, counts: bytes) -> tuple[Io, ...]:
    """Parse bytes and counts of version 1: lines of ``8:0 Read 4096``."""
    found: dict[str, list[int]] = {}
    for position, text in enumerate((data, counts)):
        for line in text.decode("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in {"Read", "Write"} and words[2].isdigit():  # noqa: PLR2004
                numbers = found.setdefault(words[0], [0, 0, 0, 0])
                numbers[position * 2 + (words[1] == "Write")] = int(words[2])
    return tuple(Io(device, *numbers) for device, numbers in found.items())


def parse_net(data: bytes) -> tuple[Net, ...]:
    """Parse a container's /proc/PID/net/dev, without its loopback."""
    found = []
    for line in data.decode("utf-8", "replace").splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        name = name.strip()
        words = rest.split()
        if not name.startswith(_IGNORED) and len(words) >= 12:  # noqa: PLR2004 - all we use
            with contextlib.suppress(ValueError):
                found.append(Net(name, tuple(map(int, words))))
    return tuple(found)


def _with_net(usage: Usage, data: bytes) -> Usage:
    copy = Usage(**{name: getattr(usage, name) for name in Usage.__slots__})
    copy.net = parse_net(data)
    return copy


def _cpu_v2(usage: Usage, stat: bytes) -> None:
    usage.cpu_seconds = _scaled(_field(stat, b"usage_usec"), _MICRO)
    usage.cpu_user_seconds = _scaled(_field(stat, b"user_usec"), _MICRO)
    usage.cpu_system_seconds = _scaled(_field(stat, b"system_usec"), _MICRO)
    _throttled(usage, stat, b"throttled_usec", _MICRO)


def _throttled(usage: Usage, stat: bytes, name: bytes, units: float) -> None:
    usage.cpu_periods = _field(stat, b"nr_periods")
    usage.cpu_throttled_periods = _field(stat, b"nr_throttled")
    usage.cpu_throttled_seconds = _scaled(_field(stat, name), units)


def _working_set(usage: Usage, inactive: int | None) -> None:
    if usage.memory_usage is not None:
        usage.memory_working_set = max(0, usage.memory_usage - (inactive or 0))


def _field(data: bytes, name: bytes) -> int | None:
    """Give the number behind a name at a line's beginning."""
    if data.startswith(name + b" "):
        start = len(name) + 1
    else:
        at = data.find(b"\n" + name + b" ")
        if at < 0:
            return None
        start = at + len(name) + 2
    end = data.find(b"\n", start)
    return _number(data[start:] if end < 0 else data[start:end])


def _number(data: bytes) -> int | None:
    try:
        return int(data)
    except ValueError:
        return None


def _scaled(number: int | None, units: float) -> float | None:
    return None if number is None else number / units


def _names(folder: str) -> list[str]:
    """Name the folders in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _links(folder: str) -> int:
    try:
        return os.stat(folder).st_nlink  # noqa: PTH116 - for each scrape
    except OSError:
        return 0


def descriptors() -> int:
    """Give how many descriptors to keep: a third of what this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, min(4096, soft // 3)) if soft != resource.RLIM_INFINITY else 4096
