"""Tell systemd how we are, see sd_notify(3)."""

import os
import socket
from collections.abc import Mapping


def notify(state: str, *, environment: Mapping[str, str] = os.environ) -> None:
    """Send one state, such as ``READY=1``; nothing where systemd did not start us."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            sock.sendall(state.encode())
        except OSError:
            return  # systemd's own restart: nobody to tell


def watchdog_seconds(*, environment: Mapping[str, str] = os.environ) -> float | None:
    """Give how often systemd wants to hear of us, in seconds; None where it does not."""
    usec = environment.get("WATCHDOG_USEC", "")
    ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(usec) / 1e6 if ours and usec.isdigit() and int(usec) else None
