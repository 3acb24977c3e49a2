"""Ask the kernel for the sockets of the network namespace that the exporter is in.

Through sock_diag(7): 1.2 µs a socket, of which the kernel takes 1.0; text of /proc/net/tcp takes
four times as long, and is read only where netlink is refused. These lines speak netlink
themselves: pyroute2's DiagSocket does the same, and its import costs 13 MiB of memory and 0.13 s.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs

TCP: Final = "tcp"
UDP: Final = "udp"
_PROTOCOLS: Final = {TCP: socket.IPPROTO_TCP, UDP: socket.IPPROTO_UDP}
# How the kernel numbers what a TCP socket may be; see include/net/tcp_states.h.
_CLOSE: Final = 7
_LISTEN: Final = 10
_TCP_STATES: Final = 0xFFF

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_REQUEST_DUMP: Final = 0x1 | 0x300
_INET_DIAG_CGROUP_ID: Final = 21
_BYTES: Final = 65536
_PATIENCE_SECONDS: Final = 2.0
# nlmsghdr, then inet_diag_req_v2 with an empty sockid.
_REQUEST: Final = struct.Struct("=IHHIIBBBxI48x")
_HEAD: Final = struct.Struct("=IH")
# How the last message begins, whether or not sockets came and went meanwhile; a kernel may put
# it behind others.
_DONE_BYTES: Final = 20
_DONE: Final = tuple(
    struct.pack("=IHHI", _DONE_BYTES, _NLMSG_DONE, flags, 1) for flags in (0x2, 0x12)
)
_ERROR: Final = struct.Struct("=16xi")
# Length, type, state, and the receive and send queues.
_COUNTED: Final = struct.Struct("=IH11xB54xII")
# Length, type, family, state, ports, local address, inode.
_FULL: Final = struct.Struct("=IH10xBBxx2s2s16s44xI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_CGROUP_ID: Final = struct.Struct("=Q")
_NO_PORT: Final = b"\0\0"

# What says that asking again is of no use: no right to, or no such module.
_REFUSALS: Final = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.ENOENT,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.EPROTONOSUPPORT,
        errno.EAFNOSUPPORT,
        errno.ESOCKTNOSUPPORT,
    }
)


_Connect = Callable[[], socket.socket]


class RefusedError(Exception):
    """The kernel does not answer such questions here."""


@dataclass(slots=True)
class TcpStates:
    """How many TCP sockets are in each state, by its number, and what waits in their queues."""

    counts: list[int] = field(default_factory=lambda: [0] * 256)
    receive_bytes: int = 0
    send_bytes: int = 0


class Listener(NamedTuple):
    """A socket that waits for peers; ``cgroup`` is its version 2 control group's id, or 0."""

    protocol: str
    address: str
    port: int
    inode: int
    cgroup: int = 0


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)


