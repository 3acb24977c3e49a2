"""Serve WSGI over TLS, TCP or a Unix socket, so that no silent peer delays another.

Python's stock servers do the TLS handshake where they accept, or give each silent connection
one of few workers: one peer that never speaks then stops everybody (docs/adr/0003). Here each
connection has a thread of its own from the moment it is accepted, with a deadline for the
handshake, for the headers and between requests, and connections are bounded in all and by peer.
"""

import contextlib
import io
import logging
import select
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote_to_bytes

import h11

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.identity import Identity, PeerError, identify
from narthex_exporter.transport.tls import ContextSource

log = logging.getLogger(__name__)

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# The environ key under which an application finds the verified Identity of its peer, or None.
PEER: Final = "narthex.peer"
# The same for the peer's certificate as DER, or None: for listeners with `foreign` peers.
CERTIFICATE: Final = "narthex.peer_certificate"
_CHUNK: Final = 65536
_DRAIN_SECONDS: Final = 1.0


class ListenError(NarthexError):
    """An address cannot be listened on."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One bound socket, with TLS where ``tls`` is given.

    Where ``tls`` asks for client certificates, each must name one identity, of ``cluster`` where
    that is given. With ``foreign`` another CA's certificates are taken too: they are nobody.
    """

    sock: socket.socket
    tls: ContextSource | None = None
    cluster: str | None = None
    foreign: bool = False
    scheme: str = "http"


def listen_tcp(address: str, port: int) -> socket.socket:
    """Bind a TCP address. Raises ListenError, which names who to look for."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise ListenError(
            f"cannot listen on {address}:{port}: {error.strerror}",
            hint=f"see who has it with: ss -ltnp 'sport = :{port}'",
        ) from error
    sock.listen(128)
    return sock


def listen_unix(path: Path, *, mode: int = 0o600) -> socket.socket:
    """Bind a Unix socket, taking the place of one that nobody answers on."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            sock.close()
            raise ListenError(f"{path} is in use by a running program")
    try:
        sock.bind(str(path))
        path.chmod(mode)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    sock.listen(128)
    return sock


