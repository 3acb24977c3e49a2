"""Report processes by group, as process-exporter does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.collectors.exposition import escape, number
from narthex_exporter.collectors.spec import (
    Block,
    Metric,
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
    limit_option,
)
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.processgroups import Group, Grouper
from narthex_exporter.sources.processnames import load
from narthex_exporter.sources.processtable import (
    FDS,
    HZ,
    MAJOR,
    MINOR,
    NONVOLUNTARY,
    OTHER,
    PSS,
    READ,
    RESIDENT,
    RUNNING,
    SLEEPING,
    STIME,
    SWAP_PSS,
    SWAPPED,
    THREADS,
    UTIME,
    VIRTUAL,
    VOLUNTARY,
    WAITING,
    WRITTEN,
    ZOMBIE,
    ProcessTable,
)

_NAME: Final = "namedprocess_namegroup_"
_GROUP: Final = ("groupname",)
_THREAD: Final = ("groupname", "threadname")
PROCESSES = gauge(f"{_NAME}num_procs", "number of processes in this group", _GROUP)
CPU = counter(f"{_NAME}cpu_seconds_total", "Cpu user usage in seconds", (*_GROUP, "mode"))
READS = counter(f"{_NAME}read_bytes_total", "number of bytes read by this group", _GROUP)
WRITES = counter(f"{_NAME}write_bytes_total", "number of bytes written by this group", _GROUP)
MAJOR_FAULTS = counter(f"{_NAME}major_page_faults_total", "Major page faults", _GROUP)
MINOR_FAULTS = counter(f"{_NAME}minor_page_faults_total", "Minor page faults", _GROUP)
SWITCHES = counter(
    f"{_NAME}context_switches_total", "Context switches", (*_GROUP, "ctxswitchtype")
)
MEMORY = gauge(f"{_NAME}memory_bytes", "number of bytes of memory in use", (*_GROUP, "memtype"))
OPEN = gauge(f"{_NAME}open_filedesc", "number of open file descriptors for this group", _GROUP)
WORST = gauge(
    f"{_NAME}worst_fd_ratio",
    "the worst (closest to 1) ratio between open fds and max fds among all procs in this group",
    _GROUP,
)
OLDEST = gauge(
    f"{_NAME}oldest_start_time_seconds",
    "start time in seconds since 1970/01/01 of oldest process in group",
    _GROUP,
)
THREAD_COUNT = gauge(f"{_NAME}num_threads", "Number of threads", _GROUP)
STATES = gauge(
    f"{_NAME}states",
    "Number of processes in states Running, Sleeping, Waiting, Zombie, or Other",
    (*_GROUP, "state"),
)
WCHANS = gauge(
    f"{_NAME}threads_wchan",
    "Number of threads in this group waiting on each wchan",
    (*_GROUP, "wchan"),
)
OF_THREADS = gauge(
    f"{_NAME}thread_count", "Number of threads in this group with same threadname", _THREAD
)
THREAD_CPU = counter(
    f"{_NAME}thread_cpu_seconds_total", "Cpu user/system usage in seconds", (*_THREAD, "mode")
)
THREAD_IO = counter(
    f"{_NAME}thread_io_bytes_total",
    "number of bytes read/written by these threads",
    (*_THREAD, "iomode"),
)
THREAD_MAJOR = counter(
    f"{_NAME}thread_major_page_faults_total", "Major page faults for these threads", _THREAD
)
THREAD_MINOR = counter(
    f"{_NAME}thread_minor_page_faults_total", "Minor page faults for these threads", _THREAD
)
THREAD_SWITCHES = counter(
    f"{_NAME}thread_context_switches_total",
    "Context switches for these threads",
    (*_THREAD, "ctxswitchtype"),
)
ERRORS = counter(
    "namedprocess_scrape_errors",
    "general scrape errors: no proc metrics collected during a cycle",
)
READ_ERRORS = counter(
    "namedprocess_scrape_procread_errors",
    "incremented each time a proc's metrics collection fails",
)
PARTIAL_ERRORS = counter(
    "namedprocess_scrape_partial_errors",
    "incremented each time a tracked proc's metrics collection fails partially, e.g. "
    "unreadable I/O stats",
)


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("true or false")
    return text.lower() == "true"


CONFIG = Option(
    "config",
    "",
    load,
    "process-exporter's configuration file, which names groups; none: a group a program.",
)
MAX = limit_option("max", 40, "Groups at most; processes beyond are in the group 'other'.")
CHILDREN = Option(
    "children", "true", _switch, "Count a process that no rule names with its parent."
)
BY_THREAD = Option("threads", "false", _switch, "Report threads by name too; each is read.")
MOST_THREADS = limit_option("max-threads", 500, "Names of threads at most, over all groups.")
SMAPS = Option("smaps", "false", _switch, "Report proportional memory too, which is dear to find.")
WCHAN = Option("wchan", "false", _switch, "Report what threads wait for in the kernel too.")

# Values within a group's totals, by what their last label says.
_CPU: Final = (("user", UTIME), ("system", STIME))
_SWITCHES: Final = (("voluntary", VOLUNTARY), ("nonvoluntary", NONVOLUNTARY))
_MEMORY: Final = (("resident", RESIDENT), ("virtual", VIRTUAL), ("swapped", SWAPPED))
_SMAPS: Final = (("proportionalResident", PSS), ("proportionalSwapped", SWAP_PSS))
_STATES: Final = (
    ("Running", RUNNING),
    ("Sleeping", SLEEPING),
    ("Waiting", WAITING),
    ("Zombie", ZOMBIE),
    ("Other", OTHER),
)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One metric's lines of a group: how they are written, and how many they are."""

    metric: Metric
    write: Callable[[str, Group], str]
    series: int = 1


