"""What plans and queries may know of a node: read-only, typed, pretended in tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from narthex_exporter.contract.containerfacts import ContainerFacts
from narthex_exporter.contract.firewallfacts import FirewallFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFact:
    """One process, as it was when looked at.

    ``start_ticks`` (clock ticks after boot, proc(5)) and ``pid`` together identify it. The
    arguments in ``cmdline`` are separated by NUL, as the kernel tells them. ``owner_unit`` and
    ``owner_container`` are empty where neither owns it. ``cpu_ratio`` is CPU seconds per second
    since the last look, ``None`` where there was none. ``owner_user_unit`` is the unit of the
    user's own systemd, below ``owner_unit``. Text comes from the process itself: hostile.
    """

    pid: int
    start_ticks: int
    ppid: int
    user: str
    uid: int
    comm: str
    cmdline: str
    state: str
    nice: int
    threads: int
    rss_bytes: int
    cpu_seconds: float
    started_at_seconds: float
    is_kernel_thread: bool = False
    is_ours: bool = False
    owner_unit: str = ""
    owner_container: str = ""
    cpu_ratio: float | None = None
    owner_user_unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFileFact:
    """One open descriptor; ``target`` is what /proc/PID/fd says that it is."""

    descriptor: int
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFact:
    """One resource limit, in the kernel's own words; see getrlimit(2)."""

    name: str
    soft: str
    hard: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDetailFact:
    """What else one process is; what cannot be read is empty, and named in ``unreadable``.

    ``files`` are the first of ``files_total`` open ones. ``namespaces`` maps a kind to its
    number, ``shared`` tells which of them are those of process 1.
    """

    executable: str = ""
    working_directory: str = ""
    root: str = ""
    files: tuple[OpenFileFact, ...] = ()
    files_total: int = 0
    limits: tuple[LimitFact, ...] = ()
    cgroup: str = ""
    namespaces: Mapping[str, int] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFact:
    """One systemd unit, in systemd's own words (see org.freedesktop.systemd1(5)).

    ``aliases`` are its other names, known where it was looked up by itself.
    ``triggered_by`` are sockets, timers and paths that start it; ``stopped_with`` units, besides
    those that require it, that stop when it does.
    """

    name: str
    description: str
    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str = ""
    fragment_path: str = ""
    aliases: tuple[str, ...] = ()
    can_reload: bool = False
    main_pid: int = 0
    required_by: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    memory_bytes: int | None = None
    tasks: int | None = None
    active_since_seconds: float | None = None
    result: str = ""
    restart: str = ""
    exit_status: int | None = None
    restarts: int | None = None
    triggered_by: tuple[str, ...] = ()
    stopped_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFile:
    """A file that makes up a unit, as it stands there. Whoever wrote it, it is text to show."""

    path: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionFact:
    """A condition or assertion of a unit; ``met`` is ``None`` where it was not tested yet."""

    name: str
    argument: str
    met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitDetailFact:
    """What else one unit is. ``files`` is its own file first, then its drop-ins.

    ``relations`` maps systemd's name of a relation (``Requires``, ``WantedBy``) to units,
    ``properties`` a property to its value as text or number, in systemd's own units.
    ``environment`` holds NAME=value. Times are Unix seconds.
    """

    relations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[ConditionFact, ...] = ()
    files: tuple[UnitFile, ...] = ()
    properties: Mapping[str, str | int | bool] = field(default_factory=dict)
    environment: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    calendars: tuple[str, ...] = ()
    next_elapse_seconds: float | None = None
    last_trigger_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFigures:
    """What is worth to know of each unit in a list."""

    memory_bytes: int | None = None
    next_elapse_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarFact:
    """What systemd makes of a calendar expression: its next times, or why it is none."""

    normalized: str = ""
    elapses: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFact:
    """One account of the system."""

    name: str
    uid: int
    gid: int
    home: str = "/"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFact:
    """One program of supervisord, in its own words; ``name`` is ``group:name``."""

    name: str
    state: str
    description: str = ""
    pid: int = 0
    since_seconds: float | None = None
    exit_status: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """One line of the journal: hostile text.

    ``cursor`` is journald's name for its place, ``priority`` syslog's (0 emergency to 7 debug;
    ``None`` where it has none), ``at_seconds`` Unix time.
    """

    cursor: str
    at_seconds: float
    priority: int | None
    identifier: str
    pid: int | None
    text: str


class Waiting(Protocol):
    """How what never ends by itself waits; see ``contract.spec.Stop``."""

    def readable(self, descriptor: int, seconds: float) -> bool:
        """Wait until a descriptor may have something to read; True once nobody listens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFact:
    """The machine and its system. ``boot_seconds`` is Unix time; text may be empty if unknown."""

    hostname: str
    os_name: str
    os_version: str
    kernel: str
    architecture: str
    virtualization: str
    cpus: int
    memory_bytes: int
    boot_id: str
    boot_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFact:
    """Somebody who is signed in. ``terminal`` is like ``pts/0``, ``address`` empty if local."""

    user: str
    terminal: str
    address: str
    since_seconds: float
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFact:
    """A listening socket and who holds it; empty words where that cannot be seen.

    ``address`` is as the kernel prints it, ``0.0.0.0`` or ``::`` for all. ``first_seen_seconds``
    is when its holder started, in Unix time, 0 where that cannot be seen.
    """

    protocol: str
    address: str
    port: int
    pid: int = 0
    comm: str = ""
    unit: str = ""
    container: str = ""
    first_seen_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFact:
    """An established connection, seen from this node; who holds it as in ``ListenerFact``."""

    protocol: str
    local_address: str
    local_port: int
    peer_address: str
    peer_port: int
    pid: int = 0
    comm: str = ""
    unit: str = ""
    container: str = ""


class SessionFacts(Protocol):
    """Read who is signed in on a terminal."""

    def list(self) -> Sequence[SessionFact]:
        """List sessions, oldest first; empty where the machine keeps no record of them."""
        ...


class SocketFacts(Protocol):
    """Read the sockets of the node's own network namespace."""

    def listeners(self) -> Sequence[ListenerFact]:
        """List who listens."""
        ...

    def connections(self) -> Sequence[ConnectionFact]:
        """List established connections, those of this machine with itself left out."""
        ...