@dataclass(slots=True)
class Server:
    """Serve one WSGI application on some listeners, a thread a connection."""

    app: WSGIApp
    listeners: Sequence[Listener]
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    _peers: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _open: set[socket.socket] = field(default_factory=set, init=False)
    _busy: set[socket.socket] = field(default_factory=set, init=False)
    # Those whose TLS handshake is under way, the oldest first.
    _shaking: dict[socket.socket, None] = field(default_factory=dict, init=False)
    _acceptors: list[threading.Thread] = field(default_factory=list, init=False)

    def start(self) -> None:
        """Begin to accept, in threads of the server's own."""
        for listener in self.listeners:
            if listener.tls is not None:
                listener.tls.get()  # a wrong certificate fails here, not at the first peer
            thread = threading.Thread(
                target=self._accept, args=(listener,), name="accept", daemon=True
            )
            thread.start()
            self._acceptors.append(thread)

    def stop(self, *, drain_seconds: float = 5.0) -> None:
        """Close the listeners, let requests under way finish, then cut what is left."""
        self._stopping.set()
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.sock.shutdown(socket.SHUT_RDWR)
            listener.sock.close()
        deadline = self.clock() + drain_seconds
        while self._busy and self.clock() < deadline:
            time.sleep(0.02)
        with self._lock:
            left = list(self._open)
            left += self._shaking
        for sock in left:
            _cut(sock)
        for thread in self._acceptors:
            thread.join(timeout=1.0)
        deadline = self.clock() + _DRAIN_SECONDS
        while self.connections and self.clock() < deadline:
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return sum(self._peers.values())

    @property
    def strangers(self) -> int:
        """How many TLS handshakes are under way."""
        with self._lock:
            return len(self._shaking)

    @property
    def alive(self) -> bool:
        """Tell whether every listener still accepts."""
        return bool(self._acceptors) and all(thread.is_alive() for thread in self._acceptors)

    def _accept(self, listener: Listener) -> None:
        while not self._stopping.is_set():
            try:
                sock, address = listener.sock.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                # Out of descriptors: wait for some to close rather than spin.
                time.sleep(0.05)
                continue
            peer = address[0] if isinstance(address, tuple) else "local"
            if not self._admit(peer):
                sock.close()
                continue
            thread = threading.Thread(
                target=self._connection,
                args=(listener, sock, peer),
                name="connection",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:
                sock.close()
                self._leave(peer)

    def _admit(self, peer: str) -> bool:
        with self._lock:
            if self._peers[peer] >= self.limits.connections_per_peer:
                return False
            if sum(self._peers.values()) >= self.limits.connections and not self._make_room():
                return False
            self._peers[peer] += 1
            return True

    def _make_room(self) -> bool:
        """Cut the oldest peer that has not shown yet who it is: strangers shut nobody out."""
        oldest = next(iter(self._shaking), None)
        if oldest is None:
            return False
        del self._shaking[oldest]
        _cut(oldest)
        return True

    def _leave(self, peer: str) -> None:
        with self._lock:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def _connection(self, listener: Listener, raw: socket.socket, peer: str) -> None:
        sock = raw
        try:
            if raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if listener.tls is not None:
                sock = listener.tls.get().wrap_socket(
                    raw, server_side=True, do_handshake_on_connect=False
                )
                self._shake_hands(sock)
            with self._lock:
                self._open.add(sock)
            _Connection(self, listener, sock, peer).serve()
        except (OSError, PeerError) as error:
            log.debug("connection.ended", extra={"peer": peer, "error": str(error)})
        finally:
            with self._lock:
                self._open.discard(sock)
            _close(sock)
            self._leave(peer)

    def _shake_hands(self, sock: ssl.SSLSocket) -> None:
        """Do the handshake in the time allowed, however slowly the peer drips its bytes."""
        deadline = self.clock() + self.limits.handshake_seconds
        sock.setblocking(False)
        wait = select.poll()
        with self._lock:
            self._shaking[sock] = None
        try:
            while not self._stopping.is_set():
                try:
                    sock.do_handshake()
                except ssl.SSLWantReadError:
                    wait.register(sock, select.POLLIN)
                except ssl.SSLWantWriteError:
                    wait.register(sock, select.POLLOUT)
                else:
                    return
                left = deadline - self.clock()
                if left <= 0:
                    raise TimeoutError("the TLS handshake took too long")
                wait.poll(left * 1000)
            raise ConnectionAbortedError("the server stops")
        finally:
            with self._lock:
                self._shaking.pop(sock, None)


class _Connection:
    """One connection's requests, one after the other."""

    def __init__(
        self,
        server: Server,
        listener: Listener,
        sock: socket.socket,
        peer: str,
    ) -> None:
        self.server = server
        self.listener = listener
        self.sock = sock
        self.peer = peer
        self.certificate = (
            sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
        )
        self.identity = _identify(listener, self.certificate)
        self.parser = h11.Connection(
            h11.SERVER, max_incomplete_event_size=server.limits.header_bytes
        )

    def serve(self) -> None:
        """Answer requests until one side has had enough."""
        wait = self.server.limits.header_seconds
        while not self.server._stopping.is_set():  # noqa: SLF001 - one class in two
            try:
                request = self._next_request(wait)
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, str(error))
                return
            if request is None:
                return
            self.server._busy.add(self.sock)  # noqa: SLF001
            try:
                if not self._answer(request):
                    return
            finally:
                self.server._busy.discard(self.sock)  # noqa: SLF001
            if self.parser.our_state is not h11.DONE or self.parser.their_state is not h11.DONE:
                return
            self.parser.start_next_cycle()
            wait = self.server.limits.idle_seconds

    def _next_request(self, wait_seconds: float) -> h11.Request | None:
        deadline = self.server.clock() + wait_seconds
        started = False
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            if not started and self.parser.trailing_data[0]:
                started = True
                deadline = min(deadline, self.server.clock() + self.server.limits.header_seconds)
            self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        left = deadline - self.server.clock()
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
        if head > self.server.limits.header_bytes:
            return self._refuse(431, f"at most {self.server.limits.header_bytes} bytes of headers")
        # A proxy that reads a request otherwise than we do is how requests are smuggled.
        if names["transfer-encoding"]:
            return self._refuse(411, "send Content-Length: chunked requests are not read here")
        if names["host"] > 1 or names["authorization"] > 1 or not target.startswith("/"):
            return self._refuse(400, "a duplicate header, or not a path")
        length = int(dict(headers).get("content-length", "0"))
        if length > self.server.limits.body_bytes:
            return self._refuse(413, f"at most {self.server.limits.body_bytes} bytes")
        if dict(headers).get("expect", "").lower() == "100-continue" and length:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        body = self._body(length)
        if body is None:
            return False
        return self._run(request, headers, target, body)

    def _body(self, length: int) -> bytes | None:
        deadline = self.server.clock() + max(self.server.limits.header_seconds, length / 65536)
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

    def _run(
        self, request: h11.Request, headers: list[tuple[str, str]], target: str, body: bytes
    ) -> bool:
        environ = self._environ(request, headers, target, body)
        reply = _Reply(self, head_only=request.method == b"HEAD")
        result: Iterable[bytes] = ()
        try:
            result = self.server.app(environ, reply.start)
            for chunk in result:
                if chunk:
                    reply.write(chunk)
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
            return not reply.sent and self._refuse(500, "internal error")
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
            "REMOTE_ADDR": "" if self.peer == "local" else self.peer,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self.listener.tls else self.listener.scheme,
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            PEER: self.identity,
            CERTIFICATE: self.certificate,
        }
        for name, value in headers:
            key = name.upper().replace("-", "_")
            if name in {"content-type", "content-length"}:
                environ[key] = value
            elif "_" not in name:  # `X_Y` and `X-Y` would be one key: only the latter is read
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
        deadline = self.server.clock() + _DRAIN_SECONDS
        while (left := deadline - self.server.clock()) > 0:
            self.sock.settimeout(left)
            if not self.sock.recv(_CHUNK):
                return

    def _send(self, *events: Any) -> None:
        data = b"".join(self.parser.send(event) or b"" for event in events)
        if data:
            self.sock.settimeout(self.server.limits.send_seconds)
            try:
                self.sock.sendall(data)
            except OSError as error:
                raise _GoneError(str(error)) from error


