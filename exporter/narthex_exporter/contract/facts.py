"""What plans and queries may know of a node: read-only, typed, pretended in tests."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFact:
    """One process, as it was when looked at.

    ``start_ticks`` (clock ticks after boot, proc(5)) and ``pid`` together identify it. The
    arguments in ``cmdline`` are separated by NUL, as the kernel tells them. ``owner_unit`` and
    ``owner_container`` are empty where neither owns it. ``cpu_ratio`` is CPU seconds per second
    since the last look, ``None`` where there was none. Text comes from the process itself:
    hostile.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFact:
    """One systemd unit, in systemd's own words (see org.freedesktop.systemd1(5))."""

    name: str
    description: str
    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str = ""
    fragment_path: str = ""
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


class ProcessFacts(Protocol):
    """Read the process table."""

    def get(self, pid: int) -> ProcessFact | None:
        """Look one process up; ``None`` when there is none."""
        ...

    def list(self) -> Sequence[ProcessFact]:
        """List every process."""
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

    def journal(self, name: str, *, lines: int) -> Sequence[str]:
        """Read the last lines that a unit logged; empty where there is no journal."""
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
