"""Know what container engines know of their containers, from Docker's API and its events.

Docker and Podman speak it on a Unix socket. The few calls that are needed are made with
http.client: ``import docker`` (7.2) would cost 11.1 MiB of memory, http.client costs 1.1. A thread
an engine lists the containers once and then follows ``/events``; a scrape never waits for it.
See https://docs.docker.com/reference/api/engine/.
"""

import http.client
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self
from urllib.parse import quote

from narthex_exporter.overriding import override
from narthex_exporter.sources.place import Paths

log = logging.getLogger(__name__)

STATES: Final = ("created", "running", "paused", "restarting", "exited", "dead")
# What Podman says beside that, and Docker while it removes one.
_STATES: Final = {
    "configured": "created",
    "initialized": "created",
    "stopping": "running",
    "stopped": "exited",
    "removing": "dead",
}
HEALTHS: Final = ("starting", "healthy", "unhealthy")
_EVENTS: Final = {
    "container": (
        "create", "destroy", "die", "health_status", "oom", "pause", "rename", "restart", "start",
        "stop", "unpause", "update",
    ),
    "image": ("delete", "import", "load", "pull", "tag", "untag"),
}  # fmt: skip
_REPLY_BYTES: Final = 32 << 20
_LINE_BYTES: Final = 1 << 20
_CHUNK: Final = 65536
_CALL_SECONDS: Final = 5.0
# Events that come together are answered with one look.
_SETTLE_SECONDS: Final = 0.2
_PING_SECONDS: Final = 30.0
# Events can be lost where the engine's queue for us runs over, so the list is compared at times.
_COMPARE_SECONDS: Final = 900.0
_BACK_OFF_SECONDS: Final = (1.0, 60.0)
_FIRST_YEAR: Final = 1970
_NEW: Final = "it has not answered yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container, as its engine describes it. ``health`` is empty where it has no check."""

    id: str
    name: str
    image: str
    state: str
    health: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    restarts: int = 0
    started: float = 0.0
    own_network: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What one engine told last; replaced as a whole, so that its identity tells of a change.

    ``problem`` says why it does not answer now, and ``since`` when that began on the monotonic
    clock; what it told before is kept.
    """

    engine: str
    containers: Mapping[str, Container] = field(default_factory=dict)
    images: int | None = None
    problem: str = ""
    since: float = 0.0


class _Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket, one request a connection. Version 1.0 keeps events unchunked."""

    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CALL_SECONDS)
        self.path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(self.path)


class EngineError(Exception):
    """An engine answered with an error, or with what its API does not say."""


class _AbsentError(EngineError):
    """It knows no such container."""


class Engine:
    """One engine behind a socket, followed by a thread of its own once it is started."""

    def __init__(
        self, name: str, path: str, *, back_off: tuple[float, float] = _BACK_OFF_SECONDS
    ) -> None:
        self.path = path
        self.known = Known(engine=name, problem=_NEW)
        self._made = time.monotonic()
        self._back_off = back_off
        self._containers: dict[str, Container] = {}
        self._images: int | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)

    def start(self) -> None:
        """Begin to follow it."""
        self._thread.start()

    @property
    def settling(self) -> bool:
        """Tell whether it is so new that it may answer yet."""
        return self.known.problem == _NEW and time.monotonic() - self._made < _CALL_SECONDS

    def close(self) -> None:
        """End the thread; where the engine hangs in a call, that is left behind."""
        self._closed.set()
        os.write(self._wake_write, b"x")
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _run(self) -> None:
        wait = self._back_off[0]
        while not self._closed.is_set():
            problem = "it closed the connection"
            try:
                self._follow()
            except (OSError, http.client.HTTPException, ValueError, EngineError) as error:
                problem = _words(error)
            if self._closed.is_set():
                return
            if problem != self.known.problem:
                log.info(
                    "engine.unreachable",
                    extra={"engine": self.known.engine, "path": self.path, "reason": problem},
                )
            if not self.known.problem:
                wait = self._back_off[0]
            self._tell(problem)
            self._closed.wait(wait)
            wait = min(wait * 2, self._back_off[1])

    def _follow(self) -> None:
        """List, then keep up with events until the engine hangs, ends or errs."""
        connection = _Connection(self.path)
        try:
            connection.request("GET", f"/events?filters={self._filters()}")
            # Before the list, so that nothing falls in between.
            reply = connection.getresponse()
            if reply.status != http.client.OK:
                raise EngineError(f"it answered {reply.status} when asked for its events")
            with reply:
                self._list()
                self._tell("")
                self._keep_up(reply)
        finally:
            connection.close()

    def _filters(self) -> str:
        """Say which events we want, as the engine understands it.

        Podman has other names for them, so it is asked for all of these kinds.
        """
        told = self._call("/version")
        parts = told.get("Components") if isinstance(told, dict) else None
        docker = any(
            isinstance(part, dict) and part.get("Name") == "Engine" for part in parts or ()
        )
        wanted: dict[str, list[str]] = {"type": list(_EVENTS)}
        if docker:
            wanted["event"] = [name for names in _EVENTS.values() for name in names]
        return quote(json.dumps(wanted))

    def _keep_up(self, reply: http.client.HTTPResponse) -> None:
        # Not select(2), which knows no descriptor beyond 1,023.
        stream = reply.fileno()
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        buffer = b""
        waiting: set[str] = set()
        images = False
        now = time.monotonic()
        ping, compare, settled = now + _PING_SECONDS, now + _COMPARE_SECONDS, 0.0
        while not self._closed.is_set():
            until = settled if waiting or images else ping
            timeout = max(0.0, until - time.monotonic())
            ready = [fd for fd, _ in poll.poll(timeout * 1000)]
            now = time.monotonic()
            if stream in ready:
                data = reply.read1(_CHUNK)
                if not data or len(buffer) > _LINE_BYTES:
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                if not waiting and not images:
                    settled = now + _SETTLE_SECONDS
                for kind, id_ in filter(None, map(parse_event, lines)):
                    if kind == "image":
                        images = True
                    else:
                        waiting.add(id_)
            if (waiting or images) and now >= settled:
                self._look_at(waiting, images=images)
                waiting, images = set(), False
            if now >= ping:
                self._get("/_ping")
                ping = now + _PING_SECONDS
            if now >= compare:
                self._list()
                self._tell("")
                compare = now + _COMPARE_SECONDS

    def _look_at(self, ids: set[str], *, images: bool) -> None:
        for id_ in ids:
            self._inspect(id_)
        if images:
            self._images = self._count_images()
        self._tell("")

    def _list(self) -> None:
        """Look at the containers that are new, or not as they are known."""
        listed = self._call("/containers/json?all=1")
        if not isinstance(listed, list):
            raise EngineError("its list of containers is none")
        found = {}
        for each in listed:
            if isinstance(each, dict) and isinstance(each.get("Id"), str):
                found[each["Id"]] = each.get("State")
        for id_ in self._containers.keys() - found.keys():
            del self._containers[id_]
        for id_, state in found.items():
            known = self._containers.get(id_)
            if known is None or known.state != _state(state) or not self._fresh():
                self._inspect(id_)
        self._images = self._count_images()

    def _fresh(self) -> bool:
        """Tell whether events have been followed all the time."""
        return not self.known.problem

    def _count_images(self) -> int | None:
        listed = self._call("/images/json")
        return len(listed) if isinstance(listed, list) else None

    def _inspect(self, id_: str) -> None:
        try:
            self._containers[id_] = parse_container(self._call(f"/containers/{quote(id_)}/json"))
        except _AbsentError:
            self._containers.pop(id_, None)

    def _tell(self, problem: str) -> None:
        if problem and problem == self.known.problem:
            return
        self.known = Known(
            engine=self.known.engine,
            containers=dict(self._containers),
            images=self._images,
            problem=problem,
            since=(self.known.since or time.monotonic()) if problem else 0.0,
        )

    def _call(self, path: str) -> Any:
        return json.loads(self._get(path))

    def _get(self, path: str) -> bytes:
        connection = _Connection(self.path)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            data = reply.read(_REPLY_BYTES + 1)
        finally:
            connection.close()
        if reply.status == http.client.NOT_FOUND:
            raise _AbsentError(path)
        if reply.status != http.client.OK:
            raise EngineError(f"it answered {reply.status} to {path.partition('?')[0]}")
        if len(data) > _REPLY_BYTES:
            raise EngineError(f"its answer to {path} is too long")
        return data


