"""Report what XFS filesystems did."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Sample,
    collector,
    counter,
)
from narthex_exporter.sources import xfs


def _counts(prefix: str, *names: tuple[str, str]) -> tuple[Metric, ...]:
    return tuple(
        counter(f"node_xfs_{prefix}_{name}_total", text, ("device",)) for name, text in names
    )


_BTREE: Final = ("lookups", "compares", "records inserted", "records deleted")


def _btree(prefix: str, tree: str) -> tuple[Metric, ...]:
    return _counts(
        prefix,
        *[
            (word.replace(" ", "_"), f"Number of {tree} B-tree {word} for a filesystem.")
            for word in _BTREE
        ],
    )


# The kernel's groups, and what the numbers of each are, from the first on.
GROUPS: Final = {
    "extent_alloc": _counts(
        "extent_allocation",
        ("extents_allocated", "Number of extents allocated for a filesystem."),
        ("blocks_allocated", "Number of blocks allocated for a filesystem."),
        ("extents_freed", "Number of extents freed for a filesystem."),
        ("blocks_freed", "Number of blocks freed for a filesystem."),
    ),
    "abt": _btree("allocation_btree", "allocation"),
    "blk_map": _counts(
        "block_mapping",
        ("reads", "Number of block map for read operations for a filesystem."),
        ("writes", "Number of block map for write operations for a filesystem."),
        ("unmaps", "Number of block unmaps (deletes) for a filesystem."),
        ("extent_list_insertions", "Number of extent list insertions for a filesystem."),
        ("extent_list_deletions", "Number of extent list deletions for a filesystem."),
        ("extent_list_lookups", "Number of extent list lookups for a filesystem."),
        ("extent_list_compares", "Number of extent list compares for a filesystem."),
    ),
    "bmbt": _btree("block_map_btree", "block map"),
    "dir": _counts(
        "directory_operation",
        ("lookup", "Number of directory lookups which miss the directory name lookup cache."),
        ("create", "Number of times a new directory entry was created for a filesystem."),
        ("remove", "Number of times a directory entry was removed for a filesystem."),
        ("getdents", "Number of times directory entries were listed for a filesystem."),
    ),
    "ig": _counts(
        "inode_operation",
        ("attempts", "Number of times an inode was looked for in the inode cache."),
        ("found", "Number of times an inode was found in the inode cache."),
        ("recycled", "Number of times an inode in the cache was just being recycled."),
        ("missed", "Number of times an inode was not found in the inode cache."),
        ("duplicates", "Number of times a missing inode was added by another process first."),
        ("reclaims", "Number of times an inode was reclaimed from the cache to free memory."),
        ("attribute_changes", "Number of times the attributes of an inode were changed."),
    ),
    "rw": _counts(
        "write", ("calls", "Number of write(2) system calls made to files in a filesystem.")
    )
    + _counts("read", ("calls", "Number of read(2) system calls made to files in a filesystem.")),
    "vnodes": _counts(
        "vnode",
        ("active", "Number of vnodes not on free lists for a filesystem."),
        ("allocate", "Number of times vn_alloc called for a filesystem."),
        ("get", "Number of times vn_get called for a filesystem."),
        ("hold", "Number of times vn_hold called for a filesystem."),
        ("release", "Number of times vn_rele called for a filesystem."),
        ("reclaim", "Number of times vn_reclaim called for a filesystem."),
        ("remove", "Number of times vn_remove called for a filesystem."),
    ),
}


@collector(name="xfs", metrics=tuple(each for group in GROUPS.values() for each in group))
def collect(node: Node) -> Iterator[Sample]:
    """Report what XFS filesystems did."""
    devices = xfs.filesystems(node.sys)
    if not devices:
        raise NoData("no XFS is mounted")
    for device in devices:
        found = xfs.statistics(node.sys, device)
        for group, metrics in GROUPS.items():
            # Old kernels have fewer columns than we know, newer ones may have more.
            for metric, number in zip(metrics, found.get(group, ()), strict=False):
                yield metric.at(number, device)
