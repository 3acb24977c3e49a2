"""Report what block devices did, and what they are."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    Node,
    Sample,
    collector,
    counter,
    gauge,
    limit_option,
    name_filter,
)
from narthex_exporter.sources.udev import Udev

_LABELS = ("device",)
# How many of the kernel's units make one of ours.
_SECTOR: Final = 1 / 512
_MILLI: Final = 1000.0


def _count(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"node_disk_{name}_total", help, _LABELS)


# In the order of the kernel's columns (its Documentation/admin-guide/iostats.rst), with its units.
COLUMNS: Final = (
    (_count("reads_completed", "The total number of reads completed successfully."), 1.0),
    (_count("reads_merged", "The total number of reads merged."), 1.0),
    (_count("read_bytes", "The total number of bytes read successfully."), _SECTOR),
    (_count("read_time_seconds", "The total number of seconds spent by all reads."), _MILLI),
    (_count("writes_completed", "The total number of writes completed successfully."), 1.0),
    (_count("writes_merged", "The number of writes merged."), 1.0),
    (_count("written_bytes", "The total number of bytes written successfully."), _SECTOR),
    (_count("write_time_seconds", "The total number of seconds spent by all writes."), _MILLI),
    (gauge("node_disk_io_now", "The number of I/Os currently in progress.", _LABELS), 1.0),
    (_count("io_time_seconds", "Total seconds spent doing I/Os."), _MILLI),
    (_count("io_time_weighted_seconds", "The weighted # of seconds spent doing I/Os."), _MILLI),
    (_count("discards_completed", "The total number of discards completed successfully."), 1.0),
    (_count("discards_merged", "The total number of discards merged."), 1.0),
    (_count("discarded_sectors", "The total number of sectors discarded successfully."), 1.0),
    (_count("discard_time_seconds", "The total number of seconds spent by all discards."), _MILLI),
    (_count("flush_requests", "The total number of flush requests completed successfully."), 1.0),
    (
        _count(
            "flush_requests_time_seconds",
            "The total number of seconds spent by all flush requests.",
        ),
        _MILLI,
    ),
)
INFO = gauge(
    "node_disk_info",
    "Info of /sys/block/<block_device>.",
    (
        "device",
        *("major", "minor", "path", "wwn", "model", "serial", "revision", "rotational"),
    ),
)
FILESYSTEM = gauge(
    "node_disk_filesystem_info",
    "Info about disk filesystem.",
    ("device", "type", "usage", "uuid", "version"),
)
MAPPER = gauge(
    "node_disk_device_mapper_info",
    "Info about disk device mapper.",
    ("device", "name", "uuid", "vg_name", "lv_name", "lv_layer"),
)
# By udev's name of it.
ATA: Final = {
    "ID_ATA_WRITE_CACHE": gauge(
        "node_disk_ata_write_cache", "ATA disk has a write cache.", _LABELS
    ),
    "ID_ATA_WRITE_CACHE_ENABLED": gauge(
        "node_disk_ata_write_cache_enabled", "ATA disk has its write cache enabled.", _LABELS
    ),
    "ID_ATA_ROTATION_RATE_RPM": gauge(
        "node_disk_ata_rotation_rate_rpm", "ATA disk rotation rate in RPMs (0 for SSDs).", _LABELS
    ),
}
_PATH_TO_MODEL: Final = ("ID_PATH", "ID_WWN", "ID_MODEL")
# The serial number as it is printed on the disk, or the next best.
_SERIALS: Final = ("SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL")
_FILESYSTEM: Final = ("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION")
_MAPPER: Final = ("DM_NAME", "DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER")
DEVICES = name_filter(
    "device",
    "Block devices",
    exclude=r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$",
)
DEVICE_EXCLUDE = DEVICES.exclude
MAX = limit_option("max", 100, "How many devices to report at most.")


@collector(
    name="diskstats",
    metrics=(*(metric for metric, _ in COLUMNS), INFO, FILESYSTEM, MAPPER, *ATA.values()),
    options=(*DEVICES.options, MAX),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what block devices did, and what udev knows of them."""
    include, exclude = node.setting(DEVICES.include), node.setting(DEVICES.exclude)
    udev = node.source(Udev)
    found = [
        disk
        for disk in node.proc.diskstats()
        if include.search(disk.device) and not exclude.search(disk.device)
    ]
    for disk in node.capped(MAX, found):
        # Old kernels have fewer columns than we know, newer ones may have more.
        for (metric, units), number in zip(COLUMNS, disk.numbers, strict=False):
            yield metric.at(number / units, disk.device)
        about = udev.block(disk.major, disk.minor)
        rotational = node.sys.text(f"block/{disk.device.replace('/', '!')}/queue/rotational")
        yield INFO.at(
            1,
            disk.device,
            disk.major,
            disk.minor,
            *[about.get(name, "") for name in _PATH_TO_MODEL],
            next((about[name] for name in _SERIALS if about.get(name)), ""),
            about.get("ID_REVISION", ""),
            "1" if rotational == "1" else "0",
        )
        if about:
            yield from _properties(disk.device, about)


def _properties(device: str, about: dict[str, str]) -> Iterator[Sample]:
    if about.get("ID_FS_TYPE"):
        yield FILESYSTEM.at(1, device, *[about.get(name, "") for name in _FILESYSTEM])
    if about.get("DM_NAME"):
        yield MAPPER.at(1, device, *[about.get(name, "") for name in _MAPPER])
    if about.get("ID_ATA"):
        for name, metric in ATA.items():
            if about.get(name, "").isdecimal():
                yield metric.at(int(about[name]), device)
