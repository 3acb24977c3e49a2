"""Report how full LVM's groups, pools, snapshots and caches are."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources import lvm

_PV = ("pv", "vg")
_VG = ("vg",)
_LV = ("vg", "lv")
PV_SIZE = gauge("narthex_lvm_pv_size_bytes", "Size of a physical volume.", _PV)
PV_FREE = gauge("narthex_lvm_pv_free_bytes", "Space of a physical volume not allocated.", _PV)
PV_MISSING = gauge(
    "narthex_lvm_pv_missing", "Is 1 for a physical volume whose device is not there.", _PV
)
VG_SIZE = gauge("narthex_lvm_vg_size_bytes", "Size of a volume group.", _VG)
VG_FREE = gauge("narthex_lvm_vg_free_bytes", "Space of a volume group not allocated.", _VG)
VG_MISSING = gauge(
    "narthex_lvm_vg_missing_pvs", "Physical volumes that a volume group misses.", _VG
)
LV_SIZE = gauge("narthex_lvm_lv_size_bytes", "Size of a logical volume.", _LV)
LV_HEALTHY = gauge(
    "narthex_lvm_lv_healthy", "Is 0 for a logical volume that LVM says has a problem.", _LV
)
THIN_DATA = gauge(
    "narthex_lvm_thin_data_used_ratio", "Part of a thin pool's or volume's data in use.", _LV
)
THIN_METADATA = gauge(
    "narthex_lvm_thin_metadata_used_ratio", "Part of a thin pool's metadata in use.", _LV
)
SNAPSHOT = gauge(
    "narthex_lvm_snapshot_used_ratio",
    "Part of a snapshot's space in use; a full one is lost.",
    _LV,
)
CACHE = gauge("narthex_lvm_cache_used_ratio", "Part of a cache's blocks in use.", _LV)
MAX_VOLUMES = limit_option("max-volumes", 1000, "Logical volumes to report at most.")


@collector(
    name="lvm",
    metrics=(
        *(PV_SIZE, PV_FREE, PV_MISSING, VG_SIZE, VG_FREE, VG_MISSING, LV_SIZE, LV_HEALTHY),
        *(THIN_DATA, THIN_METADATA, SNAPSHOT, CACHE),
    ),
    options=(MAX_VOLUMES,),
    every_seconds=60,
    limit_seconds=60.0,
    privileged=True,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how full LVM's groups, pools, snapshots and caches are."""
    try:
        physical = lvm.physical_volumes()
    except lvm.MissingError as error:
        raise NoData("LVM is not installed") from error
    if not physical:
        raise NoData("there is no physical volume")
    for each in physical:
        yield PV_SIZE.at(each.size, each.name, each.group)
        yield PV_FREE.at(each.free, each.name, each.group)
        yield PV_MISSING.at(int(each.missing), each.name, each.group)
    for group in lvm.groups():
        yield VG_SIZE.at(group.size, group.name)
        yield VG_FREE.at(group.free, group.name)
        yield VG_MISSING.at(group.missing, group.name)
    for volume in node.capped(MAX_VOLUMES, lvm.volumes()):
        yield from volume_samples(volume)


def volume_samples(volume: lvm.Volume) -> Iterator[Sample]:
    """Give what is known of one logical volume."""
    labels = (volume.group, volume.name)
    yield LV_SIZE.at(volume.size, *labels)
    yield LV_HEALTHY.at(int(volume.healthy), *labels)
    for metric, ratio in (
        (THIN_DATA, volume.thin_data),
        (THIN_METADATA, volume.thin_metadata),
        (SNAPSHOT, volume.snapshot),
        (CACHE, volume.cache),
    ):
        if ratio is not None:
            yield metric.at(ratio, *labels)