class _GoneError(Exception):
    """The peer does not read what we send."""


class _Reply:
    """The reply of one request; headers leave with the first chunk."""

    def __init__(self, connection: _Connection, *, head_only: bool) -> None:
        self.connection = connection
        self.head_only = head_only
        self.response: h11.Response | None = None
        self.sent = False

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and self.sent:
            raise exc_info[1].with_traceback(exc_info[2])
        code, _, reason = status.partition(" ")
        self.response = h11.Response(
            status_code=int(code),
            reason=reason.encode("latin-1"),
            headers=[(n, v) for n, v in headers if n.lower() != "connection"],
        )
        return self.write

    def write(self, chunk: bytes) -> None:
        first = self._first()
        body = () if self.head_only else (h11.Data(data=chunk),)
        self.connection._send(*first, *body)  # noqa: SLF001

    def end(self) -> None:
        self.connection._send(*self._first(), h11.EndOfMessage())  # noqa: SLF001

    def _first(self) -> tuple[h11.Response, ...]:
        if self.sent:
            return ()
        if self.response is None:
            raise h11.LocalProtocolError("the application sent no status")
        self.sent = True
        return (self.response,)


def _identify(listener: Listener, certificate: bytes | None) -> Identity | None:
    if certificate is None:
        return None
    try:
        return identify(certificate, cluster=listener.cluster)
    except PeerError:
        if listener.foreign:
            return None
        raise


def _cut(sock: socket.socket) -> None:
    # SSLSocket's own shutdown() would pull its state from under the thread that uses it.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(0.5)
            with contextlib.suppress(ValueError):
                sock.unwrap()
    sock.close()