def _one(metric: Metric, position: int) -> _Chunk:
    name = metric.name
    return _Chunk(
        metric,
        lambda label, group: f'{name}{{groupname="{label}"}} {group.totals[position]}\n',
    )


def _several(
    metric: Metric, parts: tuple[tuple[str, int], ...], scale: int | None = None
) -> _Chunk:
    name, labelled = metric.name, metric.labels[1]
    heads = [(f'",{labelled}="{part}"}} ', position) for part, position in parts]

    def write(label: str, group: Group) -> str:
        start, totals = f'{name}{{groupname="{label}', group.totals
        if scale is not None:
            return "".join(f"{start}{head}{totals[at] / scale}\n" for head, at in heads)
        return "".join([f"{start}{head}{totals[at]}\n" for head, at in heads])

    return _Chunk(metric, write, len(parts))


def _oldest(boot_seconds: int) -> _Chunk:
    def write(label: str, group: Group) -> str:
        if not group.members:
            return ""  # nothing runs that could have started
        start = boot_seconds + group.oldest // HZ
        return f'{OLDEST.name}{{groupname="{label}"}} {start}\n'

    return _Chunk(OLDEST, write)


def _chunks(boot_seconds: int, *, smaps: bool) -> tuple[_Chunk, ...]:
    return (
        _Chunk(
            PROCESSES,
            lambda label, group: f'{PROCESSES.name}{{groupname="{label}"}} {len(group.members)}\n',
        ),
        _several(CPU, _CPU, HZ),
        _one(READS, READ),
        _one(WRITES, WRITTEN),
        _one(MAJOR_FAULTS, MAJOR),
        _one(MINOR_FAULTS, MINOR),
        _several(SWITCHES, _SWITCHES),
        _several(MEMORY, (*_MEMORY, *_SMAPS) if smaps else _MEMORY),
        _one(OPEN, FDS),
        _Chunk(
            WORST,
            lambda label, group: f'{WORST.name}{{groupname="{label}"}} {number(group.worst)}\n',
        ),
        _oldest(boot_seconds),
        _one(THREAD_COUNT, THREADS),
        _several(STATES, _STATES),
    )