@dataclass(slots=True)
class SockDiag:
    """The sockets of our own network namespace, by netlink, or as ``proc`` has them.

    On a tree that is no real /proc netlink is not asked: it tells of the machine we run on.
    """

    proc: Path
    connect: Callable[[], socket.socket] = _netlink
    _refused: set[str] = field(default_factory=set, init=False)
    _real: bool | None = field(default=None, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make it for a node's /proc."""
        return cls(paths.proc)

    def tcp_states(self, proc: Procfs) -> TcpStates:
        """Count the TCP sockets by state. Raises FileNotFoundError, ValueError, OSError.

        The queues are those of connections: a listener's are counts of peers, no bytes.
        """
        if self._may_ask(TCP):
            try:
                return _count(self.connect)
            except RefusedError:
                self._refused.add(TCP)
        return parse_tcp_states(proc.bytes("net/tcp") + _six(proc, "net/tcp6"))

    def listeners(self, proc: Procfs) -> list[Listener]:
        """List listening TCP and unconnected UDP sockets. Raises as ``tcp_states`` does."""
        found: list[Listener] = []
        for protocol, state in ((TCP, _LISTEN), (UDP, _CLOSE)):
            if self._may_ask(protocol):
                try:
                    found += _listeners(self.connect, protocol, state)
                    continue
                except RefusedError:
                    self._refused.add(protocol)
            for name in (f"net/{protocol}", f"net/{protocol}6"):
                found += parse_listeners(protocol, state, _six(proc, name))
        return found

    def _may_ask(self, protocol: str) -> bool:
        if self._real is None:
            self._real = (self.proc / "self/ns/net").exists()
        return self._real and protocol not in self._refused


def _six(proc: Procfs, name: str) -> bytes:
    try:
        return proc.bytes(name)
    except FileNotFoundError:
        return b""  # the protocol is off


def _dump(connect: _Connect, family: int, protocol: str, states: int) -> Iterator[bytes]:
    """Give the kernel's messages, many in each block. Raises RefusedError, OSError."""
    request = _REQUEST.pack(
        _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0, family, _PROTOCOLS[protocol], 0,
        states,
    )  # fmt: skip
    try:
        with connect() as kernel:
            kernel.settimeout(_PATIENCE_SECONDS)
            kernel.send(request)
            while True:
                block = kernel.recv(_BYTES)
                _, kind = _HEAD.unpack_from(block)
                if kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                    _raise_failure(block)
                    return
                yield block
                if block[-_DONE_BYTES:].startswith(_DONE):
                    _raise_failure(block[-_DONE_BYTES:])
                    return
    except OSError as error:
        if error.errno in _REFUSALS:
            raise RefusedError from error
        raise


def _raise_failure(block: bytes) -> None:
    """Raise what a last message tells: a dump that fails says so there."""
    code = -_ERROR.unpack_from(block)[0]
    if code > 0:
        raise OSError(code, os.strerror(code))


def _count(connect: _Connect) -> TcpStates:
    found = TcpStates()
    counts, received, sent = found.counts, 0, 0
    unpack = _COUNTED.unpack_from
    for family in (socket.AF_INET, socket.AF_INET6):
        for block in _dump(connect, family, TCP, _TCP_STATES):
            at, end = 0, len(block) - _COUNTED.size
            while at <= end:
                length, kind, state, receive, send = unpack(block, at)
                if kind == _SOCK_DIAG_BY_FAMILY:
                    counts[state] += 1
                    if state != _LISTEN:
                        received += receive
                        sent += send
                # A message without a length would hold us for ever; see NLMSG_NEXT.
                at += (length + 3) & ~3 or end + 1
    found.receive_bytes, found.send_bytes = received, sent
    return found


def _listeners(connect: _Connect, protocol: str, state: int) -> list[Listener]:
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for block in _dump(connect, family, protocol, 1 << state):
            found += parse_messages(protocol, block)
    return found


def parse_messages(protocol: str, block: bytes) -> list[Listener]:
    """Take the sockets that have a port and no peer out of a block of netlink messages."""
    found = []
    at, end = 0, len(block) - _FULL.size
    while at <= end:
        length, kind, family, _, port, peer, address, inode = _FULL.unpack_from(block, at)
        if kind == _SOCK_DIAG_BY_FAMILY and peer == _NO_PORT and port != _NO_PORT:
            cgroup = _cgroup(block, at + _FULL.size, min(at + length, len(block)))
            number = int.from_bytes(port, "big")
            found.append(Listener(protocol, _address(family, address), number, inode, cgroup))
        at += (length + 3) & ~3 or end + 1
    return found


def _cgroup(block: bytes, at: int, end: int) -> int:
    """Find the id among a message's attributes; see INET_DIAG_CGROUP_ID in inet_diag.h."""
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(block, at)
        inside = at + _ATTRIBUTE.size
        if kind == _INET_DIAG_CGROUP_ID and inside + _CGROUP_ID.size <= end:
            number: int = _CGROUP_ID.unpack_from(block, inside)[0]
            return number
        at += (length + 3) & ~3 or end
    return 0


def _address(family: int, raw: bytes) -> str:
    return socket.inet_ntop(family, raw[:4] if family == socket.AF_INET else raw)


def parse_tcp_states(text: bytes) -> TcpStates:
    """Count the lines of /proc/net/tcp, tcp6 or both; see proc(5). Lines of no sense are none."""
    found = TcpStates()
    for line in text.splitlines():
        words = line.split(None, 5)
        try:
            state = int(words[3], 16)
            send, _, receive = words[4].partition(b":")
            waiting = int(receive, 16), int(send, 16)
            found.counts[state] += 1
        except (IndexError, ValueError):
            continue  # the heading
        if state != _LISTEN:
            found.receive_bytes += waiting[0]
            found.send_bytes += waiting[1]
    return found


def parse_listeners(protocol: str, state: int, text: bytes) -> list[Listener]:
    """Take the sockets in a state that have no peer out of /proc/net/tcp, udp, tcp6 or udp6."""
    wanted, found = b"%02X" % state, []
    for line in text.splitlines():
        words = line.split(None, 10)
        if len(words) < 10 or words[3] != wanted:  # noqa: PLR2004 - the inode is the tenth
            continue
        address, _, port = words[1].partition(b":")
        try:
            number, peer = int(port, 16), int(words[2].rpartition(b":")[2], 16)
            text_address = _printed(address)
            inode = int(words[9])
        except (ValueError, struct.error):
            continue
        if number and not peer:
            found.append(Listener(protocol, text_address, number, inode))
    return found


def _printed(address: bytes) -> str:
    """Turn the kernel's print of an address, 32 bits of the machine's order each, to the usual."""
    if len(address) not in {8, 32}:
        raise ValueError("no address")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, raw)