class FileFacts(Protocol):
    """Read small configuration files."""

    def read(self, path: str) -> str | None:
        """Read a text file whole; ``None`` where there is none.

        Raises UnavailableError for what is no regular file of UTF-8 text up to 1 MiB.
        """
        ...

    def list(self, folder: str) -> Sequence[str]:
        """List a folder's names, sorted; empty where there is none."""
        ...


class ProcessFacts(Protocol):
    """Read the process table."""

    def get(self, pid: int) -> ProcessFact | None:
        """Look one process up; ``None`` when there is none."""
        ...

    def list(self) -> Sequence[ProcessFact]:
        """List every process."""
        ...

    def parents(self) -> Mapping[int, int]:
        """Tell the parent of every process, at once: no figures are taken."""
        ...

    def details(self, pid: int, start_ticks: int) -> ProcessDetailFact | None:
        """Look into one process; ``None`` when exactly that one is gone."""
        ...

    def environment(self, pid: int, start_ticks: int) -> Sequence[str] | None:
        """Read the environment that one process was started with, as NAME=value.

        ``None`` when it is gone. Raises UnavailableError where it may not be read.
        """
        ...


class UnitFacts(Protocol):
    """Read systemd's units."""

    def unavailable(self) -> str:
        """Say why systemd cannot be asked; empty when it can."""
        ...

    def get(self, name: str) -> UnitFact | None:
        """Look one unit up, loading it if need be; ``None`` when there is no such unit."""
        ...

    def list(self) -> Sequence[UnitFact]:
        """List loaded units and installed unit files."""
        ...

    def journal(
        self, name: str, *, lines: int, priority: str = "", since_minutes: int = 0
    ) -> Sequence[str]:
        """Read the last lines that a unit logged; empty where there is no journal.

        ``priority`` is the least severe that is wanted, ``since_minutes`` how old at most.
        """
        ...

    def of(self, user: str) -> "UnitFacts":
        """Give the same for the units of a user's own systemd, whether or not it runs."""
        ...

    def details(self, name: str) -> UnitDetailFact | None:
        """Look into one unit; ``None`` when there is no such unit."""
        ...

    def figures(self, names: Sequence[str]) -> Mapping[str, UnitFigures]:
        """Read the figures of some loaded units at once; those that are gone are left out."""
        ...

    def verify(self, name: str, files: Mapping[str, str]) -> Sequence[str]:
        """Have systemd look for mistakes in a unit made of these files, on a copy.

        ``files`` maps the unit's file name (``a.service``), and those of drop-ins
        (``a.service.d/b.conf``), to content. Returns what it complains of.
        """
        ...

    def calendar(self, expression: str, *, times: int) -> CalendarFact:
        """Ask systemd what a calendar expression means."""
        ...

    def follow(
        self, name: str, *, lines: int, after: str, stop: Waiting
    ) -> Iterator[JournalLine | None]:
        """Tell each line that a unit logs: ``None`` where there is none at the moment.

        Begins with the last ``lines``, or behind the cursor ``after``. Raises UnavailableError.
        """
        ...


class HostFacts(Protocol):
    """Read what the machine is."""

    def get(self) -> HostFact:
        """Describe the machine."""
        ...


class AccountFacts(Protocol):
    """Read the accounts of the system."""

    def get(self, name: str) -> AccountFact | None:
        """Look one account up; ``None`` when there is none."""
        ...


class SupervisorFacts(Protocol):
    """Read what supervisord runs."""

    def unavailable(self) -> str:
        """Say why supervisord cannot be asked; empty when it can."""
        ...

    def list(self) -> Sequence[ProgramFact]:
        """List its programs, by name."""
        ...

    def tail(self, program: str, *, size_bytes: int, errors: bool) -> str:
        """Read the end of what a program printed."""
        ...


class Facts(Protocol):
    """Everything that a plan or a query may read."""

    @property
    def processes(self) -> ProcessFacts:
        """The process table."""
        ...

    @property
    def units(self) -> UnitFacts:
        """The systemd units."""
        ...

    @property
    def host(self) -> HostFacts:
        """The machine itself."""
        ...

    @property
    def sessions(self) -> SessionFacts:
        """Who is signed in."""
        ...

    @property
    def sockets(self) -> SocketFacts:
        """Who listens, and who is connected."""
        ...

    @property
    def files(self) -> FileFacts:
        """Configuration files."""
        ...

    @property
    def containers(self) -> ContainerFacts:
        """Container engines."""
        ...

    @property
    def accounts(self) -> AccountFacts:
        """The accounts of the system."""
        ...

    @property
    def supervisor(self) -> SupervisorFacts:
        """The programs of supervisord."""
        ...

    @property
    def firewall(self) -> FirewallFacts:
        """The packet filters."""
        ...
