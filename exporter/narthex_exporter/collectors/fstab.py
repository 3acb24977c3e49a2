"""Report which lines of /etc/fstab are not in force."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources import fstab

MOUNTED = gauge(
    "narthex_fstab_mounted",
    "Whether what /etc/fstab has mounted at boot is mounted; automounts count as mounted.",
    ("mountpoint", "device", "fstype"),
)
SWAP = gauge(
    "narthex_fstab_swap_active",
    "Whether swap that /etc/fstab has turned on at boot is in use.",
    ("device",),
)
# How fstab names a device by a property; udev keeps a link for each.
_TAGS: Final = {
    "ID": "by-id",
    "LABEL": "by-label",
    "PARTLABEL": "by-partlabel",
    "PARTUUID": "by-partuuid",
    "UUID": "by-uuid",
}


@collector(name="fstab", metrics=(MOUNTED, SWAP))
def collect(node: Node) -> Iterator[Sample]:
    """Report which lines of /etc/fstab are not in force.

    Lines with ``noauto`` are left out, unless systemd mounts them at the first use: then the
    automount itself, which is a mount too, is what counts. With ``nofail`` a device may be away
    on purpose, so such a line is told only while its device is known or it is mounted.
    """
    try:
        entries = fstab.read(node.paths.rooted("/etc/fstab"))
    except FileNotFoundError as error:
        raise NoData("there is no /etc/fstab") from error
    points = {mount.path for mount in node.filesystems.mounts()}
    swaps: set[str] | None = None
    for entry in entries:
        automatic = "x-systemd.automount" in entry.options
        if "noauto" in entry.options and not automatic:
            continue
        if entry.kind == "swap":
            if swaps is None:
                swaps = _swaps(node)
            path = _device(entry.device)
            yield SWAP.at(int(_resolved(node, path) in swaps), entry.device)
        elif entry.path.startswith(b"/"):
            mounted = entry.path in points
            away = "nofail" in entry.options and not _present(node, entry.device)
            if mounted or not away:
                yield MOUNTED.at(int(mounted), entry.point, entry.device, entry.kind)


def _swaps(node: Node) -> set[str]:
    try:
        return set(fstab.parse_swaps(node.proc.bytes("swaps")))
    except FileNotFoundError:
        return set()


def _device(device: str) -> str:
    """Give the path of a device named by a tag: the link that udev keeps."""
    tag, equals, value = device.partition("=")
    folder = _TAGS.get(tag)
    return f"/dev/disk/{folder}/{value.strip(chr(34))}" if equals and folder else device


def _resolved(node: Node, path: str) -> str:
    """Follow a link of udev's by its name alone; the device is not opened."""
    try:
        target = node.paths.rooted(path).readlink()
    except OSError:
        return path
    joined = Path(path).parent / target
    parts: list[str] = []
    for part in joined.parts:
        if part == "..":
            parts = parts[:-1] or parts
        else:
            parts.append(part)
    return str(Path(*parts))


def _present(node: Node, device: str) -> bool:
    path = _device(device)
    return (
        not path.startswith("/dev/")
        or node.paths.rooted(path).is_symlink()
        or (node.paths.rooted(path).exists())
    )
