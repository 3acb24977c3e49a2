"""What plans and queries may know of a node: read-only, typed, pretended in tests."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from narthex_exporter.contract.containerfacts import ContainerFacts


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
    """One systemd unit, in systemd's own words (see org.freedesktop.systemd1(5)).

    ``aliases`` are its other names, known where it was looked up by itself.
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
    is Unix time, 0 for what was there at the first look.
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
