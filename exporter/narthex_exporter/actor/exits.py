"""Know how a process that is none of our children has ended."""

import contextlib
import fcntl
import os
import signal
import struct
import time
from pathlib import Path
from typing import Final

# struct pidfd_info of <linux/pidfd.h>, as of Linux 6.15: the mask first, the exit code last.
_SIZE: Final = 64
_EXIT_CODE_AT: Final = 60
_PIDFD_INFO_EXIT: Final = 1 << 3
_PIDFD_GET_INFO: Final = (3 << 30) | (_SIZE << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, …)
# Until its parent has taken notice, the kernel tells it in /proc only.
_PATIENCE_SECONDS: Final = 0.3
_TICK_SECONDS: Final = 0.01


def how_it_ended(descriptor: int, pid: int, *, proc: Path = Path("/proc")) -> str:
    """Say with what status or by which signal an ended process ended; empty where unknown.

    ``descriptor`` is a pidfd of it, so the answer is never about another process.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        status = _from_zombie(descriptor, pid, proc)
        if status is None:
            status = _from_descriptor(descriptor)
        if status is not None:
            return describe(status)
        if time.monotonic() > deadline:
            return ""
        time.sleep(_TICK_SECONDS)


def describe(status: int) -> str:
    """Put a wait status into words: ``signal 15`` or ``status 1``. See wait(2)."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return f"signal {number} ({signal.Signals(number).name})"
        return f"signal {number}"
    return f"status {os.WEXITSTATUS(status)}"


def _from_descriptor(descriptor: int) -> int | None:
    info = bytearray(_SIZE)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, info)
    except OSError:
        return None  # an older kernel
    if not struct.unpack_from("=Q", info, 0)[0] & _PIDFD_INFO_EXIT:
        return None
    status: int = struct.unpack_from("=i", info, _EXIT_CODE_AT)[0]
    return status


def _from_zombie(descriptor: int, pid: int, proc: Path) -> int | None:
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        # A zombie keeps its number: while the pidfd can be signalled, it is the same process.
        signal.pidfd_send_signal(descriptor, 0)
    except OSError:
        return None
    return int(fields[-1]) if fields and fields[0] == b"Z" else None
