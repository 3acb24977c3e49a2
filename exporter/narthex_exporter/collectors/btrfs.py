"""Report how Btrfs filesystems use their devices."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Sample,
    collector,
    counter,
    gauge,
)
from narthex_exporter.sources import btrfs

_UUID = ("uuid",)
_LAYOUT = ("uuid", "block_group_type", "mode")
_DEVICE = ("uuid", "device", "btrfs_dev_uuid")
INFO = gauge("node_btrfs_info", "Filesystem information", ("uuid", "label"))
RESERVE = gauge("node_btrfs_global_rsv_size_bytes", "Size of global reserve.", _UUID)
COMMITS = counter(
    "node_btrfs_commits_total", "The total number of commits that have occurred.", _UUID
)
LAST_COMMIT = gauge(
    "node_btrfs_last_commit_seconds", "Duration of the most recent commit, in seconds.", _UUID
)
MAX_COMMIT = gauge(
    "node_btrfs_max_commit_seconds", "Duration of the slowest commit, in seconds.", _UUID
)
COMMIT_TIME = counter(
    "node_btrfs_commit_seconds_total", "Sum of the duration of all commits, in seconds.", _UUID
)
RESERVED = gauge(
    "node_btrfs_reserved_bytes",
    "Amount of space reserved for a data type",
    ("uuid", "block_group_type"),
)
USED = gauge("node_btrfs_used_bytes", "Amount of used space by a layout/data type", _LAYOUT)
SIZE = gauge("node_btrfs_size_bytes", "Amount of space allocated for a layout/data type", _LAYOUT)
RATIO = gauge(
    "node_btrfs_allocation_ratio", "Data allocation ratio for a layout/data type", _LAYOUT
)
DEVICE_SIZE = gauge(
    "node_btrfs_device_size_bytes",
    "Size of a device that is part of the filesystem.",
    _DEVICE,
)
UNUSED = gauge(
    "node_btrfs_device_unused_bytes",
    "Unused bytes of a device that is part of the filesystem.",
    _DEVICE,
)
ERRORS = counter(
    "node_btrfs_device_errors_total", "Errors reported for the device", (*_DEVICE, "type")
)
_GROUPS: Final = ("data", "metadata", "system")
# Lines of commit_stats, and how many of the kernel's units make one of ours.
_COMMITS: Final = (
    ("commits", COMMITS, 1),
    ("last_commit_ms", LAST_COMMIT, 1000),
    ("max_commit_ms", MAX_COMMIT, 1000),
    ("total_commit_ms", COMMIT_TIME, 1000),
)


@collector(
    name="btrfs",
    metrics=(
        *(metric for _, metric, _ in _COMMITS),
        *(INFO, RESERVE, RESERVED, USED, SIZE, RATIO, DEVICE_SIZE, UNUSED, ERRORS),
    ),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how Btrfs filesystems use their devices."""
    filesystems = btrfs.filesystems(node.sys)
    if not filesystems:
        raise NoData("no Btrfs is mounted")
    try:
        asked = btrfs.ask(node.filesystems.mounts(), str(node.filesystems.root).rstrip("/"))
    except FileNotFoundError:
        asked = {}
    for fsid in filesystems:
        yield from _filesystem(node, fsid, asked.get(fsid))


def _filesystem(node: Node, folder: str, devices: list[btrfs.Device] | None) -> Iterator[Sample]:
    base = f"fs/btrfs/{folder}"
    uuid = node.sys.text(f"{base}/metadata_uuid") or folder
    yield INFO.at(1, uuid, node.sys.text(f"{base}/label") or "")
    yield RESERVE.at(node.sys.number(f"{base}/allocation/global_rsv_size") or 0, uuid)
    commits = btrfs.commits(node.sys, folder)
    for name, metric, units in _COMMITS:
        if name in commits:
            value = commits[name]
            yield metric.at(value if units == 1 else value / units, uuid)
    sizes = btrfs.device_sizes(node.sys, folder)
    yield from _allocation(node, f"{base}/allocation", uuid, len(sizes))
    if devices is None:
        for name, size in sizes.items():
            yield DEVICE_SIZE.at(size, uuid, name, "")
        return
    for device in devices:
        labels = (uuid, device.name, device.uuid)
        yield DEVICE_SIZE.at(device.size, *labels)
        yield UNUSED.at(device.size - device.used, *labels)
        for kind, errors in zip(btrfs.ERRORS, device.errors, strict=True):
            yield ERRORS.at(errors, *labels, kind)


def _allocation(node: Node, folder: str, uuid: str, devices: int) -> Iterator[Sample]:
    for group in _GROUPS:
        path = f"{folder}/{group}"
        reserved = node.sys.number(f"{path}/bytes_reserved")
        if reserved is not None:
            yield RESERVED.at(reserved, uuid, group)
        for layout in node.sys.names(path):
            size = node.sys.number(f"{path}/{layout}/total_bytes")
            used = node.sys.number(f"{path}/{layout}/used_bytes")
            if size is None or used is None:
                continue  # an attribute, no layout
            yield USED.at(used, uuid, group, layout)
            yield SIZE.at(size, uuid, group, layout)
            yield RATIO.at(btrfs.ratio(layout, devices), uuid, group, layout)
