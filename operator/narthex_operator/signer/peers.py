"""Listen on a Unix socket to some local users only."""

import os
import socket
import struct
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from narthex_exporter.transport.server import listen_unix

_UCRED: Final = struct.Struct("3i")


class PeerCheckedSocket(socket.socket):
    """A listening Unix socket that hangs up on users who are not allowed. See unix(7)."""

    allowed: frozenset[int] = frozenset()

    @override
    def accept(self) -> tuple[socket.socket, Any]:
        """Wait for a peer who is allowed."""
        while True:
            peer, address = super().accept()
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            _pid, uid, _gid = _UCRED.unpack(raw)
            if uid in self.allowed:
                return peer, address
            peer.close()


def listen_for(path: Path, *, uids: frozenset[int] = frozenset()) -> PeerCheckedSocket:
    """Bind a socket for root, our own user and ``uids``. Raises ListenError."""
    plain = listen_unix(path, mode=0o666 if uids else 0o600)
    checked = PeerCheckedSocket(fileno=plain.detach())
    checked.allowed = uids | {0, os.geteuid()}
    return checked
