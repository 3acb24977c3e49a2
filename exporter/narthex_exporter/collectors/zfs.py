"""Report what ZFS counts, and the health of its pools."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    NoData,
    Node,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources import zfs


def _family(part: str, kstat: str, labels: tuple[str, ...] = ()) -> Family:
    return Family(
        f"node_zfs_{part}_{{field}}", Kind.UNTYPED, f"kstat.zfs.misc.{kstat}.{{field}}", labels
    )


# The module's kstats, by the name of their file.
MODULE: Final = {
    "abdstats": _family("abd", "abdstats"),
    "arcstats": _family("arc", "arcstats"),
    "dbufstats": _family("dbuf", "dbufstats"),
    "dmu_tx": _family("dmu_tx", "dmu_tx"),
    "dnodestats": _family("dnode", "dnodestats"),
    "fm": _family("fm", "fm"),
    "vdev_cache_stats": _family("vdev_cache", "vdev_cache_stats"),
    "vdev_mirror_stats": _family("vdev_mirror", "vdev_mirror_stats"),
    "xuio_stats": _family("xuio", "xuio_stats"),
    "zfetchstats": _family("zfetch", "zfetchstats"),
    "zil": _family("zil", "zil"),
}
POOL = _family("zpool", "io", ("zpool",))
DATASET = _family("zpool_dataset", "objset", ("zpool", "dataset"))
STATE = gauge("node_zfs_zpool_state", "kstat.zfs.misc.state", ("zpool", "state"))
STATES: Final = ("degraded", "faulted", "offline", "online", "removed", "suspended", "unavail")
MAX_DATASETS = limit_option("max-datasets", 500, "Datasets to report at most.")


@collector(
    name="zfs",
    metrics=(*MODULE.values(), POOL, DATASET, STATE),
    options=(MAX_DATASETS,),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what ZFS counts, and the health of its pools."""
    if not zfs.present(node.proc):
        raise NoData("ZFS is not loaded")
    for kstat, family in MODULE.items():
        for name, number in zfs.numbers(node.proc, kstat).items():
            yield family.named(field=name).at(number)
    pools = zfs.pools(node.proc)
    for pool in pools:
        for name, number in zfs.io(node.proc, pool).items():
            yield POOL.named(field=name).at(number, pool)
        health = zfs.state(node.proc, pool)
        if health is not None:
            for state in STATES:
                yield STATE.at(int(state == health), pool, state)
    found = [(pool, kstat) for pool in pools for kstat in zfs.datasets(node.proc, pool)]
    chosen = node.capped(MAX_DATASETS, found)
    for pool, dataset, numbers in zfs.each_dataset(node.proc, chosen):
        for name, number in numbers.items():
            yield DATASET.named(field=name).at(number, pool, dataset)
