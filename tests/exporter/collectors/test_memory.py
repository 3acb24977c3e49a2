"""Swaps, free blocks, slabs, zones and NUMA nodes, as the kernel lays memory out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.collectors import (
    buddyinfo,
    cgroups,
    edac,
    ksmd,
    meminfo_numa,
    slabinfo,
    swap,
    zoneinfo,
)
from narthex_exporter.collectors.spec import NoData, Node

Measure = Callable[..., dict[str, float]]
EDAC = "sys/devices/system/edac/mc"


def test_swaps_are_in_bytes(measure: Measure) -> None:
    found = measure(swap.collect)
    device = '{device="/dev/dm-2",swap_type="partition"}'
    assert found[f"node_swap_size_bytes{device}"] == 4194300 * 1024
    assert found[f"node_swap_used_bytes{device}"] == 3072 * 1024
    assert found[f"node_swap_priority{device}"] == -2
    assert r'node_swap_size_bytes{device="/swap\\040file",swap_type="file"}' in found


def test_without_swap_there_is_nothing_and_no_failure(measure: Measure, tree: Path) -> None:
    (tree / "proc/swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n/a b\n")
    assert not measure(swap.collect, tree)


def test_free_blocks_are_told_by_order(measure: Measure) -> None:
    found = measure(buddyinfo.collect)
    assert found['node_buddyinfo_blocks{node="0",zone="DMA",size="10"}'] == 3
    assert found['node_buddyinfo_blocks{node="0",zone="Normal",size="0"}'] == 4381
    assert len(found) == 22


def test_slabs_are_told_and_chosen(measure: Measure) -> None:
    found = measure(slabinfo.collect)
    assert found['node_slabinfo_active_objects{slab="dentry"}'] == 206002
    assert found['node_slabinfo_pages_per_slab{slab="tw_sock_TCP"}'] == 2
    exclude = {slabinfo.SLABS.exclude: re.compile("^tw")}
    assert len(measure(slabinfo.collect, settings=exclude)) == len(found) / 2 == 5


def test_zones_have_watermarks_and_the_first_its_nodes_counts(measure: Measure) -> None:
    found = measure(zoneinfo.collect)
    dma, normal = '{node="0",zone="DMA"}', '{node="0",zone="Normal"}'
    assert found[f"node_zoneinfo_nr_active_anon_pages{dma}"] == 1175853
    assert found[f"node_zoneinfo_high_pages{dma}"] == 14
    assert found[f"node_zoneinfo_numa_interleave_total{dma}"] == 1
    assert found[f"node_zoneinfo_protection_2{dma}"] == 32105
    assert found[f"node_zoneinfo_nr_free_pages{normal}"] == 18553
    assert f"node_zoneinfo_nr_active_anon_pages{normal}" not in found


@pytest.mark.parametrize("text", ["", "Node", "Node \n\n", "min 3\n", "Node 0, zone A\n min x\n"])
def test_an_odd_zoneinfo_gives_nothing(measure: Measure, tree: Path, text: str) -> None:
    (tree / "proc/zoneinfo").write_text(text)
    assert not measure(zoneinfo.collect, tree)


def test_numa_nodes_have_bytes_pages_and_counts(measure: Measure) -> None:
    found = measure(meminfo_numa.collect)
    assert found['node_memory_numa_MemTotal{node="0"}'] == 134182340 * 1024
    assert found['node_memory_numa_Active_anon{node="0"}'] == 7588688 * 1024
    assert found['node_memory_numa_HugePages_Total{node="0"}'] == 2
    assert found['node_memory_numa_numa_hit_total{node="0"}'] == 193460335812


def test_merging_is_told_in_our_units(measure: Measure) -> None:
    found = measure(ksmd.collect)
    assert found["node_ksmd_sleep_seconds"] == 0.02
    assert found["node_ksmd_pages_sharing"] == 255
    assert found["node_ksmd_general_profit_bytes"] == -40960


def test_control_groups_are_counted(measure: Measure) -> None:
    found = measure(cgroups.collect)
    assert found['node_cgroups_cgroups{subsys_name="cpu"}'] == 148
    assert found['node_cgroups_enabled{subsys_name="memory"}'] == 0


def test_memory_errors_are_told_by_controller_row_and_channel(measure: Measure) -> None:
    found = measure(edac.collect)
    assert found['node_edac_correctable_errors_total{controller="0"}'] == 1
    assert found['node_edac_uncorrectable_errors_total{controller="0"}'] == 5
    row = "node_edac_csrow_correctable_errors_total"
    assert found[row + '{controller="0",csrow="unknown"}'] == 2
    assert found[row + '{controller="0",csrow="0"}'] == 3
    channel = (
        'node_edac_channel_correctable_errors_total{controller="0",csrow="0",'
        'channel="1",dimm_label="mc0_csrow0_channel1"}'
    )
    assert found[channel] == 0
    # ch1_ue_count is not there.
    assert len([name for name in found if "channel_uncorrectable" in name]) == 1


def test_a_controller_that_comes_is_found(make_node: Callable[..., Node], tree: Path) -> None:
    node = make_node(tree)
    before = len(list(edac.collect.collect(node)))
    (tree / EDAC / "mc1").mkdir()
    (tree / EDAC / "mc1/ce_count").write_text("9\n")
    after = list(edac.collect.collect(node.fresh()))
    assert len(after) == before + 1
    assert (after[-1].values, after[-1].value) == (("1",), 9)  # type: ignore[union-attr]  # Samples


@pytest.mark.parametrize(
    "each", [cgroups.collect, edac.collect, ksmd.collect, meminfo_numa.collect, swap.collect]
)
def test_a_machine_without_them_has_no_data(
    measure: Measure, tmp_path: Path, each: object
) -> None:
    with pytest.raises(NoData):
        measure(each, tmp_path)
