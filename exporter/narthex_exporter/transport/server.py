"""Serve WSGI over TLS, TCP or a Unix socket, so that no silent peer delays another.

Python's stock servers do the TLS handshake where they accept, or give each silent connection
one of few workers: one peer that never speaks then stops everybody (docs/adr/0003). Here each
connection has a thread of its own from the moment it is accepted, with a deadline for the
handshake, for the headers and between requests, and connections are bounded in all and by peer.
"""

import contextlib
import logging
import os
import select
import socket
import ssl
import struct
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
    PEER_UID,
    UPGRADE,
    Connection,
    Limits,
    Peer,
    Upgrade,
    WSGIApp,
)
from narthex_exporter.transport.identity import PeerError, identify, issued_by
from narthex_exporter.transport.slots import Slots
from narthex_exporter.transport.tls import ContextSource

log = logging.getLogger(__name__)

__all__ = [
    "CERTIFICATE",
    "PEER",
    "PEER_UID",
    "UPGRADE",
    "Limits",
    "ListenError",
    "Listener",
    "Server",
    "Upgrade",
    "WSGIApp",
    "listen_tcp",
    "listen_unix",
]

# How long a connection that was cut may take to end.
_END_SECONDS: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred


class ListenError(NarthexError):
    """An address cannot be listened on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One bound socket, with TLS where ``tls`` is given.

    Where ``tls`` asks for client certificates, each must name one identity, of ``cluster`` where
    that is given. With ``foreign`` the CA that lets peers in may be another's, and could write any
    name: a peer is somebody only if our own CA, in the file ``own_ca``, signed its certificate.
    One that is ``lent`` by systemd outlives us: who connects between two of us waits in its queue.
    """

    sock: socket.socket
    tls: ContextSource | None = None
    cluster: str | None = None
    foreign: bool = False
    own_ca: Path | None = None
    lent: bool = False
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


@dataclass(slots=True, eq=False)
class _Guest:
    """One connection, from when it is accepted until it is closed."""

    peer: str
    sock: socket.socket
    cut: bool = False


