"""Hear from the kernel when a network device changes. See rtnetlink(7)."""

import contextlib
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.place import Paths

_RTMGRP_LINK: Final = 1
_MESSAGE_BYTES: Final = 65536
# What might change without a word is believed no longer.
_TRUSTED_SECONDS: Final = 60.0


@dataclass(slots=True)
class LinkWatch:
    """Tells whether devices may have changed since the last question.

    Measured on Linux 6.18: the kernel says nothing of a new alias or group, so these are to be
    read each time.

    With ``own`` False, for devices of another machine or namespace, they always may.
    """

    own: bool = True
    clock: Callable[[], float] = time.monotonic
    _socket: socket.socket | None = field(default=None, init=False)
    _asked: float = field(default=float("-inf"), init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Watch the devices below ``paths.sys``, where those are our own."""
        return cls(own=paths.sys == Path("/sys"))

    def changed(self) -> bool:
        """Tell whether what was read before this call may be old, once for each change."""
        now = self.clock()
        if not self.own or (self._socket is None and not self._open()):
            return True
        heard = self._drain()
        if heard or now - self._asked >= _TRUSTED_SECONDS:
            self._asked = now
            return True
        return False

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        self.close()

    def _open(self) -> bool:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                socket.NETLINK_ROUTE,
            )
            self._socket.bind((0, _RTMGRP_LINK))
        except OSError:
            self.close()
            return False
        return True

    def _drain(self) -> bool:
        heard = False
        assert self._socket is not None  # noqa: S101 - opened before
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._socket.recv(_MESSAGE_BYTES)
                except OSError as error:
                    # More came than the buffer holds: that is news too.
                    if error.errno != errno.ENOBUFS:
                        raise
                heard = True
        return heard
