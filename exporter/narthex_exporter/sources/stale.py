"""Find the services that still run code of libraries that were replaced."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOST_PROCESSES: Final = 20_000
_DELETED: Final = b" (deleted)"
_SYSTEM: Final = (b"/usr/", b"/lib", b"/opt/")
_COLUMNS: Final = 6


def maps_replaced_library(maps: bytes) -> bool:
    """Tell from /proc/<pid>/maps whether a library's code is mapped whose file is gone."""
    if _DELETED not in maps:
        return False
    for line in maps.splitlines():
        if line.endswith(_DELETED):
            words = line.split(None, _COLUMNS - 1)
            if len(words) == _COLUMNS and b"x" in words[1]:
                path = words[-1].removesuffix(_DELETED)
                if path.startswith(_SYSTEM) and b".so" in path:
                    return True
    return False


def service_of(cgroup: str) -> str | None:
    """Give the systemd service that /proc/<pid>/cgroup tells of; None where it tells of none."""
    for line in cgroup.splitlines():
        for part in reversed(line.rpartition(":")[2].split("/")):
            if part.endswith(".service"):
                return part
    return None


def stale_services(proc: Path) -> set[str]:
    """Name the services with such a process. Raises PermissionError where maps are not shown."""
    found: set[str] = set()
    seen = refused = 0
    for pid in _pids(proc):
        try:
            service = service_of((proc / pid / "cgroup").read_text(errors="replace"))
            if service is None or service in found:
                continue
            seen += 1
            if maps_replaced_library((proc / pid / "maps").read_bytes()):
                found.add(service)
        except PermissionError:
            refused += 1
        except OSError:
            continue  # it has ended
    if refused and refused == seen:
        raise PermissionError("the memory maps of services are not shown to this user")
    return found


def _pids(proc: Path) -> Iterator[str]:
    with os.scandir(proc) as entries:
        names = [entry.name for entry in entries if entry.name.isdecimal()]
    yield from names[:_MOST_PROCESSES]
