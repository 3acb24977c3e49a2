"""Run a command with a terminal in a container, by the engine's API on its Unix socket.

Docker and Podman speak it alike. See https://docs.docker.com/reference/api/engine/, "Exec".
"""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from typing_extensions import override

from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.errors import UnavailableError

SOCKETS: Final = (
    Path("/run/docker.sock"),
    Path("/var/run/docker.sock"),
    Path("/run/podman/podman.sock"),
)
# To write there is to be root: see SECURITY.md's rule about what equals it.
_OF_THE_NODE: Final = frozenset(
    {"/", "/etc", "/root", "/usr", "/bin", "/sbin", "/lib", "/boot", "/dev", "/proc", "/sys",
     "/var", "/var/lib", "/var/run", "/run", "/home"}
)  # fmt: skip
_REPLY_BYTES: Final = 4 << 20
_HEAD_BYTES: Final = 16 * 1024
_CALL_SECONDS: Final = 5.0
_MESSAGE_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A running container, and the socket of the engine that runs it.

    ``root_by`` says by what whoever is in it is root on the node; empty where nothing is known.
    """

    engine: Path
    id: str
    name: str
    root_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """A command that an engine started: ``sock`` is its terminal; ``first`` it said already.

    ``pid`` is its process as this node numbers it; ``None`` where the engine does not tell.
    """

    container: Container
    id: str
    sock: socket.socket
    first: bytes
    pid: int | None


def find(name: str, *, sockets: Sequence[Path] = SOCKETS) -> Container:
    """Find a running container. Raises RefusedError, UnavailableError."""
    heard = False
    for path in sockets:
        if not path.exists():
            continue
        status, found = _call(path, "GET", f"/containers/{quote(name, safe='')}/json")
        heard = True
        if status == http.client.OK:
            return _container(path, name, found)
    if not heard:
        raise UnavailableError(
            "no container engine answers on this node", hint="is docker or podman.socket running?"
        )
    raise RefusedError(f"there is no container {name} on this node", hint="see the containers")


def start(container: Container, command: Sequence[str], *, columns: int, rows: int) -> Exec:
    """Start a command with a terminal. Raises RefusedError, UnavailableError."""
    path = container.engine
    status, made = _call(
        path,
        "POST",
        f"/containers/{container.id}/exec",
        {
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": True,
            "Cmd": list(command),
            "Env": ["TERM=xterm-256color"],
        },
    )
    if status != http.client.CREATED:
        raise RefusedError(f"the engine does not start it: {_message(made)}")
    key = str(made.get("Id", ""))[:128]
    sock, first = _attach(path, key)
    try:
        resize(path, key, columns=columns, rows=rows)
        running, pid = inspect(path, key)
    except BaseException:
        sock.close()
        raise
    return Exec(container=container, id=key, sock=sock, first=first, pid=pid if running else None)


def resize(path: Path, key: str, *, columns: int, rows: int) -> None:
    """Tell a terminal how large it is; nothing happens where it has just ended."""
    _call(path, "POST", f"/exec/{quote(key, safe='')}/resize?h={rows}&w={columns}")


def inspect(path: Path, key: str) -> tuple[bool, int | None]:
    """Tell whether a command runs, and as which process of this node."""
    _, found = _call(path, "GET", f"/exec/{quote(key, safe='')}/json")
    pid = found.get("Pid")
    return bool(found.get("Running")), pid if isinstance(pid, int) and pid > 1 else None


def _container(path: Path, name: str, found: dict[str, Any]) -> Container:
    state = found.get("State")
    running = state.get("Running") if isinstance(state, dict) else None
    if not running:
        raise RefusedError(f"the container {name} does not run", hint="start it first")
    return Container(
        engine=path,
        id=str(found.get("Id", ""))[:64],
        name=str(found.get("Name", "")).removeprefix("/")[:128],
        root_by=_root_by(found),
    )


def _root_by(found: dict[str, Any]) -> str:
    """Say what in a container's making gives its inmates the node."""
    made = found.get("HostConfig")
    made = made if isinstance(made, dict) else {}
    mounts = found.get("Mounts")
    sources = {
        str(one.get("Source", "")).rstrip("/") or "/"
        for one in (mounts if isinstance(mounts, list) else ())
        if isinstance(one, dict) and one.get("Type") == "bind"
    }
    reasons = {
        "it is privileged": bool(made.get("Privileged")),
        "it sees the node's processes": made.get("PidMode") == "host",
        "it has capabilities added": bool(made.get("CapAdd")),
        "it has devices of the node": bool(made.get("Devices")),
        "it has the node's files": bool(sources & _OF_THE_NODE)
        or any(one.endswith(("docker.sock", "podman.sock")) for one in sources),
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def _attach(path: Path, key: str) -> tuple[socket.socket, bytes]:
    """Start what was made, and keep the connection as its terminal."""
    body = json.dumps({"Detach": False, "Tty": True}).encode()
    head = (
        f"POST /exec/{quote(key, safe='')}/start HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CALL_SECONDS)
        sock.connect(str(path))
        sock.sendall(head.encode() + body)
        rest = _accepted(sock)
    except OSError as error:
        sock.close()
        raise _silent(path, error) from error
    except BaseException:
        sock.close()
        raise
    return sock, rest


def _accepted(sock: socket.socket) -> bytes:
    """Read the head of the answer; gives what came behind it. Raises RefusedError."""
    found = b""
    while b"\r\n\r\n" not in found:
        chunk = sock.recv(4096)
        found += chunk
        if not chunk or len(found) > _HEAD_BYTES:
            raise UnavailableError("the engine's answer is not HTTP")
    head, _, rest = found.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ")
    if len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004
        raise UnavailableError("the engine's answer is not HTTP")
    if int(words[1]) not in {http.client.SWITCHING_PROTOCOLS, http.client.OK}:
        raise RefusedError(f"the engine does not start it (status {int(words[1])})")
    return rest


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CALL_SECONDS)
        self.path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(str(self.path))


def _call(
    path: Path, method: str, target: str, document: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Ask an engine; what is no JSON object reads as an empty one."""
    body = None if document is None else json.dumps(document).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    with contextlib.closing(_Connection(path)) as connection, _told(path):
        connection.request(method, target, body, headers)
        with connection.getresponse() as reply:
            raw = reply.read(_REPLY_BYTES)
    try:
        found = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        found = {}
    return reply.status, found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _silent(path, error) from error


def _silent(path: Path, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"the container engine at {path} does not answer: {type(error).__name__}",
        hint="is it running?",
    )


def _message(found: dict[str, Any]) -> str:
    return str(found.get("message", "no reason given"))[:_MESSAGE_CHARACTERS]
