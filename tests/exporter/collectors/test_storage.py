"""RAID, ZFS, XFS, Btrfs and bcache are told as the kernel has them, or not at all."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.collectors import bcache, btrfs, mdadm, xfs, zfs
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Collector, NoData, Node
from narthex_exporter.sources import bcache as bcache_source
from narthex_exporter.sources import btrfs as btrfs_source
from narthex_exporter.sources.zfs import parse_dataset, parse_io, parse_named

Measure = Callable[..., dict[str, float]]
EVERY = tuple(each.collect for each in (bcache, btrfs, mdadm, xfs, zfs))


@pytest.mark.parametrize("collector", EVERY, ids=lambda each: each.name)
def test_a_machine_without_it_has_no_data(
    collector: Collector, tmp_path: Path, make_node: Callable[..., Node]
) -> None:
    with pytest.raises(NoData):
        look(collector, make_node(tmp_path))


@pytest.mark.parametrize("collector", EVERY, ids=lambda each: each.name)
@pytest.mark.parametrize("data", [b"", b"\xff\x00\n:::\n- -", b"9" * 1000], ids=len)
def test_spoilt_files_spoil_nothing_else(
    collector: Collector, data: bytes, tree: Path, make_node: Callable[..., Node]
) -> None:
    for folder in ("sys/fs", "proc/spl", "sys/block"):
        for file in (tree / folder).rglob("*"):
            if file.is_file():
                file.write_bytes(data)
    look(collector, make_node(tree))


def test_a_rebuild_tells_when_it_ends(measure: Measure) -> None:
    found = measure(mdadm.collect)
    assert found['narthex_md_rebuild_eta_seconds{device="md1"}'] == 214.5 * 60
    assert 'narthex_md_rebuild_eta_seconds{device="md3"}' not in found
    assert found['node_md_degraded{device="md1"}'] == 1
    assert found['node_md_raid_disks{device="md1"}'] == 4
    assert found['node_md_blocks_synced{device="md3"}'] == 0


@pytest.mark.parametrize(
    "text", ["md0 : active raid1 a[0]\n", "md0\n", "md0 : active raid1 a[0]\n   12 blocks\n"]
)
def test_an_array_that_is_not_understood_is_a_failure(
    tree: Path, make_node: Callable[..., Node], text: str
) -> None:
    (tree / "proc/mdstat").write_text(text)
    with pytest.raises(ValueError, match="mdstat"):
        look(mdadm.collect, make_node(tree))


def test_no_array_is_no_failure(tree: Path, measure: Measure) -> None:
    (tree / "proc/mdstat").write_text("Personalities : \nunused devices: <none>\n")
    assert measure(mdadm.collect, tree) == {}


def test_kstats_are_read_by_their_types() -> None:
    text = "1 2 3\nname type data\na 4 1\nb 3 -1\nc 7 x\nd 4 x\nhalf 4\n"
    assert parse_named(text) == {"a": 1, "b": -1}
    named = "1 2\nname type data\ndataset_name 7 tank/two words\nreads 4 9\n"
    assert parse_dataset(named) == ("tank/two words", {"reads": 9})
    assert parse_io("x\nnread nwritten\n1\n") == {"nread": 1}


def test_pools_beyond_the_limit_of_datasets_keep_their_health(
    tree: Path, make_node: Callable[..., Node]
) -> None:
    found = look(zfs.collect, make_node(tree, settings={zfs.MAX_DATASETS: 0}))
    names = {sample.metric.name for sample in found.samples}
    assert found.truncated
    assert "node_zfs_zpool_state" in names
    assert "node_zfs_zpool_dataset_reads" not in names


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("512", 512), ("1.5k", 1536), ("-2.0M", -(2 << 20))]
)
def test_sizes_are_read_as_bcache_prints_them(text: str, value: int) -> None:
    assert bcache_source.parse_size(text) == value


def test_priorities_are_read_on_demand(measure: Measure) -> None:
    series = (
        'node_bcache_priority_stats_unused_percent{uuid="1d2e3f40-5b6c-4d7e-8f90-a1b2c3d4e5f6",'
        'cache_device="cache0"}'
    )
    assert series not in measure(bcache.collect)
    settings = {bcache.PRIORITY_STATS: bcache.PRIORITY_STATS.parse("true")}
    assert measure(bcache.collect, settings=settings)[series] == 83


def test_a_device_is_read_from_the_kernels_structures() -> None:
    about = struct.pack("=Q16sQQ", 1, bytes(range(16)), 5, 9).ljust(3072, b"\0")
    about = (about + b"/dev/mapper/x").ljust(4096, b"\0")
    counts = struct.pack("=3Q5Q", 1, 5, 0, 1, 2, 3, 4, 5).ljust(1032, b"\0")
    device = btrfs_source.parse_device(about, counts)
    assert (device.name, device.used, device.size) == ("x", 5, 9)
    assert device.uuid == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert device.errors == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("layout", "ratio"), [("single", 1), ("raid1c3", 3), ("raid5", 4 / 3), ("raid6", 2), ("?", 0)]
)
def test_a_layout_takes_so_many_copies(layout: str, ratio: float) -> None:
    assert btrfs_source.ratio(layout, 4) == ratio