@dataclass(slots=True)
class Server:
    """Serve one WSGI application on some listeners, a thread a connection."""

    app: WSGIApp
    listeners: Sequence[Listener]
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    # Each peer's connections, without those that were cut and are about to end.
    _peers: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _guests: set[_Guest] = field(default_factory=set, init=False)
    _busy: set[socket.socket] = field(default_factory=set, init=False)
    # Those that have neither shown a certificate nor sent a request, the oldest first.
    _unproven: dict[_Guest, None] = field(default_factory=dict, init=False)
    _acceptors: list[threading.Thread] = field(default_factory=list, init=False)
    _wakers: tuple[int, ...] = field(default=(), init=False)
    _upgrades: Slots = field(init=False)

    def __post_init__(self) -> None:
        self._upgrades = Slots(self.limits.upgrades, self.limits.upgrades_per_peer)

    def start(self) -> None:
        """Begin to accept, in threads of the server's own."""
        self._wakers = os.pipe2(os.O_CLOEXEC)
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
        self._wake()
        for listener in self.listeners:
            if not listener.lent:
                with contextlib.suppress(OSError):
                    listener.sock.shutdown(socket.SHUT_RDWR)
        deadline = self.clock() + drain_seconds
        while self._busy and self.clock() < deadline:
            time.sleep(0.02)
        with self._lock:
            for guest in self._guests:
                _cut(guest.sock)
        for thread in self._acceptors:
            thread.join(timeout=1.0)
        for listener in self.listeners:
            listener.sock.close()
        self._close_wakers()
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
            return len(self._guests)

    @property
    def strangers(self) -> int:
        """How many connections have neither shown a certificate nor sent a request."""
        with self._lock:
            return len(self._unproven)

    @property
    def upgrades(self) -> int:
        """How many connections speak something else than HTTP, or just ask to."""
        return self._upgrades.held

    @property
    def alive(self) -> bool:
        """Tell whether every listener still accepts."""
        return bool(self._acceptors) and all(thread.is_alive() for thread in self._acceptors)

    def _wake(self) -> None:
        """Let every acceptor see that we stop."""
        if self._wakers:
            os.write(self._wakers[1], b"x")

    def _close_wakers(self) -> None:
        for descriptor in self._wakers:
            os.close(descriptor)
        self._wakers = ()

    def _accept(self, listener: Listener) -> None:
        waiting = select.poll()
        waiting.register(listener.sock.fileno(), select.POLLIN)
        waiting.register(self._wakers[0], select.POLLIN)
        while not self._stopping.is_set():
            waiting.poll()
            if self._stopping.is_set():
                return
            try:
                sock, address = listener.sock.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                # Out of descriptors: wait for some to close rather than spin.
                time.sleep(0.05)
                continue
            peer = address[0] if isinstance(address, tuple) else "local"
            guest = self._admit(peer, sock)
            if guest is None:
                sock.close()
                continue
            thread = threading.Thread(
                target=self._connection,
                args=(listener, guest),
                name="connection",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:
                self._leave(guest)

    def _admit(self, peer: str, sock: socket.socket) -> _Guest | None:
        with self._lock:
            # Those that were cut take a moment to end: however many come, so many there are.
            if len(self._guests) >= 2 * self.limits.connections:
                return None
            if self._peers[peer] >= self.limits.connections_per_peer and not self._make_room(peer):
                return None
            if self._peers.total() >= self.limits.connections and not self._make_room():
                return None
            guest = _Guest(peer, sock)
            self._peers[peer] += 1
            self._guests.add(guest)
            self._unproven[guest] = None
            return guest

    def _make_room(self, peer: str | None = None) -> bool:
        """Cut the oldest, of ``peer`` if given, that is unproven: strangers shut nobody out."""
        oldest = next((one for one in self._unproven if peer in {None, one.peer}), None)
        if oldest is None:
            return False
        del self._unproven[oldest]
        oldest.cut = True
        self._uncount(oldest.peer)
        _cut(oldest.sock)
        return True

    def _uncount(self, peer: str) -> None:
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def _prove(self, guest: _Guest) -> bool:
        """Note that it is not to make room for others. False if it already had to."""
        with self._lock:
            self._unproven.pop(guest, None)
            return not guest.cut

    def _leave(self, guest: _Guest) -> None:
        self._prove(guest)  # before it is closed: its descriptor may then be another's
        _close(guest.sock)
        with self._lock:
            self._guests.discard(guest)
            if not guest.cut:
                self._uncount(guest.peer)

    def _connection(self, listener: Listener, guest: _Guest) -> None:
        try:
            if guest.sock.family != socket.AF_UNIX:
                guest.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if listener.tls is not None:
                self._shake_hands(self._wrap(listener.tls, guest))
            peer = _peer(listener, guest.sock, guest.peer)
            if peer.certificate is not None and not self._prove(guest):
                return
            Connection(
                self.app,
                guest.sock,
                peer=peer,
                scheme="https" if listener.tls else listener.scheme,
                limits=self.limits,
                clock=self.clock,
                busy=self._busy,
                stopping=self._stopping,
                prove=lambda: self._prove(guest),
                upgrades=self._upgrades,
            ).serve()
        except (OSError, PeerError) as error:
            log.debug("connection.ended", extra={"peer": guest.peer, "error": str(error)})
        finally:
            self._leave(guest)

    def _wrap(self, tls: ContextSource, guest: _Guest) -> ssl.SSLSocket:
        sock = tls.get().wrap_socket(guest.sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            guest.sock = sock
            if guest.cut:  # perhaps between the two sockets, where a cut does nothing
                raise ConnectionAbortedError("it made room for another")
        return sock

    def _shake_hands(self, sock: ssl.SSLSocket) -> None:
        """Do the handshake in the time allowed, however slowly the peer drips its bytes."""
        deadline = self.clock() + self.limits.handshake_seconds
        sock.setblocking(False)
        wait = select.poll()
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


def _peer(listener: Listener, sock: socket.socket, address: str) -> Peer:
    """Tell who the peer is. Raises PeerError where it has to be one of ours and is not."""
    der = sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None
    ours = der is not None and not listener.foreign
    if der is not None and listener.foreign and listener.own_ca is not None:
        ours = issued_by(der, listener.own_ca)
    identity = identify(der, cluster=listener.cluster) if der is not None and ours else None
    if sock.family == socket.AF_UNIX:
        return Peer(address="", uid=_uid(sock))
    return Peer(address=address, identity=identity, certificate=der)


def _uid(sock: socket.socket) -> int:
    """Tell which user connected, as the kernel noted it. See unix(7)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return int(uid)


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
