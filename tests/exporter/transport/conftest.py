"""A server to speak to, over TLS, TCP and a Unix socket."""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.server import (
    PEER,
    Limits,
    Listener,
    Server,
    listen_tcp,
    listen_unix,
)
from narthex_exporter.transport.tls import ReloadingContext, TLSFiles, client_context

CLUSTER = "0123456789abcdef"
Start = Callable[..., Any]


@dataclass
class Application:
    """A WSGI application that does what its path says, and remembers what it saw."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        self.seen.append(environ)
        self.bodies.append(environ["wsgi.input"].read())
        match environ["PATH_INFO"]:
            case "/fault":
                raise KeyError("a mistake")
            case "/missing-file":
                raise FileNotFoundError("the application's own")
            case "/late-fault":
                start("200 OK", [])
                return self._late_fault()
            case "/stream":
                start("200 OK", [("Content-Type", "application/x-ndjson")])
                return Stream(self)
            case "/slow":
                self.go_on.wait(5)
            case "/who":
                peer = environ[PEER]
                text = b"nobody" if peer is None else peer.uri.encode()
                start("200 OK", [("Content-Length", str(len(text)))])
                return [text]
            case "/nothing":
                start("204 No Content", [])
                return []
        start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]

    def _late_fault(self) -> Iterator[bytes]:
        yield b"half"
        raise KeyError("a mistake")


class Stream:
    def __init__(self, app: Application) -> None:
        self.app = app

    def __iter__(self) -> Iterator[bytes]:
        yield b"first\n"
        self.app.go_on.wait(5)
        yield b"second\n"

    def close(self) -> None:
        self.app.closed.set()


@dataclass
class Site:
    """A running server and the ways to it."""

    app: Application
    server: Server
    port: int
    unix: Path
    files: TLSFiles
    tls: bool

    def connect(self, *, source: str = "") -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=10, source_address=(source, 0) if source else None
        )

    def secure(self, files: TLSFiles, *, source: str = "") -> ssl.SSLSocket:
        raw = self.connect(source=source)
        try:
            return client_context(files).wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise


@dataclass
class Builder:
    folder: Path
    server_files: TLSFiles
    stack: contextlib.ExitStack

    def __call__(self, *, tls: bool = True, limits: Limits | None = None, app: Any = None) -> Site:
        sock = listen_tcp("127.0.0.1", 0)
        unix = listen_unix(self.folder / "s.sock")
        application = Application()
        server = Server(
            app or application,
            [
                Listener(
                    sock=sock,
                    tls=ReloadingContext(self.server_files) if tls else None,
                    cluster=CLUSTER,
                ),
                Listener(sock=unix),
            ],
            limits or Limits(),
        )
        port = sock.getsockname()[1]
        self.stack.enter_context(server)
        self.stack.callback(application.go_on.set)
        return Site(application, server, port, self.folder / "s.sock", self.server_files, tls)


@pytest.fixture
def site(tmp_path: Path, authority: Any) -> Iterator[Builder]:
    """Build servers; afterwards nothing of them may be left."""
    before = {
        thread for thread in threading.enumerate() if thread.name in {"accept", "connection"}
    }
    with contextlib.ExitStack() as stack:
        yield Builder(tmp_path, authority.leaf(Role.NODE, "n1", file=tmp_path.name), stack)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        left = [
            thread
            for thread in threading.enumerate()
            if thread.name in {"accept", "connection"} and thread not in before
        ]
        if not left:
            return
        time.sleep(0.02)
    raise AssertionError(f"threads are left: {left}")


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side has closed."""
    found = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while chunk := sock.recv(65536):
            found += chunk
    return found


@dataclass
class Siege:
    """Silent connections, each opened anew when it is cut."""

    connect: Callable[[], socket.socket]
    count: int = 300
    opened: int = 0
    held: dict[int, socket.socket] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        wait = select.poll()
        # No faster than the server accepts: to fill the kernel's queue is another attack.
        while not self.over.wait(0.001):
            if len(self.held) < self.count:
                sock = self.connect()
                self.opened += 1
                self.held[sock.fileno()] = sock
                wait.register(sock, select.POLLIN)
            for number, _ in wait.poll(0):
                wait.unregister(number)
                self.held.pop(number).close()
        for sock in self.held.values():
            sock.close()


@pytest.fixture
def besieged() -> Callable[..., contextlib.AbstractContextManager[Siege]]:
    """Hold silent connections to a site; afterwards nothing of them may be left in it."""

    @contextlib.contextmanager
    def siege(place: Site, connect: Callable[[], socket.socket]) -> Iterator[Siege]:
        found = Siege(connect)
        thread = threading.Thread(target=found.run, name="siege")
        thread.start()
        try:
            while found.opened < 2 * found.count:
                assert thread.is_alive()
                time.sleep(0.01)
            yield found
            assert thread.is_alive()
        finally:
            found.over.set()
            thread.join()
        deadline = time.monotonic() + 3
        while place.server.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert place.server.connections == place.server.strangers == 0
        assert "connection" not in {thread.name for thread in threading.enumerate()}

    return siege
