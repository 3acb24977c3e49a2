"""Follow every process from look to look, reading again only what may have changed. See proc(5).

One descriptor a process stays open on ``/proc/PID/stat``: reading it costs a third of opening it.
Where its bytes are those of last time, the process did nothing that counts, and no other file of
it is opened; but every eighth look, spread evenly over the processes, all is read of those that
ran at all.
"""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.processes import parse_owner, parse_uid
from narthex_exporter.sources.procfs import Procfs

# USER_HZ is 100 on every architecture that Linux has left.
HZ: Final = 100
LOOKS_A_TURN: Final = 8
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_PF_KTHREAD: Final = 0x00200000
_BLOCK: Final = 65536
_STAT_BYTES: Final = 4096
# Descriptors kept, and the limit asked for; each also holds a page of the kernel's memory.
_KEPT_AT_MOST: Final = 4096
_DESCRIPTORS: Final = 16384
# Limits of a process are changed rarely: they are read each so many turns.
_LIMITS_TURNS: Final = 4
# Threads of one process that are looked into each time it did something; more wait their turn.
_FEW_THREADS: Final = 32
# Readings in ``Process.numbers``: first what only grows.
UTIME, STIME, MAJOR, MINOR, READ, WRITTEN, VOLUNTARY, NONVOLUNTARY = range(8)
COUNTERS: Final = 8
VIRTUAL, RESIDENT, THREADS, SWAPPED, FDS, PSS, SWAP_PSS = range(8, 15)
RUNNING, SLEEPING, WAITING, ZOMBIE, OTHER = range(15, 20)
READINGS: Final = 20
Numbers = tuple[int, ...]
NOTHING: Final[Numbers] = (0,) * READINGS
_STATES: Final = {b"R": RUNNING, b"S": SLEEPING, b"D": WAITING, b"Z": ZOMBIE}


class Stat(NamedTuple):
    """A line of /proc/PID/stat, as far as it is used here. Times are clock ticks."""

    comm: str
    state: int
    ppid: int
    is_kernel_thread: bool
    start: int
    counters: tuple[int, int, int, int]
    gauges: tuple[int, int, int]


class More(NamedTuple):
    """What the other files of a process say."""

    counters: tuple[int, int, int, int] = (0, 0, 0, 0)
    gauges: tuple[int, int, int, int] = (0, 0, 0, 0)
    limit: int = 0
    thread_states: tuple[int, ...] = ()


def parse_stat(raw: bytes) -> Stat:
    """Parse /proc/PID/stat; the name may hold spaces, brackets and line feeds.

    Raises ValueError.
    """
    end = raw.rindex(b")")
    words = raw[end + 2 :].split(None, 22)
    try:
        return Stat(
            raw[raw.index(b"(") + 1 : end].decode("utf-8", "replace"),
            _STATES.get(words[0], OTHER),
            int(words[1]),
            bool(int(words[6]) & _PF_KTHREAD),
            int(words[19]),
            (int(words[11]), int(words[12]), int(words[9]), int(words[7])),
            (int(words[20]), int(words[21]) * _PAGE, int(words[17])),
        )
    except IndexError as error:
        raise ValueError("a short stat line") from error


def parse_switches(status: bytes) -> tuple[int, int]:
    """Tell voluntary and other context switches, from a status file."""
    at = status.find(b"\nvoluntary_ctxt_switches:")
    if at < 0:
        return 0, 0
    words = status[at:].split(None, 4)
    return int(words[1]), int(words[3])


def parse_kib(data: bytes, name: bytes) -> int:
    """Give the bytes that a line like ``VmSwap:  12 kB`` tells; nought without it."""
    at = data.find(b"\n" + name)
    return int(data[at + len(name) + 1 :].split(None, 1)[0]) * 1024 if at >= 0 else 0


def parse_io(data: bytes) -> tuple[int, int]:
    """Tell the bytes read from and written to disks, from an io file. Raises ValueError."""
    words = data.split()
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    try:
        return int(pairs[b"read_bytes:"]), int(pairs[b"write_bytes:"])
    except KeyError as error:
        raise ValueError("an io file without bytes") from error


def parse_files_limit(data: bytes) -> int:
    """Tell how many files may be open; nought is no limit."""
    _, _, rest = data.partition(b"Max open files")
    words = rest.split(None, 1)
    return int(words[0]) if words and words[0].isdigit() else 0


