"""Move bytes over sockets that never block, with a bounded buffer for each.

One thread moves all the bytes of a conversation: a TLS connection may not be read and written by
two threads at once, and whoever waits for one slow peer must still notice the other's end.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

CHUNK: Final = 65536
# Beyond this much that is not sent yet, its source is not read.
ROOM_BYTES: Final = 256 * 1024
# How soon an end that comes from elsewhere (a server that stops) is noticed. Seconds.
TICK_SECONDS: Final = 0.25


class Wire:
    """One socket. ``first`` are bytes that were read from it before."""

    __slots__ = ("_first", "_hungry", "ended", "out", "sock")

    def __init__(self, sock: socket.socket, *, first: bytes = b"") -> None:
        sock.setblocking(False)
        self.sock = sock
        self.out = bytearray()
        self.ended = False
        self._first = first
        self._hungry = False

    @property
    def has_room(self) -> bool:
        """Tell whether its peer keeps up: else give it nothing more."""
        return len(self.out) < ROOM_BYTES

    @property
    def has_more(self) -> bool:
        """Tell whether bytes lie here already, for which the socket will not be readable."""
        pending = isinstance(self.sock, ssl.SSLSocket) and not self.ended and self.sock.pending()
        return bool(self._first or pending)

    def read(self) -> bytes:
        """Take what has come, without waiting; ``ended`` is set where no more will."""
        if self._first:
            first, self._first = self._first, b""
            return first
        if self.ended:
            return b""
        self._hungry = False
        try:
            data = self.sock.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except ssl.SSLWantWriteError:
            self._hungry = True
            return b""
        except OSError:
            data = b""
        self.ended = not data
        return data

    def put(self, data: bytes) -> None:
        """Have bytes sent, as far as they can be sent now."""
        self.out += data
        self.flush()

    def flush(self) -> None:
        """Send what can be sent without waiting."""
        while self.out and not self.ended:
            try:
                # A copy: TLS wants the same bytes again where it could not send them at once.
                sent = self.sock.send(bytes(self.out[:CHUNK]))
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self.ended = True
                return
            del self.out[:sent]

    def events(self, *, reads: bool) -> int:
        """Say what to wait for, as poll(2) names it."""
        writes = self.out or self._hungry
        return (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0)


def wait(wires: Iterable[tuple[Wire, bool]], seconds: float, *, files: Iterable[int] = ()) -> None:
    """Wait until something can be moved, and send what can be sent.

    Each wire comes with whether its bytes are wanted now; ``files`` are descriptors to wait for.
    """
    poll = select.poll()
    watched = []
    for wire, reads in wires:
        if wire.ended:
            continue
        watched.append(wire)
        if reads and wire.has_more:
            seconds = 0.0
        events = wire.events(reads=reads)
        if events:
            poll.register(wire.sock, events)
    for number in files:
        poll.register(number, select.POLLIN)
    poll.poll(max(0.0, seconds) * 1000)
    for wire in watched:
        wire.flush()


def tunnel(
    left: Wire,
    right: Wire,
    *,
    stopping: threading.Event,
    silence_seconds: float = 90.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Hand bytes on both ways until one end closes, both are silent or the server stops.

    What one end sent before it closed still reaches the other.
    """
    heard = clock()
    while not stopping.is_set() and clock() - heard < silence_seconds:
        wait(((left, right.has_room), (right, left.has_room)), TICK_SECONDS)
        for source, target in ((left, right), (right, left)):
            if target.has_room and (data := source.read()):
                heard = clock()
                target.put(data)
        if left.ended or right.ended:
            break
    drain(left)
    drain(right)


def drain(wire: Wire, *, seconds: float = 1.0) -> None:
    """Give a peer a moment to take what it has not taken yet."""
    deadline = time.monotonic() + seconds
    while wire.out and not wire.ended and (left := deadline - time.monotonic()) > 0:
        wait(((wire, False),), left)
