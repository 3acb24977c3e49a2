"""Speak HTTP/1.1 on one connection, for a WSGI application, within limits."""

import contextlib
import io
import logging
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import h11

from narthex_exporter.transport.identity import Identity
from narthex_exporter.transport.slots import Slots
from narthex_exporter.transport.wires import Wire

log = logging.getLogger(__name__)

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# The environ key under which an application finds the verified Identity of its peer, or None.
PEER: Final = "narthex.peer"
# The user at the other end of a Unix socket, as the kernel knows it; None elsewhere.
PEER_UID: Final = "narthex.peer-uid"
# The same for the peer's certificate as DER, or None: for listeners with `foreign` peers.
CERTIFICATE: Final = "narthex.peer_certificate"
# The key under which it finds the Upgrade where the peer asks for a WebSocket, else nothing.
UPGRADE: Final = "narthex.upgrade"
# What concerns this connection alone; frameworks would route by it. See UPGRADE.
_OF_THE_HOP: Final = frozenset({"connection", "upgrade"})
_CHUNK: Final = 65536
_DRAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one peer may ask for. Times are seconds."""

    handshake_seconds: float = 5.0
    header_seconds: float = 10.0
    idle_seconds: float = 60.0
    send_seconds: float = 30.0
    header_bytes: int = 16 * 1024
    body_bytes: int = 1 << 20
    connections: int = 256
    connections_per_peer: int = 64
    upgrades: int = 64
    upgrades_per_peer: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end. ``address`` is empty for a Unix socket, where ``uid`` is known."""

    address: str
    uid: int | None = None
    identity: Identity | None = None
    certificate: bytes | None = None


class Connection:
    """One connection's requests, one after the other.

    While one is answered its socket is in ``busy``; none is begun once ``stopping`` is set, nor
    if ``prove``, which is told of each, says that the connection was cut.
    """

    def __init__(
        self,
        app: WSGIApp,
        sock: socket.socket,
        *,
        peer: Peer,
        scheme: str,
        limits: Limits,
        clock: Callable[[], float],
        busy: set[socket.socket],
        stopping: threading.Event,
        prove: Callable[[], bool],
        upgrades: Slots,
    ) -> None:
        self.app = app
        self.sock = sock
        self.peer = peer
        self.scheme = scheme
        self.limits = limits
        self.clock = clock
        self.busy = busy
        self.stopping = stopping
        self.prove = prove
        self.upgrades = upgrades
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)

    def serve(self) -> None:
        """Answer requests until one side has had enough."""
        wait = self.limits.header_seconds
        while not self.stopping.is_set():
            try:
                request = self._next_request(wait)
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, str(error))
                return
            if request is None or not self.prove():
                return
            self.busy.add(self.sock)
            try:
                if not self._answer(request):
                    return
            finally:
                self.busy.discard(self.sock)
            if self.parser.our_state is not h11.DONE or self.parser.their_state is not h11.DONE:
                return
            self.parser.start_next_cycle()
            wait = self.limits.idle_seconds

    def _next_request(self, wait_seconds: float) -> h11.Request | None:
        deadline = self.clock() + wait_seconds
        started = False
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            if not started and self.parser.trailing_data[0]:
                started = True
                deadline = min(deadline, self.clock() + self.limits.header_seconds)
            self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        left = deadline - self.clock()
        if left <= 0:
            raise TimeoutError("the peer took too long")
        self.sock.settimeout(left)
        self.parser.receive_data(self.sock.recv(_CHUNK))

    def _answer(self, request: h11.Request) -> bool:
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers]
        names = Counter(name for name, _ in headers)
        target = request.target.decode("latin-1")
        # The parser bounds only what is incomplete: a large head that comes at once is seen here.
        head = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
        if head > self.limits.header_bytes:
            return self._refuse(431, f"at most {self.limits.header_bytes} bytes of headers")
        # A proxy that reads a request otherwise than we do is how requests are smuggled.
        if names["transfer-encoding"]:
            return self._refuse(411, "send Content-Length: chunked requests are not read here")
        if names["host"] > 1 or names["authorization"] > 1 or not target.startswith("/"):
            return self._refuse(400, "a duplicate header, or not a path")
        length = int(dict(headers).get("content-length", "0"))
        if length > self.limits.body_bytes:
            return self._refuse(413, f"at most {self.limits.body_bytes} bytes")
        if dict(headers).get("expect", "").lower() == "100-continue" and length:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        body = self._body(length)
        if body is None:
            return False
        environ = self._environ(request, headers, target, body)
        upgrades = _asks_for_websocket(request.method, dict(headers))
        return self._run_upgrade(environ) if upgrades else self._run(environ)

    def _run_upgrade(self, environ: dict[str, Any]) -> bool:
        """Let the application take the connection over, as far as there is room for that."""
        if not self.upgrades.enter(self.peer.address):
            return self._refuse(503, "too many streams are open here: try again later")
        try:
            environ[UPGRADE] = Upgrade(self._switch, self.stopping)
            return self._run(environ)
        finally:
            self.upgrades.leave(self.peer.address)

    def _switch(self, headers: list[tuple[str, str]]) -> Wire:
        fixed = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        self._send(h11.InformationalResponse(status_code=101, headers=[*fixed, *headers]))
        return Wire(self.sock, first=self.parser.trailing_data[0])

    def _body(self, length: int) -> bytes | None:
        deadline = self.clock() + max(self.limits.header_seconds, length / 65536)
        found = bytearray()
        while True:
            event = self.parser.next_event()
            if event is h11.NEED_DATA:
                self._receive(deadline)
            elif isinstance(event, h11.Data):
                found += event.data
            elif isinstance(event, h11.EndOfMessage):
                return bytes(found)
            else:
                return None

    def _run(self, environ: dict[str, Any]) -> bool:
        target, upgrade = environ["RAW_URI"], environ.get(UPGRADE)
        reply = _Reply(self._send, head_only=environ["REQUEST_METHOD"] == "HEAD")
        result: Iterable[bytes] = ()
        try:
            result = self.app(environ, reply.start)
            for chunk in result:
                if chunk:
                    reply.write(chunk)
            if upgrade is not None and upgrade.taken:
                return False
            reply.end()
        except _GoneError as error:
            log.debug("request.cut", extra={"target": target, "error": str(error)})
            return False
        except ConnectionError as error:
            # The application's own source broke off: what was sent must not look whole.
            log.warning("request.cut", extra={"target": target, "error": str(error)})
            return False
        except Exception:
            # The one boundary of the server: an application's mistake costs its own request.
            log.exception("request.failed", extra={"target": target})
            begun = reply.sent or (upgrade is not None and upgrade.taken)
            return not begun and self._refuse(500, "internal error")
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return True

    def _environ(
        self, request: h11.Request, headers: list[tuple[str, str]], target: str, body: bytes
    ) -> dict[str, Any]:
        path, _, query = target.partition("?")
        host, port = self._name()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method.decode("ascii"),
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": target,
            "REQUEST_URI": target,
            "SERVER_NAME": host,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": f"HTTP/{request.http_version.decode('ascii')}",
            "REMOTE_ADDR": self.peer.address,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self.scheme,
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            PEER: self.peer.identity,
            PEER_UID: self.peer.uid,
            CERTIFICATE: self.peer.certificate,
        }
        for name, value in headers:
            key = name.upper().replace("-", "_")
            if name in {"content-type", "content-length"}:
                environ[key] = value
            elif (
                "_" not in name and name not in _OF_THE_HOP
            ):  # `X_Y` and `X-Y` would be one key: only the latter is read
                old = environ.get(f"HTTP_{key}")
                joint = "; " if name == "cookie" else ", "
                environ[f"HTTP_{key}"] = value if old is None else f"{old}{joint}{value}"
        return environ

    def _name(self) -> tuple[str, str]:
        name = self.sock.getsockname()
        return (str(name[0]), str(name[1])) if isinstance(name, tuple) else ("localhost", "0")

    def _refuse(self, status: int, why: str) -> bool:
        text = f"{status} {why}\n".encode()
        with contextlib.suppress(OSError, _GoneError, h11.LocalProtocolError):
            self._send(
                h11.Response(
                    status_code=status,
                    headers=[
                        ("Content-Type", "text/plain; charset=utf-8"),
                        ("Content-Length", str(len(text))),
                        ("Connection", "close"),
                    ],
                )
            )
            self._send(h11.Data(data=text))
            self._send(h11.EndOfMessage())
            self._drain()
        return False

    def _drain(self) -> None:
        """Read what the peer still sends: to close at once would reset what we just told it."""
        if not isinstance(self.sock, ssl.SSLSocket):
            self.sock.shutdown(socket.SHUT_WR)
        deadline = self.clock() + _DRAIN_SECONDS
        while (left := deadline - self.clock()) > 0:
            self.sock.settimeout(left)
            if not self.sock.recv(_CHUNK):
                return

    def _send(self, *events: Any) -> None:
        data = b"".join(self.parser.send(event) or b"" for event in events)
        if data:
            self.sock.settimeout(self.limits.send_seconds)
            try:
                self.sock.sendall(data)
            except OSError as error:
                raise _GoneError(str(error)) from error


