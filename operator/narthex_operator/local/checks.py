"""Look, before anything is started, for what would make the start fail."""

import errno
import os
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from narthex_exporter.contract.errors import NarthexError

LEAST_FREE_BYTES: Final = 200 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """The distribution's programs that we run."""

    prometheus: Path
    alertmanager: Path


def find_binaries(path: str | None = None) -> Binaries:
    """Find Prometheus and Alertmanager. Raises NarthexError that says how to get them."""
    prometheus = shutil.which("prometheus", path=path)
    alertmanager = shutil.which("prometheus-alertmanager", path=path) or shutil.which(
        "alertmanager", path=path
    )
    if not prometheus or not alertmanager:
        missing = "Prometheus" if not prometheus else "Alertmanager"
        how = "apt-get install prometheus prometheus-alertmanager"
        raise NarthexError(
            f"{missing} is not installed",
            hint=f"run: {how}"
            if os.geteuid() == 0
            else f"run script/up as root, or once: sudo {how}",
        )
    return Binaries(prometheus=Path(prometheus), alertmanager=Path(alertmanager))


def check_room(folder: Path, *, least_bytes: int = LEAST_FREE_BYTES) -> None:
    """Refuse to start on a full disk. Raises NarthexError."""
    free = shutil.disk_usage(folder).free
    if free < least_bytes:
        raise NarthexError(
            f"only {free >> 20} MiB are free where {folder} lies;"
            f" {least_bytes >> 20} MiB are needed",
            hint="free some room, or set NARTHEX_HOME to a folder on another disk",
        )


def check_ports(address: str, ports: Iterable[tuple[str, int]]) -> None:
    """Refuse to start when a port is taken. Raises NarthexError that names who has it."""
    for part, port in ports:
        for host in {address, "127.0.0.1"}:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise NarthexError(
                            f"cannot listen on {host}: {error.strerror}",
                            hint="--listen takes an IP address of this machine: see `ip addr`",
                        ) from error
                    raise NarthexError(
                        f"port {port} on {host}, for the {part}, is taken{_holder(port)}",
                        hint="stop that program, or move every port, for instance with "
                        f"NARTHEX_PORT_BASE={port // 100 * 100 + 1000}",
                    ) from error


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr[1:2] == (port,) and connection.pid:
                return f" (held by {psutil.Process(connection.pid).name()}, pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""
