"""Ask container engines, Docker and Podman, over their Unix sockets.

The ``docker`` library speaks to both. It is loaded when an engine is first asked: a node without
one does not pay for it. The metrics have their own way, see ``sources/engines.py``.
"""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from narthex_exporter.contract.containerfacts import (
    ContainerFact,
    EngineFact,
    ImageFact,
    LogFact,
    NetworkFact,
    ProjectFact,
    StatsFact,
    UsageFact,
    VolumeFact,
)
from narthex_exporter.sources import composeprojects, containerlogs, containerparse
from narthex_exporter.sources.containerparse import PATH_LABELS, EngineError
from narthex_exporter.sources.enginewire import (
    ASK_SECONDS,
    NoAnswerError,
    SaidError,
    connect,
    telling,
)

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

DOCKER: Final = "docker"
PODMAN: Final = "podman"
SOCKETS: Final[Mapping[str, Path]] = {
    DOCKER: Path("/var/run/docker.sock"),
    PODMAN: Path("/run/podman/podman.sock"),
}
# An engine that hangs costs one wait, and is then not waited for again for a while.
_HUNG_SECONDS: Final = 3.0
# The engine adds up what lies in each volume: that takes as long as its disk does.
_USAGE_SECONDS: Final = 9.0
_BETWEEN_LOOKS_SECONDS: Final = 0.5
_AT_ONCE: Final = 8
_MOST_IMAGES: Final = 1024
_NOT_FOUND: Final = 404


@dataclass(slots=True)
class _Engine:
    """One engine, asked when something is asked of it."""

    name: str
    socket: Path
    _local: threading.local = field(default_factory=threading.local, init=False)
    _hung_until: float = field(default=0.0, init=False)
    _why: str = field(default="", init=False)
    _image_labels: dict[str, Mapping[str, str]] = field(default_factory=dict, init=False)

    def absent(self) -> str:
        """Say why there is no such engine; empty where its socket is there."""
        try:
            status = self.socket.stat()
        except OSError as error:
            return f"{self.socket}: {(error.strerror or 'not there').lower()}"
        return "" if stat.S_ISSOCK(status.st_mode) else f"{self.socket} is not a socket"

    def ask(self, asked: Callable[["APIClient"], T], *, timeout_seconds: float = ASK_SECONDS) -> T:
        """Ask it something. Raises EngineError, within the time and a little."""
        why = self.absent()
        if why:
            raise EngineError(f"{self.name} is not there: {why}")
        if time.monotonic() < self._hung_until:
            raise EngineError(f"{self.name} does not answer: {self._why}")
        try:
            with telling():
                return asked(self._client(timeout_seconds))
        except NoAnswerError as error:
            self._local.client = None
            if error.is_hung:
                self._hung_until, self._why = time.monotonic() + _HUNG_SECONDS, str(error)
            raise EngineError(
                f"{self.name} does not answer: {error}",
                hint=f"look at its service on the node; its socket is {self.socket}",
            ) from error
        except SaidError as error:
            if error.code == _NOT_FOUND:
                raise
            raise EngineError(f"{self.name} answered with an error: {error}") from error

    def _client(self, timeout_seconds: float) -> "APIClient":
        """Give this thread's client; requests' sessions are not for several threads."""
        client: APIClient | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = connect(self.socket)
        client.timeout = timeout_seconds  # type: ignore[assignment] # may be a fraction
        return client

    def version(self) -> str:
        told = self.ask(lambda client: client.version())
        return str(told.get("Version", "")) if isinstance(told, Mapping) else ""

    def containers(self) -> list[ContainerFact]:
        listed = self.ask(lambda client: client.containers(all=True))
        found = []
        for one in listed:
            told = self.inspected(str(one["Id"]))
            if told is not None:
                found.append(self._container(told))
        return found

    def container(self, name: str) -> ContainerFact | None:
        told = self.inspected(name)
        # The engine also takes ids and their beginnings: one thing has one name here.
        if told is None or str(told.get("Name", "")).removeprefix("/") != name:
            return None
        return self._container(told)

    def inspected(self, name: str) -> Mapping[str, Any] | None:
        try:
            told: Mapping[str, Any] = self.ask(lambda client: client.inspect_container(name))
        except SaidError:
            return None
        return told

    def _container(self, told: Mapping[str, Any]) -> ContainerFact:
        labels = (told.get("Config") or {}).get("Labels") or {}
        own = self._labels_of(str(told.get("Image"))) if set(PATH_LABELS) & set(labels) else {}
        return containerparse.container(self.name, told, own)

    def _labels_of(self, image: str) -> Mapping[str, str] | None:
        """Give an image's labels of paths; an id means one image for ever, so they are kept."""
        known = self._image_labels.get(image)
        if known is not None:
            return known
        try:
            told = self.ask(lambda client: client.inspect_image(image))  # type: ignore[no-untyped-call]
        except SaidError:
            return None
        labels = (told.get("Config") or {}).get("Labels") or {}
        if len(self._image_labels) >= _MOST_IMAGES:
            self._image_labels.clear()
        self._image_labels[image] = kept = {key: str(labels.get(key, "")) for key in PATH_LABELS}
        return kept

    def logs(self, name: str, *, lines: int, since_seconds: float) -> list[LogFact]:
        told = self.inspected(name)
        if told is None:
            return []
        is_terminal = bool((told.get("Config") or {}).get("Tty"))

        def read(client: "APIClient") -> list[LogFact]:
            response = containerlogs.opened(
                client, str(told["Id"]), lines=lines, since_seconds=since_seconds, follow=False
            )
            with contextlib.closing(response):
                parts = containerlogs.parts(response.raw, is_terminal=is_terminal)
                return list(containerlogs.lines(name, parts))[-lines:]

        return self.ask(read)

    def follow_logs(
        self, name: str, *, lines: int, since_seconds: float, cancelled: Callable[[], bool]
    ) -> Iterator[LogFact]:
        told = self.inspected(name)
        if told is None:
            return
        is_terminal = bool((told.get("Config") or {}).get("Tty"))
        response = self.ask(
            lambda client: containerlogs.opened(
                client, str(told["Id"]), lines=lines, since_seconds=since_seconds, follow=True
            )
        )
        with contextlib.closing(response), containerlogs.cut_when(cancelled, response):
            try:
                with telling():
                    parts = containerlogs.parts(response.raw, is_terminal=is_terminal)
                    yield from containerlogs.lines(name, parts)
            except NoAnswerError:
                if not cancelled():
                    raise

    def stats(self) -> list[StatsFact]:
        running = self.ask(lambda client: client.containers())
        names = {str(one["Id"]): str(one["Names"][0]).removeprefix("/") for one in running}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            first = dict(zip(names, pool.map(self._looked, names), strict=True))
            time.sleep(_BETWEEN_LOOKS_SECONDS if names else 0.0)
            second = dict(zip(names, pool.map(self._looked, names), strict=True))
        return [
            containerparse.stats(self.name, name, first[id_], second[id_])
            for id_, name in names.items()
            if first[id_] and second[id_]
        ]

    def _looked(self, id_: str) -> Mapping[str, Any] | None:
        try:
            told: Mapping[str, Any] = self.ask(
                lambda client: client.stats(id_, stream=False, one_shot=True)
            )
        except SaidError:
            return None
        return told