class Upgrade:
    """A request to speak WebSocket, which an application may grant by taking the connection.

    ``stopping`` is set when the server stops: then end what is spoken, soon.
    """

    def __init__(
        self, switch: Callable[[list[tuple[str, str]]], Wire], stopping: threading.Event
    ) -> None:
        self._switch = switch
        self.stopping = stopping
        self.taken = False

    def take(self, headers: list[tuple[str, str]]) -> Wire:
        """Answer 101 with ``headers``, and give the connection until the application returns."""
        wire = self._switch(headers)
        self.taken = True
        return wire


def _asks_for_websocket(method: bytes, headers: dict[str, str]) -> bool:
    words = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    return (
        method == b"GET"
        and "upgrade" in words
        and headers.get("upgrade", "").strip().lower() == "websocket"
    )


class _GoneError(Exception):
    """The peer does not read what we send."""


class _Reply:
    """The reply of one request; headers leave with the first chunk."""

    def __init__(self, send: Callable[..., None], *, head_only: bool) -> None:
        self.send = send
        self.head_only = head_only
        self.response: h11.Response | None = None
        self.sent = False

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self.sent:
            raise exc_info[1].with_traceback(exc_info[2])
        code, _, reason = status.partition(" ")
        if code == "101":  # it takes the connection over, and sends that itself: see Upgrade
            return self.write
        self.response = h11.Response(
            status_code=int(code),
            reason=reason.encode("latin-1"),
            headers=[(n, v) for n, v in headers if n.lower() != "connection"],
        )
        return self.write

    def write(self, chunk: bytes) -> None:
        first = self._first()
        body = () if self.head_only else (h11.Data(data=chunk),)
        self.send(*first, *body)

    def end(self) -> None:
        self.send(*self._first(), h11.EndOfMessage())

    def _first(self) -> tuple[h11.Response, ...]:
        if self.sent:
            return ()
        if self.response is None:
            raise h11.LocalProtocolError("the application sent no status")
        self.sent = True
        return (self.response,)