@dataclass(slots=True)
class Engines:
    """The engines of this machine."""

    make: Callable[[str, str], Engine] = Engine
    _engines: dict[tuple[str, str], Engine] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:  # noqa: ARG003 - sockets are options
        """Make one; does no work yet."""
        return cls()

    def known(self, sockets: Mapping[str, str]) -> list[Known]:
        """Give what engines told last, by name and socket; those without a socket are left out.

        Never waits: an engine that is new here is asked by its thread.
        """
        return list(self._known(sockets))

    def _known(self, sockets: Mapping[str, str]) -> Iterator[Known]:
        for name, path in sockets.items():
            engine = self._engines.get((name, path))
            if engine is None:
                if not os.path.exists(path):  # noqa: PTH110 - for each scrape
                    continue
                engine = self._engines[name, path] = self.make(name, path)
                engine.start()
            yield engine.known

    def settling(self) -> bool:
        """Tell whether one was met a moment ago and may answer yet."""
        return any(engine.settling for engine in self._engines.values())

    def close(self) -> None:
        """End the threads."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()


def parse_event(line: bytes) -> tuple[str, str] | None:
    """Give kind and id of an event after which something is to be looked at."""
    if not line.strip():
        return None
    try:
        event = json.loads(line)
        kind, action = str(event["Type"]), str(event.get("Action", event.get("status", "")))
        id_ = event.get("Actor", {}).get("ID") or event.get("id") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if kind not in _EVENTS or action.startswith("exec") or not isinstance(id_, str):
        return None
    return (kind, id_) if kind == "image" or id_ else None


def parse_container(told: Any) -> Container:
    """Take what we use of ``GET /containers/<id>/json``. Raises EngineError."""
    try:
        state, config = told["State"], told["Config"]
        health = state.get("Health") or state.get("Healthcheck") or {}
        status = health.get("Status") or ""
        mode = (told.get("HostConfig") or {}).get("NetworkMode") or ""
        labels = config.get("Labels") or {}
        return Container(
            id=str(told["Id"]),
            name=str(told["Name"]).removeprefix("/"),
            image=str(config.get("Image") or told.get("ImageName") or told.get("Image") or ""),
            state=_state(state.get("Status")),
            health=status if status in HEALTHS else "",
            pid=int(state.get("Pid") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            oom_killed=bool(state.get("OOMKilled")),
            restarts=int(told.get("RestartCount") or 0),
            started=_unixtime(state.get("StartedAt")),
            own_network=mode != "host" and not mode.startswith("container:"),
            labels={str(key): str(value) for key, value in labels.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineError("its description of a container is not what its API says") from error


def _state(text: object) -> str:
    word = str(text or "").lower()
    return _STATES.get(word, word)


def _unixtime(text: object) -> float:
    """Turn RFC 3339 into unixtime; 0 for a time that is not set."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return at.timestamp() if at.year >= _FIRST_YEAR and at.tzinfo is not None else 0.0


def _words(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