class Process:
    """One process, from its first look to its end; ``numbers`` are its latest readings."""

    __slots__ = (
        "comm",
        "fd",
        "is_kernel_thread",
        "more",
        "name",
        "numbers",
        "ppid",
        "ran",
        "raw",
        "slot",
        "start",
        "tracked",
        "turn",
        "wchans",
    )

    def __init__(self, name: str, fd: int, raw: bytes, stat: Stat) -> None:
        self.name = name
        self.fd = fd
        self.raw = raw
        self.comm = stat.comm
        self.ppid = stat.ppid
        self.start = stat.start
        self.is_kernel_thread = stat.is_kernel_thread
        self.more = More()
        self.numbers = NOTHING
        # Its schedstat: while that is the same, the process has not run for an instant.
        self.ran = b""
        self.turn = 0
        self.slot = 0
        # Whether somebody wants more of it than its stat and io.
        self.tracked = False
        self.wchans: tuple[str, ...] = ()

    @property
    def limit(self) -> int:
        """How many files it may open; nought where that is unknown or not limited."""
        return self.more.limit


class Watcher(Protocol):
    """Who wants to know what became of processes."""

    def named(self, process: Process) -> bool:
        """Take note of a new process, or of one with a new name; tell whether to track it."""
        ...

    def appeared(self, processes: list[Process], *, first: bool) -> None:
        """Take their first readings; ``first`` where they were there before we looked."""
        ...

    def changed(self, process: Process, before: Numbers) -> None:
        """Take the latest readings of a process."""
        ...

    def gone(self, process: Process) -> None:
        """Let go of a process that has ended."""
        ...


@dataclass(slots=True)
class Errors:
    """What could not be read, since the exporter started."""

    listing: int = 0
    reads: int = 0
    partial: int = 0


