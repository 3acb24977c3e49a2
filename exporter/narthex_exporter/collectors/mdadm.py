"""Report the state of software RAID."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources import md

_LABELS = ("device",)
STATE = gauge("node_md_state", "Indicates the state of md-device.", ("device", "state"))
DISKS = gauge(
    "node_md_disks", "Number of active/failed/spare disks of device.", ("device", "state")
)
REQUIRED = gauge("node_md_disks_required", "Total number of disks of device.", _LABELS)
BLOCKS = gauge("node_md_blocks", "Total number of blocks on device.", _LABELS)
SYNCED = gauge("node_md_blocks_synced", "Number of blocks synced on device.", _LABELS)
RAID_DISKS = gauge("node_md_raid_disks", "Number of raid disks on device.", _LABELS)
DEGRADED = gauge("node_md_degraded", "Number of degraded disks on device.", _LABELS)
ETA = gauge(
    "narthex_md_rebuild_eta_seconds",
    "How long the kernel thinks that the running resync, recovery, check or reshape will take.",
    _LABELS,
)
# What is shown of a state, and what the source calls it.
_STATES: Final = {
    "active": "active",
    "check": "checking",
    "inactive": "inactive",
    "recovering": "recovering",
    "resync": "resyncing",
}


@collector(
    name="mdadm",
    metrics=(STATE, DISKS, REQUIRED, BLOCKS, SYNCED, RAID_DISKS, DEGRADED, ETA),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report the state of software RAID."""
    try:
        arrays = md.arrays(node.proc)
    except FileNotFoundError as error:
        raise NoData("this kernel has no software RAID") from error
    for array in arrays:
        name = array.name
        for shown, state in _STATES.items():
            yield STATE.at(int(array.state == state), name, shown)
        yield DISKS.at(array.disks_active, name, "active")
        yield DISKS.at(array.disks_failed, name, "failed")
        yield DISKS.at(array.disks_spare, name, "spare")
        yield REQUIRED.at(array.disks_required, name)
        yield BLOCKS.at(array.blocks, name)
        yield SYNCED.at(array.blocks_synced, name)
        disks, degraded = md.disks_degraded(node.sys, name)
        if disks is not None:
            yield RAID_DISKS.at(disks, name)
        if degraded is not None:
            yield DEGRADED.at(degraded, name)
        if array.finish_seconds is not None:
            yield ETA.at(array.finish_seconds, name)
