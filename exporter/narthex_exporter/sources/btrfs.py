"""Read how Btrfs filesystems use their devices, from /sys/fs/btrfs and by ioctl(2)."""

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from narthex_exporter.sources.filesystems import Mount
from narthex_exporter.sources.sysfs import Sysfs

# See include/uapi/linux/btrfs.h.
_FS_INFO: Final = 0x8400941F
_DEV_INFO: Final = 0xD000941E
_DEV_STATS: Final = 0xC4089434
_FS_INFO_SIZE: Final = 1024
_DEV_INFO_SIZE: Final = 4096
_DEV_STATS_SIZE: Final = 1032
_PATH_AT: Final = 3072
_SECTOR: Final = 512
# In the order of the kernel's counters.
ERRORS: Final = ("write", "read", "flush", "corruption", "generation")
_COPIES: Final = {
    "single": 1, "raid0": 1, "dup": 2, "raid1": 2, "raid10": 2, "raid1c3": 3, "raid1c4": 4,
}  # fmt: skip
_PARITY: Final = {"raid5": 1, "raid6": 2}
# Device numbers to ask for at most: they are not without gaps.
_NUMBERS_AT_MOST: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a filesystem; ``errors`` in the order of ERRORS."""

    name: str
    uuid: str
    size: int
    used: int
    errors: tuple[int, ...]


def filesystems(sys: Sysfs) -> list[str]:
    """Name the filesystems that are mounted, by UUID."""
    return [name for name in sys.names("fs/btrfs") if "-" in name]


def device_sizes(sys: Sysfs, fsid: str) -> dict[str, int]:
    """Give the size in bytes of each device of a filesystem."""
    folder = f"fs/btrfs/{fsid}/devices"
    sizes = ((name, sys.number(f"{folder}/{name}/size")) for name in sys.names(folder))
    return {name: sectors * _SECTOR for name, sectors in sizes if sectors is not None}


def commits(sys: Sysfs, fsid: str) -> dict[str, int]:
    """Give the counters of commits, times in ms; nothing before Linux 6.0."""
    words = (
        line.split() for line in (sys.text(f"fs/btrfs/{fsid}/commit_stats") or "").split("\n")
    )
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def ratio(layout: str, devices: int) -> float:
    """Give how many bytes of devices one byte takes in a layout; 0 for unknown ones."""
    lost = _PARITY.get(layout)
    if lost is None:
        return _COPIES.get(layout, 0)
    return devices / (devices - lost) if devices > lost else 0


def ask(mounts: Iterable[Mount], root: str = "") -> dict[str, list[Device]]:
    """Ask mounted filesystems for their devices; by UUID, without those that do not answer.

    ``root`` is where the machine's / is for us.
    """
    found: dict[str, list[Device]] = {}
    asked: set[str] = set()
    for mount in mounts:
        if mount.kind != "btrfs" or mount.device in asked:
            continue
        try:
            fd = os.open(
                os.fsencode(root) + mount.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
        except OSError:
            continue  # another mount of the same may be open to us
        try:
            fsid, devices = _devices(fd)
        except OSError:
            continue
        finally:
            os.close(fd)
        asked.add(mount.device)
        found.setdefault(fsid, devices)
    return found


def _devices(fd: int) -> tuple[str, list[Device]]:
    about = bytearray(_FS_INFO_SIZE)
    fcntl.ioctl(fd, _FS_INFO, about)
    highest, number, fsid = struct.unpack_from("=QQ16s", about)
    devices: list[Device] = []
    for devid in range(min(highest, _NUMBERS_AT_MOST) + 1):
        if len(devices) == number:
            break
        try:
            devices.append(_device(fd, devid))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
    return str(uuid.UUID(bytes=fsid)), devices


def _device(fd: int, devid: int) -> Device:
    about = bytearray(struct.pack("=Q", devid).ljust(_DEV_INFO_SIZE, b"\0"))
    fcntl.ioctl(fd, _DEV_INFO, about)
    counts = bytearray(struct.pack("=QQ", devid, len(ERRORS)).ljust(_DEV_STATS_SIZE, b"\0"))
    fcntl.ioctl(fd, _DEV_STATS, counts)
    return parse_device(bytes(about), bytes(counts))


def parse_device(about: bytes, counts: bytes) -> Device:
    """Read what the kernel has written into its two structures."""
    _, number, used, size = struct.unpack_from("=Q16sQQ", about)
    path = about[_PATH_AT:].partition(b"\0")[0]
    return Device(
        name=path.rpartition(b"/")[2].decode("utf-8", "replace"),
        uuid=str(uuid.UUID(bytes=number)),
        size=size,
        used=used,
        errors=struct.unpack_from("=5Q", counts, 24),
    )
