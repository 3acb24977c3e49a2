"""Serve WSGI over TLS, TCP or a Unix socket, so that no silent peer delays another.

Python's stock servers do the TLS handshake where they accept, or give each silent connection
one of few workers: one peer that never speaks then stops everybody (docs/adr/0003). Here each
connection has a thread of its own from the moment it is accepted, with a deadline for the
handshake, for the headers and between requests, and connections are bounded in all and by peer.
"""

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.connection import (
    CERTIFICATE,
    PEER,
    Connection,
    Limits,
    Peer,
    WSGIApp,
)
from narthex_exporter.transport.identity import PeerError, identify, issued_by
from narthex_exporter.transport.tls import ContextSource

log = logging.getLogger(__name__)

__all__ = [
    "CERTIFICATE",
    "PEER",
    "Limits",
    "ListenError",
    "Listener",
    "Server",
    "WSGIApp",
    "listen_tcp",
    "listen_unix",
]

# How long a connection that was cut may take to end.
_END_SECONDS: Final = 1.0


class ListenError(NarthexError):
    """An address cannot be listened on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One bound socket, with TLS where ``tls`` is given.

    Where ``tls`` asks for client certificates, each must name one identity, of ``cluster`` where
    that is given. With ``foreign`` the CA that lets peers in may be another's, and could write any
    name: a peer is somebody only if our own CA, in the file ``own_ca``, signed its certificate.
    """

    sock: socket.socket
    tls: ContextSource | None = None
    cluster: str | None = None
    foreign: bool = False
    own_ca: Path | None = None
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
        deadline = self.clock() + _END_SECONDS
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
            Connection(
                self.app,
                sock,
                peer=_peer(listener, sock, peer),
                scheme="https" if listener.tls else listener.scheme,
                limits=self.limits,
                clock=self.clock,
                busy=self._busy,
                stopping=self._stopping,
            ).serve()
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


def _peer(listener: Listener, sock: socket.socket, address: str) -> Peer:
    """Tell who the peer is. Raises PeerError where it has to be one of ours and is not."""
    der = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    ours = der is not None and not listener.foreign
    if der is not None and listener.foreign and listener.own_ca is not None:
        ours = issued_by(der, listener.own_ca)
    identity = identify(der, cluster=listener.cluster) if der is not None and ours else None
    own = "" if sock.family == socket.AF_UNIX else address
    return Peer(address=own, identity=identity, certificate=der)


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
