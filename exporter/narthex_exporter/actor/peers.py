"""Tell in the log which process speaks to the actor's socket."""

import logging
import os
import socket
import struct
from typing import Any, Final

from typing_extensions import override

log = logging.getLogger(__name__)

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred, see unix(7)


class NamingSocket(socket.socket):
    """A listening Unix socket that logs each new peer, as the kernel knows it."""

    _last: tuple[int, int, int] | None = None

    @override
    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises OSError as its base does."""
        sock, address = super().accept()
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        peer = pid, uid, gid = _CREDENTIALS.unpack(raw)
        if peer != self._last:
            self._last = peer
            log.info("peer.connected", extra={"peer_pid": pid, "peer_uid": uid, "peer_gid": gid})
        return sock, address


def naming(sock: socket.socket) -> NamingSocket:
    """Take a listening socket over; ``sock`` itself is spent."""
    taken = NamingSocket(fileno=sock.detach())
    os.set_inheritable(taken.fileno(), False)
    return taken