@dataclass(slots=True)
class Pages:
    """The lines of all groups, kept by metric; only those of groups that changed are written."""

    chunks: tuple[_Chunk, ...] = ()
    texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make one; does no work yet."""
        return cls()

    def blocks(self, grouper: Grouper, *, smaps: bool) -> list[Block]:
        """Give one block a metric."""
        if not self.chunks:
            self.chunks = _chunks(grouper.table.boot_seconds, smaps=smaps)
            self.texts = [""] * len(self.chunks)
        stale = set(range(len(self.chunks))) if grouper.rearranged else set()
        for group in grouper.taken():
            label = escape(group.name)
            fresh = [chunk.write(label, group) for chunk in self.chunks]
            if not group.chunks:
                stale.update(range(len(fresh)))
            else:
                stale.update(
                    position
                    for position, (new, old) in enumerate(zip(fresh, group.chunks, strict=True))
                    if new != old
                )
            group.chunks = fresh
        grouper.rearranged = False
        groups = grouper.groups.values()
        for position in stale:
            self.texts[position] = "".join([group.chunks[position] for group in groups])
        return [
            Block(chunk.metric, text, chunk.series * len(groups))
            for chunk, text in zip(self.chunks, self.texts, strict=True)
            if text
        ]


@collector(
    name="processgroups",
    metrics=(
        PROCESSES,
        CPU,
        READS,
        WRITES,
        MAJOR_FAULTS,
        MINOR_FAULTS,
        SWITCHES,
        MEMORY,
        OPEN,
        WORST,
        OLDEST,
        THREAD_COUNT,
        STATES,
        WCHANS,
        OF_THREADS,
        THREAD_CPU,
        THREAD_IO,
        THREAD_MAJOR,
        THREAD_MINOR,
        THREAD_SWITCHES,
        ERRORS,
        READ_ERRORS,
        PARTIAL_ERRORS,
    ),
    limit_seconds=4.0,
    options=(CONFIG, MAX, CHILDREN, BY_THREAD, MOST_THREADS, SMAPS, WCHAN),
)
def collect(node: Node) -> Iterator[Sample | Block]:
    """Report processes by group: CPU, memory, I/O, threads, files, states."""
    table, grouper = node.source(ProcessTable), node.source(Grouper)
    smaps, wchan, threads = (node.setting(each) for each in (SMAPS, WCHAN, BY_THREAD))
    found: list[Sample | Block] = []
    with table.lock:
        if grouper.table is not table:
            grouper.rules, grouper.most = node.setting(CONFIG), node.setting(MAX)
            grouper.children = node.setting(CHILDREN)
            table.smaps, table.wchan = smaps, wchan
            table.threads = grouper.threads if threads else None
            grouper.start(table)
        try:
            table.look(node.proc)
        except FileNotFoundError as error:
            raise NoData("there is no /proc") from error
        except OSError:
            pass  # counted, and told as ERRORS
        else:
            found += node.source(Pages).blocks(grouper, smaps=smaps)
            if grouper.truncated:
                node.cut.add(MAX)
            if wchan:
                found += _wchans(grouper)
            if threads:
                found += _threads(node, grouper)
        errors = table.errors
        found += [
            ERRORS.at(errors.listing),
            READ_ERRORS.at(errors.reads),
            PARTIAL_ERRORS.at(errors.partial),
        ]
    yield from found


def _wchans(grouper: Grouper) -> Iterator[Sample]:
    for group in grouper.groups.values():
        for name, count in group.wchans().items():
            yield WCHANS.at(count, group.name, name)


def _threads(node: Node, grouper: Grouper) -> Iterator[Sample]:
    for group, thread, found in node.capped(MOST_THREADS, grouper.by_thread()):
        names, counters = (group.name, thread), found.counters
        yield OF_THREADS.at(found.count, *names)
        for mode, position in _CPU:
            yield THREAD_CPU.at(counters[position] / HZ, *names, mode)
        yield THREAD_IO.at(counters[READ], *names, "read")
        yield THREAD_IO.at(counters[WRITTEN], *names, "write")
        yield THREAD_MAJOR.at(counters[MAJOR], *names)
        yield THREAD_MINOR.at(counters[MINOR], *names)
        for kind, position in _SWITCHES:
            yield THREAD_SWITCHES.at(counters[position], *names, kind)