@dataclass(slots=True)
class ContainerEngines:
    """The engines of this node. ``directories`` are where programs are looked for."""

    sockets: Mapping[str, Path] = field(default_factory=lambda: dict(SOCKETS))
    directories: tuple[Path, ...] = composeprojects.DIRECTORIES
    _engines: dict[str, _Engine] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._engines = {name: _Engine(name, path) for name, path in self.sockets.items()}

    def unavailable(self) -> str:
        """Say why there is no engine; whether one that is there answers is not asked."""
        why = [engine.absent() for engine in self._present()]
        return "" if "" in why else f"there is no container engine here ({'; '.join(why)})"

    def problem(self, engine: str) -> str:
        """Say why one engine cannot be asked."""
        one = self._engines.get(engine)
        if one is None or one not in self._present():
            return f"{engine} is not an engine of its own here"
        try:
            one.ask(lambda client: client.ping())
        except EngineError as error:
            return str(error)
        return ""

    def engines(self) -> Sequence[EngineFact]:
        """List the engines."""
        return [self._fact(engine) for engine in self._present()]

    def list(self) -> Sequence[ContainerFact]:
        """List containers, by name."""
        return _each(self._present(), _Engine.containers, lambda one: one.name)

    def get(self, engine: str, name: str) -> ContainerFact | None:
        """Look one container up. Raises UnavailableError."""
        return self._engine(engine).container(name)

    def inspect(self, engine: str, name: str) -> Mapping[str, Any] | None:
        """Give all that the engine tells of one container. Raises UnavailableError."""
        return self._engine(engine).inspected(name)

    def images(self) -> Sequence[ImageFact]:
        """List images, greatest first."""

        def read(engine: _Engine) -> Sequence[ImageFact]:
            used = _grouped(
                (containerparse.full_id(one.image_id), one.name) for one in engine.containers()
            )
            told = engine.ask(lambda client: client.images())
            return [containerparse.image(engine.name, one, used) for one in told]

        return _each(self._present(), read, lambda one: (-one.size_bytes, one.id))

    def volumes(self, *, with_sizes: bool) -> Sequence[VolumeFact]:
        """List volumes, by name."""

        def read(engine: _Engine) -> Sequence[VolumeFact]:
            used = _grouped((v, one.name) for one in engine.containers() for v in one.volumes)
            told = engine.ask(lambda client: client.volumes())
            sizes: Mapping[str, int] = {}
            if with_sizes:
                usage = engine.ask(lambda client: client.df(), timeout_seconds=_USAGE_SECONDS)
                sizes = containerparse.volume_sizes(usage)
            return [
                containerparse.volume(engine.name, one, used, sizes)
                for one in told.get("Volumes") or ()
            ]

        return _each(self._present(), read, lambda one: one.name)

    def networks(self) -> Sequence[NetworkFact]:
        """List networks, by name."""

        def read(engine: _Engine) -> Sequence[NetworkFact]:
            used = _grouped((n, one.name) for one in engine.containers() for n in one.networks)
            told = engine.ask(lambda client: client.networks())
            return [containerparse.network(engine.name, one, used) for one in told]

        return _each(self._present(), read, lambda one: one.name)

    def projects(self) -> Sequence[ProjectFact]:
        """List Compose projects, by name."""
        return composeprojects.projects(self.list())

    def usage(self) -> Sequence[UsageFact]:
        """Tell what lies on disk."""

        def read(engine: _Engine) -> Sequence[UsageFact]:
            told = engine.ask(lambda client: client.df(), timeout_seconds=_USAGE_SECONDS)
            return containerparse.usage(engine.name, told)

        return _each(self._present(), read, lambda one: one.kind)

    def stats(self) -> Sequence[StatsFact]:
        """Look at what running containers use."""
        return _each(self._present(), _Engine.stats, lambda one: one.name)

    def logs(
        self, engine: str, name: str, *, lines: int, since_seconds: float = 0.0
    ) -> Sequence[LogFact]:
        """Read the last lines of one container. Raises UnavailableError."""
        return self._engine(engine).logs(name, lines=lines, since_seconds=since_seconds)

    def follow_logs(
        self,
        engine: str,
        name: str,
        *,
        lines: int,
        since_seconds: float,
        cancelled: Callable[[], bool],
    ) -> Iterator[LogFact]:
        """Give the last lines and then each new one. Raises UnavailableError."""
        return self._engine(engine).follow_logs(
            name, lines=lines, since_seconds=since_seconds, cancelled=cancelled
        )

    def compose(self, engine: str) -> tuple[str, ...]:
        """Give the words that start Compose for an engine."""
        return composeprojects.program(self.sockets[engine], self.directories)

    def _present(self) -> Sequence[_Engine]:
        """Leave out the socket that only leads to the other engine (podman-docker's link)."""
        found: dict[str, _Engine] = {}
        # The one whose own socket it is comes last, and stays.
        for engine in sorted(self._engines.values(), key=lambda one: one.name == PODMAN):
            found[os.path.realpath(engine.socket)] = engine
        return list(found.values())

    def _engine(self, name: str) -> _Engine:
        engine = self._engines.get(name)
        if engine is None:
            raise EngineError(f"there is no engine {name} on this node")
        return engine

    def _fact(self, engine: _Engine) -> EngineFact:
        try:
            version, problem = engine.version(), ""
        except EngineError as error:
            version, problem = "", str(error)
        return EngineFact(
            name=engine.name, socket=str(engine.socket), version=version, problem=problem
        )


def _each(
    engines: Sequence[_Engine],
    read: Callable[[_Engine], Sequence[T]],
    key: Callable[[T], Any],
) -> list[T]:
    """Read from every engine that answers."""
    found: list[T] = []
    for engine in engines:
        with contextlib.suppress(EngineError):
            found += read(engine)
    return sorted(found, key=key)


def _grouped(pairs: Iterator[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, value in pairs:
        found[key] = (*found.get(key, ()), value)
    return found
