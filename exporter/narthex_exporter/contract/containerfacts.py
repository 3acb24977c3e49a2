"""What plans and queries may know of container engines: read-only, typed, pretended in tests.

All text in these facts was chosen by whoever made the container or image: hostile.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

# A container that bears this label, with the value "true", is not stopped, removed or killed.
PROTECTED_LABEL: Final = "narthex.protected"
PROJECT_LABEL: Final = "com.docker.compose.project"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFact:
    """One container engine. ``problem`` says why it cannot be asked; empty when it can."""

    name: str
    socket: str
    version: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A port of a container; ``host_port`` is 0 where it is published nowhere."""

    protocol: str
    port: int
    host_address: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MountFact:
    """What a container sees at ``target``: a volume's name or a host's path as ``source``."""

    kind: str
    source: str
    target: str
    is_writable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsFact:
    """What a container may use, 0 for no limit, and the engine's word for its restart policy."""

    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    restart: str = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFact:
    """One container.

    ``state`` is created, running, paused, restarting, exited or dead; ``health`` is empty where
    it has no check. Times are Unix time, 0 where they are not known. ``project``, ``service``,
    ``working_dir`` and ``config_files`` are what Compose labelled it with; what its image brought
    as such labels is left out.
    """

    engine: str
    id: str
    name: str
    image: str
    image_id: str = ""
    state: str = "running"
    health: str = ""
    restarts: int = 0
    exit_code: int = 0
    is_oom_killed: bool = False
    created_seconds: float = 0.0
    started_seconds: float = 0.0
    finished_seconds: float = 0.0
    ports: tuple[PublishedPort, ...] = ()
    networks: tuple[str, ...] = ()
    mounts: tuple[MountFact, ...] = ()
    limits: LimitsFact = LimitsFact()
    is_removed_at_end: bool = False
    project: str = ""
    service: str = ""
    working_dir: str = ""
    config_files: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_protected(self) -> bool:
        """Tell whether whoever made it wants it left alone."""
        return self.labels.get(PROTECTED_LABEL, "").lower() == "true"

    @property
    def is_up(self) -> bool:
        """Tell whether it has processes."""
        return self.state in {"running", "paused", "restarting"}

    @property
    def volumes(self) -> tuple[str, ...]:
        """The volumes that it mounts, by name."""
        return tuple(mount.source for mount in self.mounts if mount.kind == "volume")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFact:
    """One image. ``used_by`` are containers, running or not; a dangling one has no tag."""

    engine: str
    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size_bytes: int = 0
    created_seconds: float = 0.0
    used_by: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_dangling(self) -> bool:
        """Tell whether it goes by no name any more."""
        return not self.tags


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFact:
    """One volume. ``size_bytes`` is ``None`` where the engine does not tell.

    ``options`` are the driver's: with them a volume can be any folder or device of the host.
    """

    engine: str
    name: str
    driver: str = "local"
    mountpoint: str = ""
    created_seconds: float = 0.0
    size_bytes: int | None = None
    used_by: tuple[str, ...] = ()
    project: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFact:
    """One network. ``used_by`` are containers, running or not."""

    engine: str
    id: str
    name: str
    driver: str = "bridge"
    is_internal: bool = False
    subnets: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()
    project: str = ""

    @property
    def is_built_in(self) -> bool:
        """Tell whether the engine itself needs it."""
        return self.name in {"bridge", "host", "none", "podman"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFact:
    """One service of a Compose project, with how many of its containers run."""

    name: str
    containers: tuple[str, ...]
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeFile:
    """A file that a project's labels name.

    ``problem`` says why it cannot be used; empty where it can. ``owner_uid`` is -1 where there is
    none.
    """

    path: str
    problem: str = ""
    owner_uid: int = -1
    is_writable_by_others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFact:
    """A Compose project, as the labels of its containers tell of it."""

    engine: str
    name: str
    working_dir: str = ""
    files: tuple[ComposeFile, ...] = ()
    services: tuple[ServiceFact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFact:
    """How much of one kind (images, containers, volumes, build cache) lies on disk.

    ``reclaimable_bytes`` belongs to what nothing uses now.
    """

    engine: str
    kind: str
    count: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFact:
    """What one running container uses. Rates are CPU seconds per second; sums are since start."""

    engine: str
    name: str
    cpu_ratio: float | None
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    received_bytes: int
    sent_bytes: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFact:
    """One line that a container wrote to ``stdout`` or ``stderr``."""

    container: str
    stream: str
    at_seconds: float
    text: str


class ContainerFacts(Protocol):
    """Read the container engines of the node.

    Lists leave out engines that cannot be asked: ``engines`` tells which and why. What is asked
    of one engine raises UnavailableError where it does not answer, within 5 s.
    """

    def unavailable(self) -> str:
        """Say why there is no engine on this node; empty when there is one."""
        ...

    def problem(self, engine: str) -> str:
        """Say why one engine cannot be asked; empty when it answers."""
        ...

    def engines(self) -> Sequence[EngineFact]:
        """List the engines, those that cannot be asked too."""
        ...

    def list(self) -> Sequence[ContainerFact]:
        """List containers, by name."""
        ...

    def get(self, engine: str, name: str) -> ContainerFact | None:
        """Look one container up by its exact name; ``None`` when there is none."""
        ...

    def inspect(self, engine: str, name: str) -> Mapping[str, Any] | None:
        """Give all that the engine tells of one container."""
        ...

    def images(self) -> Sequence[ImageFact]:
        """List images, greatest first."""
        ...

    def volumes(self, *, with_sizes: bool) -> Sequence[VolumeFact]:
        """List volumes, by name; their sizes take the engine a while."""
        ...

    def networks(self) -> Sequence[NetworkFact]:
        """List networks, by name."""
        ...

    def projects(self) -> Sequence[ProjectFact]:
        """List Compose projects, by name."""
        ...

    def usage(self) -> Sequence[UsageFact]:
        """Tell what lies on disk."""
        ...

    def stats(self) -> Sequence[StatsFact]:
        """Look at what running containers use, all at once."""
        ...

    def logs(
        self, engine: str, name: str, *, lines: int, since_seconds: float = 0.0
    ) -> Sequence[LogFact]:
        """Read the last lines of one container, oldest first."""
        ...

    def follow_logs(
        self,
        engine: str,
        name: str,
        *,
        lines: int,
        since_seconds: float,
        cancelled: Callable[[], bool],
    ) -> Iterator[LogFact]:
        """Give the last lines, of those since a moment, and then each new one.

        It ends when cancelled and when the container does.
        """
        ...

    def compose(self, engine: str) -> tuple[str, ...]:
        """Give the words that start Compose for an engine; empty where the node has none."""
        ...
