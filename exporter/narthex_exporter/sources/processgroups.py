"""Add up processes by group, so that what was counted never shrinks when processes end."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.processes import user_name
from narthex_exporter.sources.processnames import EACH_PROGRAM, Rules, Subject
from narthex_exporter.sources.processtable import (
    COUNTERS,
    FDS,
    HZ,
    NOTHING,
    READINGS,
    Numbers,
    Process,
    ProcessTable,
    parse_io,
    parse_stat,
    parse_switches,
)

# Where processes go for which there is no room.
OVERFLOW: Final = "other"
ThreadId = tuple[str, int]


class Group:
    """The processes of one name. ``totals`` hold counters and sums, as Process.numbers does."""

    __slots__ = ("chunks", "emptied", "members", "name", "oldest", "totals", "worst")

    def __init__(self, name: str) -> None:
        self.name = name
        self.totals = [0] * READINGS
        self.members: set[Process] = set()
        self.emptied = 0
        # Of all members: the highest share of open files, and the first start, in ticks.
        self.worst = 0.0
        self.oldest = 0
        # What a collector has written of it.
        self.chunks: list[str] = []

    def settle(self) -> None:
        """Find again what cannot be added up."""
        self.worst = max(map(_fd_ratio, self.members), default=0.0)
        self.oldest = min((member.start for member in self.members), default=0)

    def wchans(self) -> Counter[str]:
        """Count what the threads of this group wait for in the kernel."""
        return Counter(name for member in self.members for name in member.wchans)


@dataclass(slots=True)
class Threads:
    """The threads of one name in a group: how many there are, and what they did."""

    count: int = 0
    counters: list[int] = field(default_factory=lambda: [0] * COUNTERS)


@dataclass(slots=True)
class Grouper:
    """Puts each process into the group that ``rules`` name, in at most ``most`` groups.

    A process counts from the first look at it, or from its start where that was later. With
    ``children`` one that no rule is for belongs where its parent does. A group whose processes
    have ended stays, until its room is needed.
    """

    rules: Rules = EACH_PROGRAM
    most: int = 100
    children: bool = True
    table: ProcessTable = field(default_factory=ProcessTable)
    groups: dict[str, Group] = field(default_factory=dict)
    changed_groups: set[Group] = field(default_factory=set)
    rearranged: bool = True
    _of: dict[Process, Group] = field(default_factory=dict, init=False)
    _joining: set[Process] = field(default_factory=set, init=False)
    _orphans: list[Process] = field(default_factory=list, init=False)
    _cut: set[Process] = field(default_factory=set, init=False)
    _clock: int = field(default=0, init=False)
    _threads: dict[Process, dict[ThreadId, tuple[str, Numbers]]] = field(
        default_factory=dict, init=False
    )
    _by_thread: dict[tuple[Group, str], Threads] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one; ``start`` gives it its table."""
        return cls()

    @property
    def truncated(self) -> bool:
        """Tell whether there are processes in OVERFLOW for which there was no room."""
        return bool(self._cut)

    def start(self, table: ProcessTable) -> None:
        """Begin to watch, with the settings as they are now."""
        if self.table is not table:
            self.table = table
            table.watch(self)

    def named(self, process: Process) -> bool:
        """Choose the group of a process that is new or has a new name."""
        before, known = self._of.get(process), process.numbers is not NOTHING
        name = self.rules.group(self._subject(process))
        group = self._inherited(process) if name is None else self._group(name, process)
        if group is before and group is not None:
            return True
        if before is not None:
            self._leave(process, before)
        if group is None:
            self._of.pop(process, None)
            self._orphans.append(process)
            return False
        self._of[process] = group
        if known:
            self._join(process, group)
            if before is None:
                self._joining.add(process)
        return True

    def appeared(self, processes: list[Process], *, first: bool) -> None:
        """Let new processes join their groups."""
        adopted = self._adopt()
        for process in processes:
            group = self._of.get(process)
            if group is not None and process not in group.members:
                self._join(process, group)
                if not first:
                    for position in range(COUNTERS):
                        group.totals[position] += process.numbers[position]
        for process in adopted:
            if process not in self._of[process].members:
                self._join(process, self._of[process])

    def changed(self, process: Process, before: Numbers) -> None:
        """Add what a process did since the last look."""
        group = self._of.get(process)
        if group is None or process not in group.members:
            return
        totals, numbers = group.totals, process.numbers
        joining = process in self._joining
        for position in range(READINGS):
            more = numbers[position] - before[position]
            # The kernel's counts shrink where threads end: what they did stays counted.
            if more and (position >= COUNTERS or (more > 0 and not joining)):
                totals[position] += more
        if joining:
            self._joining.discard(process)
        self.changed_groups.add(group)

    def gone(self, process: Process) -> None:
        """Let a process that has ended leave its group; what it did stays."""
        group = self._of.pop(process, None)
        if group is not None:
            self._leave(process, group)

    def taken(self) -> Iterator[Group]:
        """Give the groups that changed since this was last asked, settled."""
        changed, self.changed_groups = self.changed_groups, set()
        for group in changed:
            group.settle()
            yield group

    def threads(self, process: Process) -> None:
        """Read the threads of a process; what a new one did before is not counted."""
        group = self._of.get(process)
        if group is None:
            return
        before = self._threads.get(process, {})
        found: dict[ThreadId, tuple[str, Numbers]] = {}
        for thread in self.table.tasks(process):
            try:
                stat = parse_stat(self.table.task(process, thread, "stat"))
                switches = parse_switches(self.table.task(process, thread, "status"))
            except (OSError, ValueError):
                continue  # it ended, or its line is cut
            try:
                moved = parse_io(self.table.task(process, thread, "io"))
            except (OSError, ValueError):
                moved = (0, 0)
            name, numbers = stat.comm, (*stat.counters, *moved, *switches)
            found[thread, stat.start] = (name, numbers)
            _, old = before.get((thread, stat.start), (name, numbers))
            totals = self._by_thread.setdefault((group, name), Threads()).counters
            for position in range(COUNTERS):
                totals[position] += max(0, numbers[position] - old[position])
        self._threads[process] = found

    def by_thread(self) -> Iterator[tuple[Group, str, Threads]]:
        """Give what is known of threads, by group and name of thread."""
        counts = Counter(
            (self._of[process], name)
            for process, found in self._threads.items()
            if len(found) > 1 and process in self._of
            for name, _ in found.values()
        )
        for key in [key for key in self._by_thread if key not in counts]:
            del self._by_thread[key]
        for (group, name), threads in self._by_thread.items():
            threads.count = counts[group, name]
            yield group, name, threads

    def _subject(self, process: Process) -> Subject:
        table = self.table

        def user() -> str:
            uid = table.uid(process)
            return "" if uid is None else user_name(uid)

        return Subject(
            comm=process.comm,
            cmdline=table.cmdline(process),
            pid=process.name,
            started=table.boot_seconds + process.start / HZ,
            user=user,
            cgroups=lambda: table.cgroups(process),
        )

    def _adopt(self) -> list[Process]:
        """Ask again for the parents' group: where numbers have wrapped a parent comes later."""
        orphans, self._orphans = self._orphans, []
        adopted = []
        for process in orphans:
            if process in self._of or self.table.get(process.name) is not process:
                continue
            group = self._inherited(process)
            if group is not None:
                self._of[process] = group
                self.table.track(process)
                adopted.append(process)
        return adopted

    def _inherited(self, process: Process) -> Group | None:
        seen: set[str] = set()
        name = str(process.ppid)
        while self.children and name not in seen:
            parent = self.table.get(name)
            if parent is None:
                return None
            if parent in self._of:
                return self._of[parent]
            seen.add(name)
            name = str(parent.ppid)
        return None

    def _group(self, name: str, process: Process) -> Group:
        group = self.groups.get(name)
        if group is None and len(self.groups) >= self.most and not self._make_room():
            if name != OVERFLOW:
                self._cut.add(process)
            name = OVERFLOW
            group = self.groups.get(name)
        else:
            self._cut.discard(process)
        if group is None:
            group = self.groups[name] = Group(name)
            self.changed_groups.add(group)
            self.rearranged = True
        group.emptied = 0  # somebody is about to join
        return group

    def _make_room(self) -> bool:
        empty = [
            group
            for group in self.groups.values()
            if not group.members and group.emptied and group.name != OVERFLOW
        ]
        if not empty:
            return False
        oldest = min(empty, key=lambda group: group.emptied)
        del self.groups[oldest.name]
        self.changed_groups.discard(oldest)
        self.rearranged = True
        return True

    def _join(self, process: Process, group: Group) -> None:
        group.members.add(process)
        for position in range(COUNTERS, READINGS):
            group.totals[position] += process.numbers[position]
        self.changed_groups.add(group)

    def _leave(self, process: Process, group: Group) -> None:
        self._cut.discard(process)
        self._joining.discard(process)
        self._threads.pop(process, None)
        if process in group.members:
            group.members.discard(process)
            for position in range(COUNTERS, READINGS):
                group.totals[position] -= process.numbers[position]
        if not group.members:
            self._clock += 1
            group.emptied = self._clock
        self.changed_groups.add(group)


def _fd_ratio(process: Process) -> float:
    limit = process.limit
    return process.numbers[FDS] / limit if limit else 0.0
