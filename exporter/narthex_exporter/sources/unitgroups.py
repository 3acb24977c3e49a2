"""Read what units use from their control groups: version 1, version 2, or both at once.

See Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel. What is not accounted for
a group has no file there, and is None here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from narthex_exporter.sources.files import Files

_BASE: Final = "fs/cgroup"
# Version 1 mounts a hierarchy a controller; two may share one mount, by either or both names.
_CPUACCT: Final = ("cpuacct", "cpu,cpuacct", "cpuacct,cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a group and all below it use: bytes, seconds, a number of tasks."""

    memory: int | None = None
    cpu: float | None = None
    tasks: int | None = None
    read: int | None = None
    written: int | None = None


@dataclass(frozen=True, slots=True)
class UnitGroups:
    """The groups as mounted below ``sys``, read anew each time: no descriptor keeps a group."""

    sys: Path = Path("/sys")

    def usage(self, groups: Iterable[str]) -> dict[str, Usage]:
        """Tell the use of each group, named as in systemd's ControlGroup: ``/system.slice/…``."""
        files = Files(most=0)
        base = f"{self.sys}/{_BASE}"
        unified = (Path(base) / "cgroup.controllers").exists()
        look = _unified if unified else _separate
        return {group: look(files, base, group) for group in groups}


def parse_io_stat(data: bytes) -> tuple[int, int]:
    """Sum the bytes read and written of version 2's io.stat over its devices."""
    read = written = 0
    for word in data.split():
        key, _, value = word.partition(b"=")
        if key == b"rbytes":
            read += int(value)
        elif key == b"wbytes":
            written += int(value)
    return read, written


def parse_service_bytes(data: bytes) -> tuple[int, int]:
    """Sum the bytes read and written of version 1's blkio.throttle.io_service_bytes."""
    sums = {b"Read": 0, b"Write": 0}
    for line in data.splitlines():
        words = line.split()
        # The last line is a total over everything, and has two words.
        if len(words) == 3 and words[1] in sums:  # noqa: PLR2004 - device, what, how much
            sums[words[1]] += int(words[2])
    return sums[b"Read"], sums[b"Write"]


def _unified(files: Files, base: str, group: str) -> Usage:
    here = f"{base}{group}"
    read, written = _pair(parse_io_stat, _read(files, f"{here}/io.stat"))
    return Usage(
        memory=_number(_read(files, f"{here}/memory.current")),
        cpu=_cpu_stat(_read(files, f"{here}/cpu.stat")),
        tasks=_number(_read(files, f"{here}/pids.current")),
        read=read,
        written=written,
    )


def _separate(files: Files, base: str, group: str) -> Usage:
    blkio = f"{base}/blkio{group}/blkio.throttle.io_service_bytes"
    bytes_ = _read(files, f"{blkio}_recursive")
    if bytes_ is None:
        bytes_ = _read(files, blkio)
    read, written = _pair(parse_service_bytes, bytes_)
    return Usage(
        memory=_number(_read(files, f"{base}/memory{group}/memory.usage_in_bytes")),
        cpu=_cpu_separate(files, base, group),
        tasks=_number(_read(files, f"{base}/pids{group}/pids.current")),
        read=read,
        written=written,
    )


def _cpu_separate(files: Files, base: str, group: str) -> float | None:
    """Tell CPU seconds; where systemd made no such group, the unified tree beside may know.

    Version 2 counts the time of a group without any controller.
    """
    for mount in _CPUACCT:
        nanoseconds = _number(_read(files, f"{base}/{mount}{group}/cpuacct.usage"))
        if nanoseconds is not None:
            return nanoseconds / 1e9
    return _cpu_stat(_read(files, f"{base}/unified{group}/cpu.stat"))


def _cpu_stat(data: bytes | None) -> float | None:
    for line in (data or b"").splitlines():
        key, _, value = line.partition(b" ")
        if key == b"usage_usec":
            microseconds = _number(value)
            return None if microseconds is None else microseconds / 1e6
    return None


def _read(files: Files, path: str) -> bytes | None:
    try:
        return files.read(path)
    except (OSError, ValueError):
        return None


def _number(data: bytes | None) -> int | None:
    try:
        return None if data is None else int(data)
    except ValueError:
        return None


def _pair(
    parse: Callable[[bytes], tuple[int, int]], data: bytes | None
) -> tuple[int | None, int | None]:
    try:
        return (None, None) if data is None else parse(data)
    except ValueError:
        return None, None