@dataclass(slots=True)
class ProcessTable:
    """The processes of the machine. Give it ``watchers``, then let it look.

    Of a process that no watcher tracks only its stat is read, and its io where ``all_io`` says
    so. ``smaps``, ``wchan`` and ``threads`` ask for what is dear to read; ``threads`` is called
    with each tracked process of several threads when it is looked into.
    """

    root: Path = Path("/proc")
    all_io: bool = False
    smaps: bool = False
    wchan: bool = False
    threads: Callable[[Process], None] | None = None
    watchers: list[Watcher] = field(default_factory=list)
    errors: Errors = field(default_factory=Errors)
    lock: threading.RLock = field(default_factory=threading.RLock)
    boot_seconds: int = 0
    keep_at_most: int = _KEPT_AT_MOST
    _known: dict[str, Process] = field(default_factory=dict, init=False)
    _kept: int = field(default=0, init=False)
    _turn: int = field(default=0, init=False)
    _seen: Procfs | None = field(default=None, init=False)
    _counts_fds: bool = field(default=False, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        return cls(root=paths.proc)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Process | None:
        """Give the process of a number."""
        return self._known.get(name)

    def watch(self, watcher: Watcher) -> None:
        """Tell a watcher of everything from now on, and of what there is."""
        self.watchers.append(watcher)
        for process in self._known.values():
            if watcher.named(process) and not process.tracked:
                self.track(process)
        watcher.appeared(list(self._known.values()), first=True)

    def look(self, proc: Procfs) -> None:
        """Look at every process, once for each ``proc``. Raises OSError without a /proc."""
        if proc is self._seen:
            return
        if self._turn == 0:
            self._start(proc)
        try:
            names = os.listdir(self.root)  # noqa: PTH208 - the names only, and fast
        except OSError:
            self.errors.listing += 1
            raise
        self._seen = proc
        self._turn += 1
        fresh = self._follow(names)
        self._forget()
        found = [process for name in fresh if (process := self._admit(name)) is not None]
        if found:
            for watcher in self.watchers:
                watcher.appeared(found, first=self._turn == 1)

    def close(self) -> None:
        """Close what is kept open."""
        with self.lock:
            for process in self._known.values():
                self._shut(process)
            self._known.clear()

    def track(self, process: Process) -> None:
        """Read all of a process, now and from now on."""
        process.tracked = True
        self._update(process, parse_stat(process.raw), full=True)

    def cmdline(self, process: Process) -> list[str]:
        """Give the arguments of a process; none for a kernel thread or a zombie."""
        data = self._quietly(process, "cmdline").rstrip(b"\0")
        return data.decode("utf-8", "replace").split("\0") if data else []

    def owner(self, process: Process) -> tuple[str, str]:
        """Tell the unit and the container that a process belongs to; empty where to none."""
        return parse_owner(self._quietly(process, "cgroup").decode("utf-8", "replace"))

    def cgroups(self, process: Process) -> list[str]:
        """Give the paths of its control groups, one a hierarchy."""
        lines = self._quietly(process, "cgroup").decode("utf-8", "replace").splitlines()
        return [line.split(":", 2)[2] for line in lines if line.count(":") > 1]

    def uid(self, process: Process) -> int | None:
        """Give the effective user."""
        try:
            return parse_uid(self._quietly(process, "status").decode("utf-8", "replace"))
        except ValueError:
            return None

    def task(self, process: Process, thread: str, name: str) -> bytes:
        """Read a file of one thread. Raises OSError."""
        return self._read(f"{process.name}/task/{thread}/{name}")

    def tasks(self, process: Process) -> list[str]:
        """Name the threads of a process. Raises OSError."""
        return os.listdir(f"{self.root}/{process.name}/task")  # noqa: PTH208

    def _start(self, proc: Procfs) -> None:
        try:
            self.boot_seconds = proc.stat.numbers.get("btime", 0)
        except (OSError, ValueError):
            self.boot_seconds = 0
        # Since Linux 6.2 the size of this folder is how many descriptors there are.
        try:
            own = Path(self.root, "self/fd").stat().st_size
        except OSError:
            own = 0
        self._counts_fds = own > 0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        if soft != resource.RLIM_INFINITY:
            self.keep_at_most = min(self.keep_at_most, soft // 2)

    def _follow(self, names: list[str]) -> list[str]:
        """Look at the processes that are known; give the names of those that are not."""
        fresh = []
        known, turn, pread = self._known, self._turn, os.pread
        slot = turn % LOOKS_A_TURN
        # The hot loop: once for each process of the machine at each scrape.
        for name in names:
            process = known.get(name)
            if process is None:
                if name[0].isdecimal():
                    fresh.append(name)
                continue
            try:
                if process.fd >= 0:
                    raw = pread(process.fd, _STAT_BYTES, 0)
                else:
                    raw = self._read(f"{name}/stat")
            except OSError:
                # It has ended; its number may be another's by now.
                fresh.append(name)
                continue
            if raw == process.raw:
                process.turn = turn
                if process.slot == slot and process.tracked and self._ran(process):
                    self._update(process, parse_stat(raw), full=True)
            elif not self._moved(process, raw, full=process.slot == slot):
                fresh.append(name)
        return fresh

    def _ran(self, process: Process) -> bool:
        """Tell whether a process may have run since this was asked last."""
        before = process.ran
        process.ran = self._quietly(process, "schedstat")
        # The file is of the first thread only; and others change what memory is shared with.
        if process.numbers[THREADS] > 1 or self.smaps or not process.ran:
            return True
        return process.ran != before

    def _moved(self, process: Process, raw: bytes, *, full: bool) -> bool:
        """Read what else changed of a process that did something; False: it is another one."""
        try:
            stat = parse_stat(raw)
        except ValueError:
            self.errors.reads += 1
            return False
        if stat.start != process.start:
            return False
        process.turn, process.raw, process.ppid = self._turn, raw, stat.ppid
        if stat.comm != process.comm:
            process.comm = stat.comm
            self._name(process)
        self._update(process, stat, full=full)
        return True

    def _update(self, process: Process, stat: Stat, *, full: bool) -> None:
        before = process.numbers
        self._reread(process, stat, full=full)
        if process.numbers != before:
            for watcher in self.watchers:
                watcher.changed(process, before)

    def _forget(self) -> None:
        """Drop the processes that were not met in this look."""
        turn = self._turn
        ended = [process for process in self._known.values() if process.turn != turn]
        for process in ended:
            for watcher in self.watchers:
                watcher.gone(process)
            self._shut(process)
            del self._known[process.name]

    def _admit(self, name: str) -> Process | None:
        """Take a new process in; None where it has ended already."""
        try:
            fd = os.open(f"{self.root}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:
            self.errors.reads += 1
            return None
        try:
            raw = os.pread(fd, _STAT_BYTES, 0)
            stat = parse_stat(raw)
        except ProcessLookupError:
            os.close(fd)
            return None
        except (OSError, ValueError):
            self.errors.reads += 1
            os.close(fd)
            return None
        if self._kept >= self.keep_at_most:
            os.close(fd)
            fd = -1
        else:
            self._kept += 1
        process = Process(name, fd, raw, stat)
        process.turn = self._turn
        process.slot = len(self._known) % LOOKS_A_TURN
        self._known[name] = process
        self._name(process)
        self._reread(process, stat, full=True)
        return process

    def _name(self, process: Process) -> None:
        # Each is to know, so none is left out where an earlier one says yes.
        tracked = [watcher.named(process) for watcher in self.watchers]
        process.tracked = any(tracked)

    def _shut(self, process: Process) -> None:
        if process.fd >= 0:
            os.close(process.fd)
            process.fd = -1
            self._kept -= 1

    def _reread(self, process: Process, stat: Stat, *, full: bool) -> None:
        more = process.more
        if process.tracked or (self.all_io and not process.is_kernel_thread):
            try:
                more = process.more = self._more(process, stat, full=full)
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has ended since; what was known of it stays for this look
            except (OSError, ValueError):
                self.errors.partial += 1
        states = [0] * 5
        states[stat.state - RUNNING] = 1
        for state, count in enumerate(more.thread_states):
            states[state] += count
        process.numbers = (*stat.counters, *more.counters, *stat.gauges, *more.gauges, *states)

    def _more(self, process: Process, stat: Stat, *, full: bool) -> More:
        old, name, partial = process.more, process.name, 0
        read, written = old.counters[:2]
        try:
            read, written = parse_io(self._read(f"{name}/io"))
        except (PermissionError, ValueError):
            partial = 1
        if not process.tracked:
            return More((read, written, *old.counters[2:]))
        status = self._read(f"{name}/status")
        switches, states = parse_switches(status), old.thread_states
        if stat.gauges[2] > 1:
            if full or stat.gauges[2] <= _FEW_THREADS:
                switches, states = self._tasks(process)
                if self.threads is not None:
                    self.threads(process)
            else:
                switches = old.counters[2], old.counters[3]
        elif states:
            states = ()
        seldom = old.gauges[1], old.limit, *old.gauges[2:]
        try:
            seldom = self._seldom(process, full=full)
            if self.wchan:
                process.wchans = self._wchans(process, stat)
        except PermissionError:
            partial = 1
        fds, limit, pss, swap_pss = seldom
        self.errors.partial += partial
        return More(
            (read, written, *switches),
            (parse_kib(status, b"VmSwap:"), fds, pss, swap_pss),
            limit,
            states,
        )

    def _seldom(self, process: Process, *, full: bool) -> tuple[int, int, int, int]:
        """Give open files, their limit, and proportional memory: only the first each time."""
        limit, (pss, swap_pss) = process.more.limit, process.more.gauges[2:]
        if full and (not limit or self._turn // LOOKS_A_TURN % _LIMITS_TURNS == 0):
            limit = parse_files_limit(self._read(f"{process.name}/limits"))
        if full and self.smaps:
            rollup = self._read(f"{process.name}/smaps_rollup")
            pss, swap_pss = parse_kib(rollup, b"Pss:"), parse_kib(rollup, b"SwapPss:")
        return self._fds(process.name), limit, pss, swap_pss

    def _fds(self, name: str) -> int:
        path = f"{self.root}/{name}/fd"
        if self._counts_fds:
            return os.stat(path).st_size  # noqa: PTH116 - hot
        return len(os.listdir(path))  # noqa: PTH208

    def _tasks(self, process: Process) -> tuple[tuple[int, int], tuple[int, ...]]:
        """Add up the context switches of the threads, and count their states."""
        voluntary = other = 0
        states = [0] * 5
        for thread in self.tasks(process):
            try:
                status = self.task(process, thread, "status")
            except (FileNotFoundError, ProcessLookupError):
                continue
            one, two = parse_switches(status)
            voluntary += one
            other += two
            at = status.find(b"\nState:\t")
            states[_STATES.get(status[at + 8 : at + 9], OTHER) - RUNNING] += 1
        return (voluntary, other), tuple(states)

    def _wchans(self, process: Process, stat: Stat) -> tuple[str, ...]:
        names = [self._read(f"{process.name}/wchan")]
        if stat.gauges[2] > 1:
            for thread in self.tasks(process):
                try:
                    names.append(self.task(process, thread, "wchan"))
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return tuple(sorted(n.decode("utf-8", "replace") for n in names if n not in {b"", b"0"}))

    def _quietly(self, process: Process, name: str) -> bytes:
        try:
            return self._read(f"{process.name}/{name}")
        except OSError:
            return b""

    def _read(self, name: str) -> bytes:
        fd = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, _BLOCK, 0)
        finally:
            os.close(fd)
