"""Name the busiest programs: what of this moment one wants to know later."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.processtable import (
    HZ,
    NOTHING,
    READ,
    RESIDENT,
    STIME,
    UTIME,
    WRITTEN,
    Numbers,
    Process,
    ProcessTable,
)

# Shorter spans say little: whoever asks again sooner is told the same.
_SPAN_SECONDS: Final = 5.0


class Who(NamedTuple):
    """A program, and the unit and the container that it runs in."""

    comm: str
    unit: str
    container: str


class Use:
    """What the processes of one Who use together."""

    __slots__ = ("members", "moved", "resident", "ticks", "was_moved", "was_ticks")

    def __init__(self) -> None:
        self.members: set[Process] = set()
        self.ticks = self.was_ticks = 0
        self.moved = self.was_moved = 0
        self.resident = 0


Rates = list[tuple[Who, float]]


@dataclass(slots=True)
class Busiest:
    """Programs by use, the most first; rates are since the look before, five seconds or more."""

    cpu: Rates = field(default_factory=list)
    resident: Rates = field(default_factory=list)
    io: Rates = field(default_factory=list)


@dataclass(slots=True)
class ProcessTop:
    """Adds up what processes use by program, unit and container: never by process."""

    clock: Callable[[], float] = time.monotonic
    table: ProcessTable = field(default_factory=ProcessTable)
    _of: dict[Process, Who] = field(default_factory=dict, init=False)
    _uses: dict[Who, Use] = field(default_factory=dict, init=False)
    _at: float = field(default=0.0, init=False)
    _busiest: Busiest | None = field(default=None, init=False)

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one; ``start`` gives it its table."""
        return cls()

    def start(self, table: ProcessTable) -> None:
        """Begin to watch."""
        if self.table is not table:
            self.table = table
            table.all_io = True
            table.watch(self)
            self._at = self.clock()

    def named(self, process: Process) -> bool:
        """Say whose a process is that is new or has a new name; none is tracked for this."""
        if process.is_kernel_thread:
            # kworker/0:1-events, jbd2/vda1-8: what follows the slash is one of many.
            who = Who(process.comm.partition("/")[0], "", "")
        else:
            who = Who(process.comm, *self.table.owner(process))
        before = self._of.get(process)
        if before != who:
            joined = before is not None and process in self._uses[before].members
            if before is not None:
                self._leave(process, before)
            self._of[process] = who
            if joined:
                self._join(process, who)
        return False

    def appeared(self, processes: list[Process], *, first: bool) -> None:
        """Add new processes; what they used counts where they began after our last look."""
        for process in processes:
            use = self._join(process, self._of[process])
            if not first:
                _add(use, process.numbers, NOTHING)

    def changed(self, process: Process, before: Numbers) -> None:
        """Add what a process used since the last look."""
        use = self._uses.get(self._of[process])
        if use is None or process not in use.members:
            return
        _add(use, process.numbers, before)
        use.resident += process.numbers[RESIDENT] - before[RESIDENT]

    def gone(self, process: Process) -> None:
        """Let go of a process; what it used counts until the next look."""
        who = self._of.pop(process, None)
        if who is not None:
            self._leave(process, who)

    def busiest(self, most: int) -> Busiest:
        """Give the ``most`` programs of each kind of use."""
        now = self.clock()
        span = now - self._at
        if self._busiest is None or span >= _SPAN_SECONDS:
            self._busiest = self._measure(most, span if span >= _SPAN_SECONDS else None)
            self._at = now
        return self._busiest

    def _measure(self, most: int, span: float | None) -> Busiest:
        found = Busiest()
        cpu, io, resident = [], [], []
        for who, use in list(self._uses.items()):
            if span is not None:
                cpu.append((who, (use.ticks - use.was_ticks) / HZ / span))
                io.append((who, (use.moved - use.was_moved) / span))
            resident.append((who, use.resident))
            use.was_ticks, use.was_moved = use.ticks, use.moved
            if not use.members:
                del self._uses[who]
        found.cpu, found.io = _first(cpu, most), _first(io, most)
        found.resident = _first(resident, most)
        return found

    def _join(self, process: Process, who: Who) -> Use:
        use = self._uses.setdefault(who, Use())
        use.members.add(process)
        use.resident += process.numbers[RESIDENT]
        return use

    def _leave(self, process: Process, who: Who) -> None:
        use = self._uses.get(who)
        if use is not None and process in use.members:
            use.members.discard(process)
            use.resident -= process.numbers[RESIDENT]


def _add(use: Use, now: Numbers, before: Numbers) -> None:
    use.ticks += max(0, now[UTIME] + now[STIME] - before[UTIME] - before[STIME])
    use.moved += max(0, now[READ] + now[WRITTEN] - before[READ] - before[WRITTEN])


def _first(rates: Iterable[tuple[Who, float]], most: int) -> Rates:
    """Give the highest, in a steady order; who used nothing is not among the busiest."""
    used = sorted((each for each in rates if each[1] > 0), key=itemgetter(0))
    return sorted(used, key=itemgetter(1), reverse=True)[:most]
